"""The step loop against the slow oracle: nothing about the company a turn keeps may change its codes."""

import asyncio

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import InvalidVoice, Overloaded, PromptTooLong
from chroma_models.reference import Reference
from chroma_models.types import Finished, Frame
from tests.chroma_models.engine.engines import running
from tests.chroma_models.engine.turns import check, collect, scripted


async def test_a_turn_alone_equals_the_reference(checkpoint: Checkpoint, reference: Reference) -> None:
    async with running(checkpoint) as engine:
        for seed in range(8):
            s = scripted(checkpoint, reference, seed, temperature=0.8 if seed % 2 else 0.0)
            got, finished = await collect(engine, s)
            check(got, s)
            assert len(got) == len(s.expected)
            assert finished is not None
            assert finished.reason == ("max_reply" if len(got) == s.turn.limits.max_frames else "end_of_speech")


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        split = data.draw(st.booleans(), label="split")
        step = data.draw(st.sampled_from(["eager", "static"]), label="step")
        async with running(checkpoint, split=split, step=step, admit_timeout_s=30.0) as engine:

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
