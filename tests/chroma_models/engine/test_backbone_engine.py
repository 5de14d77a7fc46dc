"""The step loop against the slow oracle: nothing about the company a turn keeps may change its codes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import BackboneConfig, DecoderConfig, TorchConfig
from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.engine.decoder_engine import DecoderBatch, DecoderEngine, FusedDecoder, unpack_codes
from chroma_models.errors import InvalidVoice, Overloaded, PromptTooLong
from chroma_models.loading import load_backbone, load_decoder
from chroma_models.reference import Reference
from chroma_models.types import Finished, Frame
from tests.chroma_models.engine.turns import Scripted, scripted

FP32 = TorchConfig(device="cpu", dtype="float32")
TIE = 1e-4  # where the oracle's two best logits are closer than this, rounding may decide


class ThreadedDecoder:
    """A split decoder without a cluster: packed batches, another thread, codes as bytes."""

    def __init__(self, engine: DecoderEngine) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._engine = engine
        self._pool = ThreadPoolExecutor(1)

    def complete(self, hidden, code0, sampling):  # noqa: ANN001, ANN201
        batch = DecoderBatch.pack(hidden, code0, sampling)
        return self._pool.submit(lambda: unpack_codes(self._engine.complete(batch), hidden.device))


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return Checkpoint.open(tiny)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Reference:
    return Reference(checkpoint)


@asynccontextmanager
async def running(checkpoint: Checkpoint, *, split: bool = False, **config: object) -> AsyncIterator[BackboneEngine]:
    depth = load_decoder(checkpoint, FP32, DecoderConfig())
    decoder = ThreadedDecoder(DecoderEngine(depth)) if split else FusedDecoder(depth)
    settings = BackboneConfig(**{"slots": 5, "min_split_rows": 2, "prefill_chunk": 5, **config})
    engine = BackboneEngine(load_backbone(checkpoint, FP32), decoder, settings, fused=not split)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def collect(
    engine: BackboneEngine, s: Scripted, *, chunks: tuple[int, ...] = (), leave_after: int | None = None, done: int = 0
) -> tuple[list[Frame], Finished | None]:
    """Run a turn, its text arriving in chunks of the given sizes with the loop turning in between."""
    resumed = frames_of(s)[:done]
    got: list[Frame] = []
    async with engine.slot(s.turn, s.transcript, resumed) as outbox:

        async def speak() -> None:
            rest = s.steps[sum(f.step is not None for f in resumed) :]
            for size in chunks:
                engine.feed(outbox.slot, rest[:size])
                rest = rest[size:]
                await asyncio.sleep(0.002)
            engine.feed(outbox.slot, rest)

        task = asyncio.create_task(speak())
        try:
            while True:
                item = await outbox.take(5.0)
                if isinstance(item, Finished):
                    return got, item
                assert item, "the engine fell silent"
                got += item
                if leave_after is not None and len(got) >= leave_after:
                    return got, None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def frames_of(s: Scripted) -> list[Frame]:
    """The oracle's frames as the engine would have delivered them."""
    steps = iter(s.steps)
    return [
        Frame(i, np.array(codes, np.int16).tobytes(), next(steps, None) if i % 2 == 0 else None)
        for i, (codes, _) in enumerate(s.expected)
    ]


def check(got: list[Frame], s: Scripted, *, start: int = 0) -> None:
    """Codes equal the oracle's up to its first near-tie; indices count up; each text step is where it was spoken."""
    want = frames_of(s)[start:]
    tie = next((i for i, (_, margin) in enumerate(s.expected[start:]) if margin < TIE), None)
    limit = len(want) if tie is None or s.turn.sampling.temperature else tie
    assert got[:limit] == want[:limit][: len(got)]


async def test_a_turn_alone_equals_the_reference(checkpoint: Checkpoint, reference: Reference) -> None:
    async with running(checkpoint) as engine:
        for seed in range(8):
            s = scripted(checkpoint, reference, seed, temperature=0.8 if seed % 2 else 0.0)
            got, finished = await collect(engine, s)
            check(got, s)
            assert len(got) == len(s.expected)
            assert finished is not None
            assert finished.reason == ("max_reply" if len(got) == s.turn.limits.max_frames else "end_of_speech")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_company_slots_and_arrivals_change_no_frame(
    checkpoint: Checkpoint, reference: Reference, data: st.DataObject
) -> None:
    """Random schedules: who joins when, who leaves early, how text arrives, which slots are taken, either placement."""
    turns = data.draw(st.lists(st.integers(0, 30), min_size=2, max_size=7, unique=True), label="turns")
    plans = [
        (
            data.draw(st.integers(0, 15), label="join_ms"),
            data.draw(st.lists(st.integers(0, 3), max_size=4), label="chunks"),
            data.draw(st.one_of(st.none(), st.integers(1, 9)), label="leave_after"),
        )
        for _ in turns
    ]

    async def scenario() -> None:
        async with running(checkpoint, split=data.draw(st.booleans(), label="split"), admit_timeout_s=30.0) as engine:

            async def one(seed: int, plan: tuple[int, list[int], int | None]) -> None:
                s = scripted(checkpoint, reference, seed, temperature=0.9 if seed % 3 == 0 else 0.0)
                await asyncio.sleep(plan[0] / 1000)
                got, _ = await collect(engine, s, chunks=tuple(plan[1]), leave_after=plan[2])
                check(got, s)
                assert plan[2] is not None or len(got) == len(s.expected)

            await asyncio.gather(*(one(seed, plan) for seed, plan in zip(turns, plans, strict=True)))
            assert engine.slots_held == 0
            engine.check()

    asyncio.run(scenario())


