"""The load test's own options, beside Locust's: on the command line, in the environment, in a file, in the web page."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.load.behaviour import Behaviour
from loadtest.load.profile import PROFILES
from loadtest.slo import Slo

DOORS = ("realtime", "grpc", "http")
QUESTION = Path(__file__).resolve().parents[2] / "deployments" / "ingress" / "voices" / "question.wav"


def add_options(parser: Any) -> None:
    """parser: Locust's."""

    def add(name: str, default: Any, told: str, **more: Any) -> None:
        variable = f"CHROMA_LOAD_{name.replace('-', '_').upper()}"
        kind = {} if default is None or "choices" in more else {"type": type(default)}
        parser.add_argument(f"--{name}", env_var=variable, default=default, help=told, **{**kind, **more})

    add("arrivals", "steady", "how callers come", choices=list(PROFILES))
    add("seconds", 60.0, "how long callers arrive; then they finish what they say")
    add("mix", "realtime=6,grpc=2,http=2", "weights of the protocols")
    add("grpc", "", "HOST:PORT of gRPC; by default the host with the port 8001")
    add("keys", "anybody=none", "API keys by tenant, as NAME=KEY,NAME=KEY", is_secret=True, include_in_web_ui=False)
    add("turns", 4, "questions of a conversation, on average")
    add("think-s", 3.0, "pause before a question, on average")
    add("reply-s", 8.0, "longest reply")
    add("barge-in", 0.1, "share of replies that a word interrupts")
    add("cancel", 0.05, "share of replies that a message stops")
    add("hang-up", 0.02, "share of replies in which the caller hangs up")
    add("slow", 0.05, "share of callers that read slower than they are spoken to")
    add("questions", str(QUESTION), "16-bit mono wav files, with commas")
    add("seed", 0, "of everything that is drawn")
    add("slo", "first_audio_p95=500ms,underrun=1%,refused=1%,failed=1%", "what is promised")
    add("first", 4, "callers of the first level of stairs; the last is --users")
    add("settle-s", 8.0, "before a level counts")
    add("hold-s", 20.0, "how long it counts")
    add("metrics", "", "pages of the server's metrics, with commas: are slots held when all have gone?")
    add("record", "", "a JSON file for what was measured", include_in_web_ui=False)
    add("page", "", "an HTML file with its plots", include_in_web_ui=False)


@dataclass(frozen=True)
class Options:
    """The same, read. Raises ValueError with what to change."""

    behaviour: Behaviour
    mix: dict[str, int]
    keys: dict[str, str]
    slo: Slo
    questions: tuple[Path, ...]

    @classmethod
    def read(cls, given: Namespace) -> "Options":
        keys = _pairs(given.keys, "--keys is written NAME=KEY,NAME=KEY")
        mix = {name: int(weight) for name, weight in _pairs(given.mix, f"--mix is written {DOORS[0]}=6,...").items()}
        if set(mix) - set(DOORS) or not any(mix.values()):
            raise ValueError(f"--mix gives weights to {', '.join(DOORS)}, one of them above 0.")
        questions = tuple(Path(name) for name in given.questions.split(","))
        if missing := [str(path) for path in questions if not path.is_file()]:
            raise ValueError(f"--questions names {missing[0]}, which is no file.")
        behaviour = Behaviour(
            turns=given.turns,
            think_s=given.think_s,
            reply_s=given.reply_s,
            barge_in=given.barge_in,
            cancel=given.cancel,
            hang_up=given.hang_up,
            slow=given.slow,
            tenants=len(keys),
        )
        return cls(behaviour, mix, keys, Slo.read(given.slo), questions)


def grpc_address(host: str, named: str) -> str:
    """HOST:8001 of the server's URL, if nothing was named."""
    return named or f"{host.partition('://')[2].partition('/')[0].partition(':')[0]}:8001"


def _pairs(text: str, form: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    if not pairs or any(not sign or not value or not name for name, sign, value in pairs):
        raise ValueError(f"{form}.")
    return {name.strip(): value for name, _, value in pairs}
