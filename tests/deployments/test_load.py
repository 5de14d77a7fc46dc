"""The load test on a real graph: a master and a worker of Locust with its web page, all three protocols, one report."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.deployments.graph import Graph

pytestmark = pytest.mark.serve


def test_callers_of_every_protocol_are_heard_through_a_worker_and_reported(graph: Graph, tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        web, bind = one.getsockname()[1], two.getsockname()[1]
    record, page = tmp_path / "record.json", tmp_path / "page.html"
    given = {
        "host": graph.url, "grpc": graph.grpc, "users": 3, "spawn-rate": 3, "processes": 1, "autoquit": 2,
        "web-host": "127.0.0.1", "web-port": web, "master-bind-host": "127.0.0.1", "master-bind-port": bind,
        "master-port": bind, "mix": "realtime=1,grpc=1,http=1", "seconds": 5, "reply-s": 1.5, "think-s": 0.6,
        "barge-in": 0, "cancel": 0, "hang-up": 0, "slow": 0, "record": record, "page": page,
        "slo": "first_audio_p95=60s", "keys": "ada=none,bob=none",
    }  # fmt: skip
    command = [sys.executable, "-m", "loadtest", "--autostart"]
    command += [f"--{name}={value}" for name, value in given.items()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "said").open("w") as said:
        locust = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            told = _page(f"http://127.0.0.1:{web}", locust)
            code = locust.wait(120)
        finally:
            if locust.poll() is None:
                locust.kill()
    words = (tmp_path / "said").read_text()
    assert code in (0, 3), words  # 3: this machine was too busy to tell
    assert "<svg" in told
    result = json.loads(record.read_text())
    assert ("VOID" in words) == result["void"] == (code == 3)
    assert set(result["by_door"]) == {"realtime", "grpc", "http"}, words
    assert result["lag"]["generators"] == 1  # the worker; the master calls nobody
    assert result["summary"]["outcomes"] == {"heard": result["summary"]["turns"]}, result["summary"]["errors"]
    for door, shown in result["by_door"].items():
        assert shown["first_audio_s"]["n"] == shown["turns"] >= 1
        assert shown["audio_s"] == pytest.approx(1.44 * shown["turns"], abs=0.1 * shown["turns"])
        if door != "http":  # the server's wait for the end of speech is in it
            assert shown["response_latency_s"]["min"] > shown["first_audio_s"]["min"] + 0.3
    assert page.read_text().count("<svg") == 5


def _page(url: str, locust: "subprocess.Popen[bytes]") -> str:
    """Our report as Locust's own web server shows it, once there are turns in it; Locust's own page beside it."""
    while locust.poll() is None:
        try:
            stats = httpx.get(f"{url}/stats/requests", timeout=5.0).json()
            if any(row["name"] == "first audio" and row["num_requests"] for row in stats["stats"]):
                assert "Locust" in httpx.get(url, timeout=5.0).text
                return httpx.get(f"{url}/chroma", timeout=30.0).text
        except httpx.TransportError:  # not up yet
            pass
        time.sleep(0.3)
    return ""
