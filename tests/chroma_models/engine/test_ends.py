"""How turns, slots and the loop itself end: nobody waits for what will not come, nothing reaches the wrong turn."""

import asyncio
import random
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Event

import pytest
import torch
from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.engine.outbox import Outbox
from chroma_models.engine.row import Row
from chroma_models.engine.slots import Rank, Slot, SlotPool
from chroma_models.errors import Overloaded, StageUnavailable, TurnTimeout
from chroma_models.interleave import Windows
from chroma_models.reference import Reference
from chroma_models.sampling import RowSampling
from chroma_models.types import Finished, Frame, Turn
from tests.chroma_models.engine.engines import running
from tests.chroma_models.engine.turns import check, collect, frames_of, scripted


class Gated:
    """A decoder whose answers wait for a gate."""

    def __init__(self, engine: BackboneEngine) -> None:
        self._real = engine.step.decoder
        self._pool = ThreadPoolExecutor(1)
        self.gate, self.asked = Event(), Event()
        engine.step.decoder = self

    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> "Future[Tensor]":
        hidden, code0 = hidden.clone(), code0.clone()

        def answer() -> Tensor:
            self.asked.set()
            assert self.gate.wait(20)
            return self._real.complete(hidden, code0, sampling).result()

        return self._pool.submit(answer)


def realtime(turn: Turn) -> Turn:
    return replace(turn, pace="realtime")


async def ended(outbox: Outbox) -> list[Frame]:
    got: list[Frame] = []
    while not isinstance(item := await outbox.take(5.0), Finished):
        assert item, "the engine fell silent"
        got += item
    return got


async def until(condition) -> None:  # noqa: ANN001
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_loop_that_dies_ends_every_turn(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 1)

    def dying(*_: object) -> None:
        raise SystemExit("worse than an exception")

    async with running(checkpoint) as engine:
        engine.loop._prefill = dying  # type: ignore[method-assign]
        with pytest.raises(StageUnavailable):
            await collect(engine, s)
        with pytest.raises(StageUnavailable):
            engine.check()
        with pytest.raises(StageUnavailable):
            await collect(engine, s)
        assert engine.slots_held == 0


async def test_stopping_ends_the_turns_that_run(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 2)
    async with running(checkpoint) as engine, engine.slot(s.turn, s.transcript) as outbox:
        await engine.stop()
        with pytest.raises(StageUnavailable):
            await outbox.take(5.0)
        with pytest.raises(StageUnavailable):
            await collect(engine, s)


async def test_one_turn_without_memory_harms_no_other(checkpoint: Checkpoint, reference: Reference) -> None:
    poor, rich = scripted(checkpoint, reference, 3), scripted(checkpoint, reference, 4)
    async with running(checkpoint) as engine:
        prefill = engine.step.prefill

        def scarce(slot: int, start: int, x: Tensor) -> None:
            if slot == 0:
                raise torch.OutOfMemoryError("no memory left")
            prefill(slot, start, x)

        engine.step.prefill = scarce  # type: ignore[method-assign]
        async with engine.slot(poor.turn, poor.transcript) as outbox:
            got, _ = await collect(engine, rich)
            check(got, rich)
            with pytest.raises(StageUnavailable):
                await outbox.take(5.0)
        engine.check()


async def test_the_end_of_text_loses_no_frame_in_flight(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 7)
    async with running(checkpoint) as engine, engine.slot(s.turn, s.transcript) as outbox:
        decoder = Gated(engine)
        engine.feed(outbox.slot, s.steps[:1])
        await asyncio.to_thread(decoder.asked.wait, 20)
        engine.end_text(outbox.slot)
        await asyncio.sleep(0.05)
        decoder.gate.set()
        got = await ended(outbox)
        assert [frame.index for frame in got] == [0, 1]
        check(got, s)


