"""Hosts of the multi-host run are hosts, what runs on them is what the manifest says, and what is lost is counted."""

import json
import subprocess
import sys

import pytest

from tests.multihost.callers import Turn, outcome
from tests.multihost.hosts import NoHosts, command_inside
from tests.multihost.manifest import Overlay, environment
from tests.multihost.run import OVERLAY, Blow, summary

SECRETS = {
    ("chroma-database", "url"): "postgresql://somewhere",
    **{("chroma-secrets", name): name for name in ("key_secret", "token_secret", "affinity_key")},
}
BEGAN, UNTIL = 100.0, 110.0


def test_a_host_has_its_address_and_memory_and_dies_whole() -> None:
    try:
        command = command_inside([sys.executable, "-m", "tests.multihost.smoke"])
    except NoHosts as error:
        pytest.skip(str(error))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["names"] == ["host-10", "host-11"]
    assert told["killed"]
    assert told["other"] == "host-10"
    assert told["code"] == 7  # process 1 got SIGTERM itself
    assert told["ended_within_s"] is not None


def test_pods_run_what_the_manifest_says() -> None:
    overlay = Overlay.read(OVERLAY)
    head, worker = overlay.head(SECRETS), overlay.worker("10.0.0.1", SECRETS)
    assert "--head" in head.command[-1]
    assert "--num-cpus=0" in head.command[-1]
    assert "--address=10.0.0.1:6379" in worker.command[-1]
    assert "--labels=chroma.serve/group=cpu" in worker.command[-1]
    assert worker.environment["CHROMA_MODELS__INGRESS__KEY_SECRET"] == "key_secret"
    assert worker.environment["RAY_SERVE_USE_GRPC_BY_DEFAULT"] == "1"
    assert overlay.job("migrate", SECRETS).command == ["chroma", "migrate"]
    assert overlay.stages == dict.fromkeys(("Reasoner", "Decoder", "Backbone", "Codec", "Ingress"), 2)
    assert overlay.grace_s > overlay.pre_stop_s + float(worker.environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])


def test_a_secret_that_is_missing_is_told() -> None:
    wanted = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
    with pytest.raises(KeyError, match="X wants"):
        environment([wanted], {})
    wanted["valueFrom"]["secretKeyRef"]["optional"] = True  # type: ignore[index]
    assert environment([wanted], {}) == {}


@pytest.mark.parametrize(
    ("error", "word"),
    [
        ("", "completed"),
        ("HTTP 429: b'...'", "refused"),
        ("HTTP 500: b'...'", "failed"),
        ("ConnectError: All connection attempts failed", "unreachable"),
        ("ReadError: ", "cut"),
        ("RemoteProtocolError: peer closed connection", "cut"),
        ("{'code': 'stage_unavailable'}", "failed"),
    ],
)
def test_what_a_caller_saw_in_a_word(error: str, word: str) -> None:
    assert outcome(error) == word


def told(kind: str, *turns: Turn) -> dict[str, object]:
    return summary(Blow(kind, "victim", BEGAN, UNTIL, "itself", 30.0), list(turns))


def turn(pod: str, word: str, began: float = 99.0, same: bool = True) -> Turn:
    return Turn(pod, began, began + 5.0, word, losses=1, same=same)


def test_only_connections_of_a_killed_ingress_may_break() -> None:
    cut = turn("victim", "cut")
    assert (told("kill", cut)["cut_with_their_ingress"], told("kill", cut)["lost"]) == (1, 0)
    assert told("drain", cut)["lost"] == 1
    assert told("kill", turn("another", "cut"))["lost"] == 1
    late = turn("victim", "cut", began=UNTIL + 0.5)  # the Service had not heard of it yet
    assert (told("kill", late)["cut_with_their_ingress"], told("kill", late)["lost"]) == (1, 0)
    assert told("kill", turn("victim", "failed"))["lost"] == 1


def test_codes_that_differ_are_a_fault_and_turns_of_another_time_are_not_counted() -> None:
    found = told("kill", turn("another", "completed", same=False), turn("another", "failed", began=50.0))
    assert (found["other_codes"], found["lost"], found["turns"], found["resumed"]) == (1, 0, 1, 1)
    assert len(found["faults"]) == 1  # type: ignore[arg-type]
