"""When vLLM's engine core waits for company, and for whom it never does."""

import inspect
import queue
import time
from types import SimpleNamespace
from typing import Any

import pytest

from chroma_models.reasoner import vllm_pace
from chroma_models.reasoner.vllm_pace import COMPANY, INTERVAL_S, paced_step
from chroma_models.types import FAST_PRIORITY

LONG_S = 30.0


def request(tokens: int = 1, priority: int = 0) -> Any:
    return SimpleNamespace(num_output_tokens=tokens, priority=priority)


class Core:
    """As much of vLLM's EngineCoreProc as a paced step touches."""

    def __init__(self, running: list[Any], interval_s: float, waiting: tuple[Any, ...] = ()) -> None:
        self.vllm_config = SimpleNamespace(additional_config={COMPANY: 2, INTERVAL_S: interval_s})
        self.scheduler = SimpleNamespace(running=running, waiting=waiting)
        self.input_queue: queue.Queue[tuple[str, str]] = queue.Queue()
        self.batch_queue = None
        self.stepped_at = time.monotonic()
        self.did: list[Any] = []

    def unpaced_step(self) -> bool:
        self.did.append("step")
        return True

    def _handle_client_request(self, *message: str) -> None:
        self.did.append(message)


def test_a_crowd_steps_no_more_often_than_it_need() -> None:
    core = Core([request(), request()], 0.05)
    began = time.monotonic()
    for _ in range(4):
        assert paced_step(core)
    assert core.did == ["step"] * 4
    assert time.monotonic() - began >= 4 * 0.05 - 0.01  # a busy machine makes it longer, never shorter


def test_a_message_ends_the_wait_and_is_taken_before_the_step() -> None:
    core = Core([request(), request()], LONG_S)
    core.input_queue.put(("add", "newcomer"))
    assert not paced_step(core)
    core.scheduler.waiting = ("newcomer",)
    assert paced_step(core)
    assert core.did == [("add", "newcomer"), "step"]


@pytest.mark.parametrize(
    ("running", "waiting"),
    [
        ([request()], ()),  # alone
        ([request(), request()], (request(0),)),  # a newcomer waits to be read
        ([request(), request(0)], ()),  # one has no word yet
        ([request(), request(priority=FAST_PRIORITY)], ()),  # whole-file work has no listener to be ahead of
    ],
)
def test_who_would_notice_is_not_made_to_wait(running: list[Any], waiting: tuple[Any, ...]) -> None:
    core = Core(running, LONG_S, waiting)
    assert paced_step(core)
    assert core.did == ["step"]


def test_batches_in_flight_are_not_held_back() -> None:
    core = Core([request(), request()], LONG_S)
    core.batch_queue = ["a batch"]
    assert paced_step(core)


def test_the_wrapped_loop_is_the_one_we_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """What paced_step relies on in the pinned vLLM: its own queue, one step a call, the scheduler's two lists."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine.core import EngineCore, EngineCoreProc
    from vllm.v1.request import Request

    plain = getattr(EngineCoreProc, "unpaced_step", EngineCoreProc._process_engine_step)
    monkeypatch.setattr(EngineCoreProc, "_process_engine_step", plain)
    monkeypatch.delattr(EngineCoreProc, "unpaced_step", raising=False)
    vllm_pace.install()
    assert EngineCoreProc._process_engine_step is paced_step
    assert EngineCoreProc.unpaced_step is plain
    monkeypatch.delattr(EngineCoreProc, "unpaced_step")
    loop = inspect.getsource(EngineCoreProc)
    assert "self._process_engine_step()" in loop
    assert "self._handle_client_request(*req)" in loop
    assert "self.input_queue" in loop
    assert "self.batch_queue" in inspect.getsource(EngineCore)
    made = inspect.getsource(Scheduler.__init__)
    assert "self.waiting" in made
    assert "self.running" in made
    assert "num_output_tokens" in dir(Request)
    assert "priority" in inspect.signature(Request.__init__).parameters