async def test_a_slot_reused_while_its_last_owner_is_in_flight(checkpoint: Checkpoint, reference: Reference) -> None:
    gone, next_one = scripted(checkpoint, reference, 5), scripted(checkpoint, reference, 6)
    async with running(checkpoint, slots=1, reserved_slots=0, split=True) as engine:
        decoder = Gated(engine)
        async with engine.slot(gone.turn, gone.transcript) as outbox:
            engine.feed(outbox.slot, gone.steps)
            await asyncio.to_thread(decoder.asked.wait, 20)
        task = asyncio.create_task(collect(engine, next_one))
        await asyncio.sleep(0.05)
        decoder.gate.set()
        got, finished = await task
        assert finished is not None
        check(got, next_one)
        assert len(got) == len(next_one.expected)


async def test_a_reader_that_has_gone_frees_the_slot(checkpoint: Checkpoint, reference: Reference) -> None:
    """Though it never comes back to close its stream: by its outbox, and by its time."""
    s = scripted(checkpoint, reference, 8, frames=2000)
    s.steps.extend(replace(step, index=step.index + len(s.steps)) for step in s.steps * 200)
    for limits in ({"outbox_frames": 2, "stall_timeout_s": 0.1}, {"max_turn_s": 0.2}):
        async with running(checkpoint, **limits) as engine, engine.slot(s.turn, s.transcript) as outbox:
            engine.feed(outbox.slot, s.steps)
            await until(lambda engine=engine: engine.slots_held == 0)
            with pytest.raises(TurnTimeout):
                await ended(outbox)


async def test_reserved_slots_are_for_resumed_turns(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 9)
    async with running(checkpoint, slots=1, reserved_slots=1, admit_timeout_s=0.05) as engine:
        async with engine.slot(s.turn, s.transcript):
            with pytest.raises(Overloaded):
                await collect(engine, s)
            got, _ = await collect(engine, s, done=1)
            check(got, s, start=1)
        async with engine.slot(s.turn, s.transcript, frames_of(s)[:1]):
            got, _ = await collect(engine, s)
            check(got, s)


async def test_a_turn_that_would_slow_the_others_is_refused(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 10)
    s.turn = realtime(s.turn)
    async with running(checkpoint, admit_timeout_s=0.05) as engine:
        for _ in range(30):
            engine.loop.times.stepped(1, 0.07)  # a machine that can do one
        async with engine.slot(s.turn, s.transcript):
            with pytest.raises(Overloaded) as refusal:
                await collect(engine, s)
            assert refusal.value.retry_after_s
            fast = scripted(checkpoint, reference, 11)
            got, _ = await collect(engine, fast)
            check(got, fast)
        got, _ = await collect(engine, s)
        check(got, s)


def test_a_listener_who_waited_plays_on_from_there(checkpoint: Checkpoint, reference: Reference) -> None:
    """A gap (text that came late, say) is not made up by running far ahead of him, before everybody else."""
    row = Row(Slot(0, "t"), realtime(scripted(checkpoint, reference, 1).turn), Windows(10, 2048), None)
    for frame, now in enumerate([10.0, 10.01, 15.0, 15.01]):
        row.spoke(Frame(frame, b"", None), now)
    assert abs(row.lead_s(15.01) - (2 * 0.08 - 0.01)) < 1e-9


async def test_slots_survive_any_order_of_cancels_and_ends() -> None:
    rng = random.Random(1)
    pool = SlotPool(3, 1)
    holders: dict[int, Slot] = {}

    async def one(i: int) -> None:
        rank = rng.choice(list(Rank))
        with suppress(Overloaded):
            slot = await pool.acquire(str(i), rng.choice([0.0, 0.001, 0.01]), rank, lambda: rng.random() < 0.8)
            try:
                assert slot.row not in holders
                holders[slot.row] = slot
                fresh = len(pool.held) - len(pool._resumed)
                assert fresh <= 2
                await asyncio.sleep(rng.choice([0, 0.001, 0.003]))
            finally:
                del holders[slot.row]
                pool.release(slot)

    async def hasty(task: "asyncio.Task[None]") -> None:
        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.005]))
        if rng.random() < 0.5:
            task.cancel()

    for _ in range(20):
        tasks = [asyncio.create_task(one(i)) for i in range(12)]
        await asyncio.gather(*(hasty(task) for task in tasks))
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in done)
        assert pool.held == {}
        assert sorted(pool._free) == [0, 1, 2]
        assert not any(pool._waiting.values())
