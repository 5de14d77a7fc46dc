"""A turn whose replicas are lost says what it would have said, code for code: on a tiny model, wherever the loss is."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import BackboneConfig, CodecConfig, ReasonerConfig, TorchConfig
from chroma_models.errors import Lost, Overloaded, StageUnavailable
from chroma_models.stages.backbone import BackboneStage
from chroma_models.stages.codec import CodecStage
from chroma_models.stages.pipeline import Pipeline
from chroma_models.stages.survival import MOST_LOSSES, TRIES, WINDOW_FRAMES, FrameLog, Losses, surviving
from chroma_models.types import (
    Admitted,
    AudioChunk,
    EncodedVoice,
    Finished,
    Frame,
    Limits,
    Message,
    Progress,
    Sampling,
    Text,
    TextStep,
    Turn,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

GONE = Lost("The replica was lost.", 1.0)


@dataclass
class Mortal:
    """A stage before another one, whose streams are lost after so many items each; a Lost at 0 answers nothing."""

    stage: Any
    lives: list[int] = field(default_factory=list)
    asked: list[Turn] = field(default_factory=list)
    open: int = 0
    lost: int = 0  # of those that had brought something

    def steps(self, turn: Turn, after: Sequence[int] = ()) -> AsyncGenerator[Any, None]:
        return self._dying(turn, self.stage.steps(turn, after))

    def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Any, None]:
        return self._dying(turn, self.stage.frames(turn, progress))

    async def _dying(self, turn: Turn, stream: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        self.asked.append(turn)
        left = self.lives.pop(0) if self.lives else None
        brought = False
        self.open += 1
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    if left == 0:
                        self.lost += brought
                        raise GONE
                    brought = True
                    left = None if left is None else left - 1
                    yield item
        finally:
            self.open -= 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pipeline(tiny: Path) -> AsyncIterator[Pipeline]:
    torch = TorchConfig(device="cpu", dtype="float32", threads=1)
    reasoner = ReasonerConfig(engine="torch", slots=4, max_model_len=1024)
    backbone, codec = BackboneConfig(slots=4, max_lead_s=60.0), CodecConfig(slots=4)
    async with Pipeline.open(Checkpoint.open(tiny), torch, reasoner=reasoner, backbone=backbone, codec=codec) as opened:
        yield opened


def turn(temperature: float, seed: int) -> Turn:
    voice = EncodedVoice("A clip.", (np.arange(8 * 20) % 60).astype("<i2").tobytes(), "v")
    sampling = Sampling(seed, temperature, 50, text_temperature=temperature)
    messages = (Message("user", (Text(f"Question {seed}"),)),)
    return Turn("t", "a", messages, voice, sampling, Limits(4.0, 40), pace="fast")


@dataclass
class Said:
    codes: bytes
    pcm: bytes
    text: str
    losses: int
    finished: Finished


async def said(codec: CodecStage, turn: Turn) -> Said:
    codes, pcm, text, losses = b"", b"", "", 0
    async with aclosing(codec.speak(turn)) as items:
        async for item in items:
            if isinstance(item, AudioChunk):
                codes += b"".join(frame.codes for frame in item.frames)
                text += "".join(frame.step.text for frame in item.frames if frame.step)
                pcm += item.pcm
            elif isinstance(item, Admitted):
                losses = item.losses
            else:
                return Said(codes, pcm, text, losses, item)
    raise AssertionError("the stream had no end")


def mortal(pipeline: Pipeline, reasoner: list[int], backbone: list[int]) -> tuple[CodecStage, Mortal, Mortal]:
    """The pipeline's engines, with streams between them that are lost."""
    texts = Mortal(pipeline.reasoner, list(reasoner))
    whole = pipeline.backbone
    stage = BackboneStage(whole.engine, texts, whole._tokenize, whole.fingerprint)
    frames = Mortal(stage, list(backbone))
    return CodecStage(pipeline.codec.engine, frames, pipeline.codec.fingerprint), texts, frames