async def test_a_resumed_turn_continues_code_for_code(checkpoint: Checkpoint, reference: Reference) -> None:
    async with running(checkpoint) as engine:
        for seed, done in [(1, 1), (2, 2), (3, 5), (4, 8)]:
            s = scripted(checkpoint, reference, seed, temperature=0.7 if seed % 2 else 0.0)
            done = min(done, len(s.expected) - 1)
            got, _ = await collect(engine, s, done=done)
            check(got, s, start=done)
            assert len(got) == len(s.expected) - done


async def test_a_row_whose_text_is_late_holds_nobody(checkpoint: Checkpoint, reference: Reference) -> None:
    late, prompt = scripted(checkpoint, reference, 5), scripted(checkpoint, reference, 6)
    async with running(checkpoint) as engine, engine.slot(late.turn, late.transcript) as waiting:
        got, finished = await collect(engine, prompt)
        assert finished is not None
        check(got, prompt)
        assert await waiting.take(0.01) == []


async def test_the_reasoners_limit_ends_the_reply_with_its_own_reason(
    checkpoint: Checkpoint, reference: Reference
) -> None:
    s = scripted(checkpoint, reference, 7)
    s.steps = s.steps[:2]
    async with running(checkpoint) as engine, engine.slot(s.turn, s.transcript) as outbox:
        engine.feed(outbox.slot, s.steps)
        engine.end_text(outbox.slot)
        got: list[Frame] = []
        while not isinstance(item := await outbox.take(5.0), Finished):
            got += item
        assert item.reason == "max_text_tokens"
        assert len(got) == 4
        check(got, s)


async def test_positions_run_out_with_a_reason(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 8, frames=10_000)
    voice = np.zeros((checkpoint.architecture.backbone.positions - 30, 8), np.int16) + 1
    object.__setattr__(s.turn, "voice", type(s.turn.voice)("", voice.tobytes(), "long"))
    async with running(checkpoint, prefill_chunk=256) as engine:
        got, finished = await collect(engine, s)
        assert finished is not None
        assert finished.reason == "positions"
        segments = [sum(1 for f in got if f.step is not None) * 2 + len(got) - 1]
        assert segments[0] + len(s.transcript) + len(voice) + 3 <= checkpoint.architecture.backbone.positions


async def test_realtime_rows_stay_near_playback(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 9, frames=40)
    object.__setattr__(s.turn, "pace", "realtime")
    async with running(checkpoint, max_lead_s=0.8) as engine, engine.slot(s.turn, s.transcript) as outbox:
        loop = asyncio.get_running_loop()
        started = loop.time()  # no later than the first frame, so a busy machine cannot break the bound
        engine.feed(outbox.slot, s.steps)
        got: list[Frame] = []
        while not isinstance(item := await outbox.take(5.0), Finished):
            got += item
            assert len(got) / 12.5 - (loop.time() - started) <= 0.8 + 0.08
        check(got, s)


async def test_bad_voices_and_full_engines_are_typed_errors(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 10)

    def voiced(codes: np.ndarray):  # noqa: ANN202
        from dataclasses import replace

        return replace(s.turn, voice=replace(s.turn.voice, codes=codes.astype(np.int16).tobytes()))

    async with running(checkpoint, slots=1, admit_timeout_s=0.05) as engine:
        for codes, error in [
            (np.zeros((3000, 8)), PromptTooLong),
            (np.zeros((0, 8)), InvalidVoice),
            (np.full((3, 8), checkpoint.architecture.codebook_size), InvalidVoice),
            (np.full((3, 8), -1), InvalidVoice),
        ]:
            with pytest.raises(error):
                async with engine.slot(voiced(codes), s.transcript):
                    pass
        async with engine.slot(s.turn, s.transcript):
            with pytest.raises(Overloaded):
                async with engine.slot(s.turn, s.transcript):
                    pass
        got, _ = await collect(engine, s)
        check(got, s)


async def test_a_failing_decoder_ends_its_turns_and_the_loop_lives_on(
    checkpoint: Checkpoint, reference: Reference
) -> None:
    from chroma_models.errors import StageUnavailable

    s = scripted(checkpoint, reference, 11)
    async with running(checkpoint) as engine:
        healthy = engine.step.decoder

        class Broken:
            def complete(self, *_: object) -> "torch.futures.Future[torch.Tensor]":
                raise RuntimeError("device lost")

        engine.step.decoder = Broken()  # type: ignore[assignment]
        with pytest.raises(StageUnavailable) as failure:
            await collect(engine, s)
        assert "device lost" in str(failure.value.__cause__)
        assert "device lost" not in failure.value.message
        engine.step.decoder = healthy
        got, _ = await collect(engine, s)
        check(got, s)
        assert engine.slots_held == 0
