"""What the stages promise each other, without a model: streams that end, refusals tried twice, lists that grow."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.config import BackboneConfig, CodecConfig
from chroma_models.errors import Overloaded, StageUnavailable
from chroma_models.stages.backbone import _Text
from chroma_models.stages.codec import CodecStage
from chroma_models.stages.streams import ItemPacer
from chroma_models.types import Admitted, EncodedVoice, Finished, Progress, Sampling, TextStep, Turn, Usage

TURN = Turn("t", "a", (), EncodedVoice("", b"", ""), Sampling(0))
END = Finished("end_of_speech", Usage(), {})


class Backbones:
    """Replicas in the order a router would pick them: each is busy or answers."""

    def __init__(self, busy: Sequence[bool]) -> None:
        self._busy = list(busy)
        self.open = 0

    async def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Any, None]:
        self.open += 1
        try:
            if self._busy.pop(0):
                raise Overloaded("full", 3.0)
            yield Admitted("x")
            yield END
        finally:
            self.open -= 1


async def heard(busy: Sequence[bool]) -> list[Any]:
    backbones = Backbones(busy)
    stage = CodecStage(SimpleNamespace(config=CodecConfig()), backbones, "x")  # type: ignore[arg-type]
    try:
        async with aclosing(stage._frames(TURN, None)) as items:
            return [item async for item in items]
    finally:
        assert backbones.open == 0


async def test_a_second_backbone_is_asked_before_the_refusal_is_passed_on() -> None:
    assert await heard([False]) == await heard([True, False]) == [Admitted("x"), END]
    with pytest.raises(Overloaded) as refusal:
        await heard([True, True])
    assert refusal.value.retry_after_s == 3.0


class Stub:
    """The engine and the outbox of a turn, as far as its text knows them."""

    config = BackboneConfig(stall_timeout_s=0.2, admit_timeout_s=0.2)
    slot = None

    def __init__(self) -> None:
        self.fed: list[TextStep] = []
        self.errors: list[Exception] = []

    def feed(self, slot: object, steps: list[TextStep]) -> None:
        self.fed += steps

    def fail(self, error: Exception) -> None:
        self.errors.append(error)


def text(items: Sequence[Any], stub: Stub) -> _Text:
    class Reasoner:
        async def steps(self, turn: Turn, after: Sequence[int] = ()) -> AsyncGenerator[Any, None]:
            for item in items:
                if isinstance(item, BaseException):
                    raise item
                yield item

    return _Text(Reasoner(), stub, TURN, stub, "x")  # type: ignore[arg-type]


STEP = TextStep(0, 1, b"", "")


@pytest.mark.parametrize("loss", [asyncio.CancelledError(), RuntimeError("broken"), None])
async def test_text_that_is_lost_ends_the_turn_before_and_after_admission(loss: BaseException | None) -> None:
    """A stream that was cancelled behind our back, broke, or just ended: nobody goes on waiting for it."""
    lost = [] if loss is None else [loss]
    with pytest.raises(StageUnavailable):
        async with asyncio.timeout(5):
            await text(lost, Stub()).open([])
    stub = Stub()
    later = text([Admitted("x"), [STEP], *lost], stub)
    await later.open([])
    async with asyncio.timeout(5):
        while not stub.errors:
            await asyncio.sleep(0.001)
    assert stub.fed == [STEP]
    assert isinstance(stub.errors[0], StageUnavailable)
    assert "broken" not in str(stub.errors[0])
    await later.aclose()


async def test_text_that_ended_well_or_was_closed_ends_nothing() -> None:
    stub = Stub()
    good = text([Admitted("x"), [STEP], END], stub)
    await good.open([])
    await asyncio.sleep(0.01)
    await good.aclose()
    opening = asyncio.create_task(text([], stub).open([]))
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await opening
    await asyncio.sleep(0.01)
    assert stub.errors == []


@given(speed=st.floats(1.0, 60.0))
def test_lists_grow_with_the_lead_and_never_cost_the_listener_a_gap(speed: float) -> None:
    """Frames come at `speed` times playback; each list leaves when the pacer says."""
    now = [0.0]
    pacer = ItemPacer(clock=lambda: now[0])
    sent, leaves = 0, []
    while now[0] < 20.0:
        now[0] += max(0.0, pacer.hold_s())
        ready = 1 + int(now[0] * 12.5 * speed + 1e-9) - sent
        if ready <= 0:
            now[0] += 0.001
            continue
        assert sent == 0 or sent / 12.5 >= now[0] - leaves[0] - 0.0011, "the listener had nothing left"
        pacer.sent(ready)
        leaves.append(now[0])
        sent += ready
    assert leaves[0] == 0.0
    for i in range(len(leaves)):
        assert i < 40 or speed < 2 or leaves[i] - leaves[i - 4] >= 1.0 - 0.01