LOSSES = [
    ([3], []),
    ([1], []),
    ([0], []),
    ([], [2]),
    ([], [4, 3]),
    ([], [0, 0, 5]),
    ([2], [3]),
    ([4, 3], []),
    ([0, 2], [0, 5]),
]


@pytest.mark.parametrize(("reasoner", "backbone"), LOSSES)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
async def test_the_same_codes_come_out_wherever_a_replica_is_lost(
    pipeline: Pipeline, reasoner: list[int], backbone: list[int], temperature: float
) -> None:
    asked = turn(temperature, seed=len(reasoner) + 7)
    whole = await said(pipeline.codec, asked)
    codec, texts, frames = mortal(pipeline, reasoner, backbone)
    torn = await said(codec, asked)
    assert torn.codes == whole.codes
    assert torn.text == whole.text
    assert np.allclose(np.frombuffer(torn.pcm, "<f4"), np.frombuffer(whole.pcm, "<f4"), atol=1e-4)
    assert torn.finished.reason == whole.finished.reason
    assert torn.finished.usage.text_tokens == whole.finished.usage.text_tokens
    # A stream may have ended before its life did, or be lost before it has told of its losses.
    assert frames.lost <= torn.losses <= texts.lost + frames.lost
    assert texts.open == frames.open == 0


async def test_a_turn_near_too_many_losses_ends_and_says_so(pipeline: Pipeline) -> None:
    for reasoner, backbone in (([2, 2, 2], []), ([], [3, 3, 3])):
        codec, texts, frames = mortal(pipeline, reasoner, backbone)
        with pytest.raises(StageUnavailable, match="loss of this turn") as ended:
            await said(codec, turn(0.0, 1))
        assert not isinstance(ended.value, Lost)
        assert texts.open == frames.open == 0
        assert len(texts.lives) + len(frames.lives) == 0
    assert pipeline.reasoner.requests_running == 0
    assert pipeline.backbone.engine.slots_held == pipeline.codec.engine.slots_held == 0


async def test_a_turn_that_lost_replicas_elsewhere_brings_its_count_along(pipeline: Pipeline) -> None:
    codec, _, frames = mortal(pipeline, [], [3])
    with pytest.raises(StageUnavailable, match=r"3\. loss"):
        await said(codec, replace(turn(0.0, 1), losses=MOST_LOSSES))
    assert frames.asked[0].losses == MOST_LOSSES


async def test_where_no_replica_takes_it_the_turn_ends(pipeline: Pipeline) -> None:
    codec, _, frames = mortal(pipeline, [], [0] * 10)
    with pytest.raises(StageUnavailable, match="No replica of the Backbone takes the turn"):
        await said(codec, turn(0.0, 1))
    assert len(frames.asked) == TRIES


async def test_a_lost_reasoner_is_asked_for_again_by_another_way(pipeline: Pipeline) -> None:
    codec, texts, _ = mortal(pipeline, [2], [])
    await said(codec, turn(0.0, 1))
    first, second = (asked.affinity for asked in texts.asked)
    assert first == "a" != second


@dataclass
class Marked:
    """A stage whose streams come from replicas of these fingerprints, one after another, then from its own."""

    stage: Any
    marks: list[str]
    asked: list[str | None] = field(default_factory=list)

    def steps(self, turn: Turn, after: Sequence[int] = ()) -> AsyncGenerator[Any, None]:
        return self._marked(self.stage.steps(turn, after))

    def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Any, None]:
        self.asked.append(progress.fingerprint if progress else None)
        own = progress and replace(progress, fingerprint=self.stage.stage.fingerprint)
        return self._marked(self.stage.frames(turn, own))

    async def _marked(self, stream: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        mark = self.marks.pop(0) if self.marks else None
        async with aclosing(stream) as items:
            async for item in items:
                yield replace(item, fingerprint=mark) if mark and isinstance(item, Admitted) else item


async def test_other_weights_do_not_go_on_with_a_turn(pipeline: Pipeline) -> None:
    class Other(Mortal):
        def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[Any, None]:
            return super().frames(turn, progress and replace(progress, fingerprint="other weights"))

    whole = pipeline.backbone
    codec = CodecStage(pipeline.codec.engine, Other(whole, [3]), pipeline.codec.fingerprint)
    with pytest.raises(StageUnavailable, match="The Backbone runs other weights or another dtype"):
        await said(codec, turn(0.0, 1))

    texts = Marked(Mortal(pipeline.reasoner, [3]), [pipeline.reasoner.fingerprint, f"{whole.fingerprint}0"])
    backbone = BackboneStage(whole.engine, texts, whole._tokenize, whole.fingerprint)
    with pytest.raises(StageUnavailable, match="The Reasoner runs other weights or another dtype"):
        await said(CodecStage(pipeline.codec.engine, backbone, pipeline.codec.fingerprint), turn(0.0, 1))

    progress = Progress((Frame(0, bytes(16), None),), "0" + whole.fingerprint)
    with pytest.raises(StageUnavailable, match="The Codec runs other weights"):
        await anext(pipeline.codec.speak(turn(0.0, 1), progress))
    assert pipeline.reasoner.requests_running == 0
    assert whole.engine.slots_held == pipeline.codec.engine.slots_held == 0


async def test_a_turn_that_has_brought_nothing_yet_begins_on_whatever_weights(pipeline: Pipeline) -> None:
    """Its frames are those of the replica that made them, not of the one that admitted it first."""
    frames = Marked(Mortal(pipeline.backbone, [1, 4]), ["old", "new", "new"])
    await said(CodecStage(pipeline.codec.engine, frames, pipeline.codec.fingerprint), turn(0.0, 1))
    assert frames.asked == [None, None, "new"]


async def test_a_stream_that_hangs_is_a_lost_one_and_the_listener_hears_that_it_is_alive() -> None:
    async def stream(number: int) -> AsyncGenerator[Any, None]:
        yield Admitted("x")
        yield [number]
        await asyncio.sleep(0.0 if number else 60.0)
        if number:
            await asyncio.sleep(2.2)
            yield "end"

    numbers = iter(range(9))
    got = [item async for item in surviving(lambda: stream(next(numbers)), Losses(turn(0, 0)), "Stage", 3.0, 3.0, [])]
    assert got[:4] == [Admitted("x"), [0], Admitted("x"), [1]]
    assert got[-1] == "end"
    assert 1 <= got[4:-1].count([]) == len(got[4:-1])  # one each second


async def test_a_refusal_is_no_loss() -> None:
    async def refusing() -> AsyncGenerator[Any, None]:
        raise Overloaded("full", 2.0)
        yield

    with pytest.raises(Overloaded):
        [item async for item in surviving(refusing, Losses(turn(0, 0)), "Stage", 1.0, 1.0)]


async def test_a_log_keeps_each_frame_once_and_the_rows_that_are_needed() -> None:
    frames = [Frame(i, bytes(16), TextStep(i // 2, 1, b"row", "")) for i in range(WINDOW_FRAMES + 50)]
    log = FrameLog()
    at = 0
    while at < len(frames):
        again = max(0, at - 3)
        new = log.add(frames[again : at + 7])
        assert [frame.index for frame in new] == list(range(at, min(at + 7, len(frames))))
        at += 7
    progress = log.progress("mark")
    assert progress is not None
    assert [frame.index for frame in progress.frames] == list(range(len(frames)))
    rows = [bool(frame.step and frame.step.row) for frame in progress.frames]
    assert rows == [False] * 50 + [True] * WINDOW_FRAMES
    assert log.progress(None) is None
    assert FrameLog().progress("mark") is None
