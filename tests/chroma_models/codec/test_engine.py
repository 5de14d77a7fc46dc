"""Many callers, one step loop: what they hear, what they cannot break, and what they leave behind."""

import asyncio
import random
from contextlib import AsyncExitStack

import numpy as np
import pytest
import torch

from chroma_models.errors import InvalidCodes, Overloaded, StageUnavailable
from chroma_models.types import CODEBOOKS, FRAME_SAMPLES
from tests.chroma_models.codec.engines import CLOSE, Gate, Service, frames, running, worst
from tests.chroma_models.codec.mimis import Mimi


@pytest.mark.parametrize("seed", [0, 1])
async def test_every_listener_of_a_shared_loop_hears_one_shot_decoding(mimi: Mimi, seed: int) -> None:
    codes = mimi.codes(8, 60, seed)
    whole = mimi.offline(codes)
    async with running(mimi) as service:

        async def turn(i: int) -> None:
            chance = random.Random(seed * 100 + i)
            frames_played = chance.randint(1, 60)
            async with service.engine.slot(f"turn {i}") as slot:
                heard = await service.listen(slot, codes[i, :frames_played], chance)
            assert worst(heard, whole[i, : frames_played * FRAME_SAMPLES]) < CLOSE

        await asyncio.gather(*(turn(i) for i in range(8)))
        assert service.engine.slots_held == 0
        assert service.engine.thread.frames == sum(len(call[0]) * call[1].shape[1] for call in service.steps.calls)


async def test_what_waits_together_runs_together_and_comes_back_in_one_call(
    mimi: Mimi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(mimi, slots=5) as service:
        engine = service.engine
        async with engine.slot("a") as a, engine.slot("b") as b, engine.slot("c") as c, engine.slot("d") as d:
            first = await service.hold_a_step(a)
            calls = []
            loop = asyncio.get_running_loop()
            plain = loop.call_soon_threadsafe
            monkeypatch.setattr(
                loop, "call_soon_threadsafe", lambda *args, **more: (calls.append(args), plain(*args, **more))[1]
            )
            rest = [(d, 3), (c, 1), (b, 3), (a, 3)]
            tasks = [asyncio.create_task(engine.decode(slot, frames(group))) for slot, group in rest]
            await asyncio.sleep(0)
            service.steps.open()
            await asyncio.gather(first, *tasks)
            steps = [(call[0], call[1].shape[1]) for call in service.steps.calls]
            assert steps == [([a.row], 2), ([a.row, b.row, d.row], 3), ([c.row], 1)]
            results = [call for call in calls if "_deliver" in getattr(call[0], "__name__", "")]
            assert len(results) == 3
            assert (engine.thread.ran.steps, engine.thread.ran.rows, engine.thread.frames) == (3, 5, 12)


async def test_frames_that_may_wait_share_a_step_and_urgent_ones_wait_for_nobody(mimi: Mimi) -> None:
    async with running(mimi, slots=3) as service:
        engine = service.engine
        async with engine.slot("a") as a, engine.slot("b") as b, engine.slot("c") as c:
            patient = [asyncio.create_task(engine.decode(slot, frames(4), 30.0)) for slot in (a, b)]
            await asyncio.sleep(0)
            await engine.decode(c, frames(1))  # returns although two wait for company
            assert not any(task.done() for task in patient)
            await engine.decode(c, frames(4))  # the same length: they come along
            await asyncio.gather(*patient)
            steps = [(call[0], call[1].shape[1]) for call in service.steps.calls]
            assert steps == [([c.row], 1), ([a.row, b.row, c.row], 4)]


async def test_a_listener_about_to_hear_nothing_goes_before_those_who_have_waited_longer(mimi: Mimi) -> None:
    async with running(mimi, slots=4) as service:
        engine = service.engine
        async with engine.slot("a") as a, engine.slot("b") as b, engine.slot("c") as c, engine.slot("d") as d:
            first = await service.hold_a_step(a)
            asked = [(b, 4, 2.0), (c, 3, 1.0), (d, 1, 0.0)]
            tasks = [asyncio.create_task(engine.decode(slot, frames(n), 0.0, lead_s)) for slot, n, lead_s in asked]
            await asyncio.sleep(0.01)  # all of them are overdue, the first one most
            service.steps.open()
            await asyncio.gather(first, *tasks)
            assert [call[0] for call in service.steps.calls] == [[a.row], [d.row], [c.row], [b.row]]


async def test_of_too_many_for_one_step_those_needed_soonest_share_it(mimi: Mimi) -> None:
    async with running(mimi, slots=20) as service, AsyncExitStack() as stack:
        slots = [await stack.enter_async_context(service.engine.slot(f"turn {i}")) for i in range(20)]
        full = service.decoder.full_rows
        first = await service.hold_a_step(slots[0])
        leads_s = {slot: 1.0 + (7 * i) % 19 for i, slot in enumerate(slots[1:])}
        tasks = [asyncio.create_task(service.engine.decode(slot, frames(4), 0.0, s)) for slot, s in leads_s.items()]
        await asyncio.sleep(0)
        service.steps.open()
        await asyncio.gather(first, *tasks)
        soonest = sorted(leads_s, key=lambda slot: leads_s[slot])
        steps = [sorted(slot.row for slot in part) for part in (soonest[:full], soonest[full:])]
        assert [call[0] for call in service.steps.calls] == [[slots[0].row], *steps]


async def test_nobody_waits_for_more_rows_than_a_step_is_worth_sharing_with(mimi: Mimi) -> None:
    async with running(mimi, slots=20) as service, AsyncExitStack() as stack:
        slots = [await stack.enter_async_context(service.engine.slot(f"turn {i}")) for i in range(20)]
        full = service.decoder.full_rows
        assert full < len(slots)
        await asyncio.gather(*(service.engine.decode(slot, frames(4), 30.0) for slot in slots[:full]))
        assert [len(call[0]) for call in service.steps.calls] == [full]


async def test_frames_of_one_slot_keep_their_order_whatever_their_groups(mimi: Mimi) -> None:
    codes = mimi.codes(2, 13)
    whole = mimi.offline(codes)
    async with running(mimi) as service, service.engine.slot("a") as a, service.engine.slot("b") as b:
        held = await service.hold_a_step(b)
        parts = codes[0].numpy().astype(np.int16)
        cuts = [(0, 1), (1, 4), (4, 5), (5, 9), (9, 10), (10, 13)]
        tasks = [asyncio.create_task(service.engine.decode(a, parts[i:j])) for i, j in cuts]
        await asyncio.sleep(0)
        service.steps.open()
        heard = b"".join(await asyncio.gather(*tasks))
        assert worst(torch.from_numpy(np.frombuffer(heard, np.float32).copy()), whole[0]) < CLOSE
        await held


async def test_the_next_owner_of_a_row_hears_nothing_of_the_last(mimi: Mimi) -> None:
    codes = mimi.codes(2, 40)
    async with running(mimi, slots=1) as service:
        async with service.engine.slot("first") as slot:
            await service.listen(slot, codes[0])
            held = await service.hold_a_step(slot)  # still in the thread when the slot is given back
        held.cancel()
        async with service.engine.slot("second") as again:
            service.steps.open()
            heard = await service.listen(again, codes[1])
        assert again.row == slot.row
        assert worst(heard, mimi.offline(codes)[1]) < CLOSE
        with pytest.raises(StageUnavailable):
            await service.engine.decode(slot, frames(1))


async def test_a_full_codec_says_so_in_time_and_lets_the_next_in_line_enter(mimi: Mimi) -> None:
    async with running(mimi, slots=1, admit_timeout_s=0.05) as service:
        async with service.engine.slot("a"):
            with pytest.raises(Overloaded) as refused:
                async with service.engine.slot("b"):
                    pytest.fail("admitted to a full codec")
            assert refused.value.retry_after_s is not None
        async with service.engine.slot("c") as slot:
            assert len(await service.engine.decode(slot, frames(1))) == 4 * FRAME_SAMPLES


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_cancels_leaks_nothing_and_harms_no_one(mimi: Mimi, seed: int) -> None:
    """Turns are cancelled while they wait for a slot, in a decode, in a rebuild, between, or never."""
    chance = random.Random(seed)
    codes = mimi.codes(1, 40, seed)
    whole = mimi.offline(codes)[0]
    history = codes[0].numpy().astype(np.int16)
    async with running(mimi) as service:
        engine = service.engine

        async def turn(i: int) -> None:
            async with engine.slot(f"turn {i}") as slot:
                at = chance.choice([0, 0, 7])
                if at:
                    await engine.rebuild(slot, history[:at])
                heard = await service.listen(slot, codes[0, at:], chance)
                assert worst(heard, whole[at * FRAME_SAMPLES :]) < CLOSE

        tasks = [asyncio.create_task(turn(i)) for i in range(40)]
        for task in chance.sample(tasks, 32):
            await asyncio.sleep(chance.random() * 0.01)
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        assert sum(end is None for end in ends) >= 8
        assert engine.slots_held == 0
        assert len(asyncio.all_tasks()) == 1
        async with engine.slot("a"), engine.slot("b"), engine.slot("c") as slot:  # every row is there again
            assert worst(await service.listen(slot, codes[0]), whole) < CLOSE
        assert engine.thread.stalled_s() == 0  # no job is left


async def test_a_cancelled_decode_leaves_a_hole_that_is_told_and_can_be_mended(mimi: Mimi) -> None:
    codes = mimi.codes(1, 30)
    whole = mimi.offline(codes)[0]
    history = codes[0].numpy().astype(np.int16)
    async with running(mimi) as service, service.engine.slot("a") as a, service.engine.slot("b") as b:
        held = await service.hold_a_step(b)
        lost = asyncio.create_task(service.engine.decode(a, history[:3]))
        await asyncio.sleep(0)
        lost.cancel()
        service.steps.open()
        await held
        with pytest.raises(StageUnavailable, match="lost"):
            await service.engine.decode(a, history[3:5])
        await service.engine.rebuild(a, history[:3])
        assert worst(await service.listen(a, codes[0, 3:]), whole[3 * FRAME_SAMPLES :]) < CLOSE


async def test_a_failed_step_fails_its_own_rows_alone(mimi: Mimi) -> None:
    codes = mimi.codes(2, 20)
    whole = mimi.offline(codes)
    async with running(mimi) as service:
        engine = service.engine
        async with engine.slot("a") as a, engine.slot("b") as b, engine.slot("c") as c:
            early = await service.listen(b, codes[1, :4])
            held = await service.hold_a_step(c)
            service.steps.failure = ZeroDivisionError("of the decoder")
            other = asyncio.create_task(service.listen(b, codes[1, 4:]))
            await asyncio.sleep(0)
            service.steps.open()
            with pytest.raises(StageUnavailable):
                await held
            assert worst(torch.cat([early, await other]), whole[1]) < CLOSE
            with pytest.raises(StageUnavailable):  # its stream is no longer what c was promised
                await engine.decode(c, frames(1))
            assert engine.thread.failed_steps == 1
            engine.check()
            assert worst(await service.listen(a, codes[0]), whole[0]) < CLOSE


@pytest.mark.parametrize("past", [3, 290])
async def test_a_rebuilt_slot_goes_on_where_its_frames_end(mimi: Mimi, past: int) -> None:
    codes = mimi.codes(1, past + 10)
    whole = mimi.offline(codes)[0, past * FRAME_SAMPLES :]
    async with running(mimi) as service, service.engine.slot("a") as slot:
        await service.engine.rebuild(slot, codes[0, :past].numpy().astype(np.int16))
        assert worst(await service.listen(slot, codes[0, past:]), whole) < CLOSE
        assert service.engine.rebuilds == 1


async def test_others_are_heard_while_a_stream_is_rebuilt_and_a_voice_encoded(mimi: Mimi) -> None:
    async with running(mimi) as service, service.engine.slot("a") as a, service.engine.slot("b") as b:
        prepares = Gate(service.decoder.prepare)
        service.decoder.prepare = prepares  # type: ignore[method-assign]
        prepares.close()
        service.encodes.close()
        rebuilding = asyncio.create_task(service.engine.rebuild(a, frames(9)))
        encoding = asyncio.create_task(service.engine.encode_voice(np.ones(5000, np.float32).tobytes()))
        await prepares.reached()
        await service.encodes.reached()
        for _ in range(5):
            assert len(await service.engine.decode(b, frames(2))) == 2 * 4 * FRAME_SAMPLES
        assert not rebuilding.done()
        assert not encoding.done()
        prepares.open()
        service.encodes.open()
        await asyncio.gather(rebuilding, encoding)


@pytest.mark.parametrize(
    "codes",
    [
        frames(1, -1),
        frames(1, 64),
        frames(2, 2050),
        frames(0),
        frames(5),
        frames(1)[:, :7],
        frames(1)[0],
        frames(1)[None],
        frames(1).astype(np.float32),
    ],
    ids=["negative", "past the book", "pad", "none", "too many", "7 books", "1-d", "3-d", "floats"],
)
async def test_codes_that_would_crash_or_corrupt_are_refused_before_they_reach_the_step(
    mimi: Mimi, codes: np.ndarray
) -> None:
    expected = mimi.offline(torch.ones((1, 2, CODEBOOKS), dtype=torch.int64))[0]
    async with running(mimi) as service, service.engine.slot("a") as slot:
        heard = [await service.engine.decode(slot, frames(1))]
        with pytest.raises(InvalidCodes):
            await service.engine.decode(slot, codes)
        heard.append(await service.engine.decode(slot, frames(1)))  # and the stream goes on unharmed
        assert worst(torch.from_numpy(np.frombuffer(b"".join(heard), np.float32).copy()), expected) < CLOSE
        assert len(service.steps.calls) == 2


@pytest.mark.parametrize("codes", [frames(3, 64), frames(3)[:, :5]])
async def test_a_rebuild_checks_its_codes_too(mimi: Mimi, codes: np.ndarray) -> None:
    async with running(mimi) as service, service.engine.slot("a") as slot:
        with pytest.raises(InvalidCodes):
            await service.engine.rebuild(slot, codes)


async def test_a_stalled_loop_fails_its_check_and_an_idle_one_does_not(mimi: Mimi) -> None:
    async with running(mimi, stall_timeout_s=0.05) as service, service.engine.slot("a") as slot:
        await service.engine.decode(slot, frames(1))
        await asyncio.sleep(0.1)
        service.engine.check()
        held = await service.hold_a_step(slot)
        await asyncio.sleep(0.1)
        with pytest.raises(StageUnavailable, match="no progress"):
            service.engine.check()
        service.steps.open()
        await held
        service.engine.check()


async def test_stopping_answers_everyone(mimi: Mimi) -> None:
    async with running(mimi) as service:
        engine = service.engine
        async with engine.slot("a") as a, engine.slot("b") as b:
            held = await service.hold_a_step(a)
            queued = asyncio.create_task(engine.decode(b, frames(1)))
            service.encodes.close()
            clip = np.ones(5000, np.float32).tobytes()
            at_work = asyncio.create_task(engine.encode_voice(clip))
            waiting = asyncio.create_task(engine.encode_voice(clip))
            await service.encodes.reached()
            stopping = asyncio.create_task(engine.stop())
            await asyncio.sleep(0)
            service.steps.open()
            await stopping
            assert len(await held) == 2 * 4 * FRAME_SAMPLES  # the step that was running is heard
            for task in (queued, waiting):
                with pytest.raises(StageUnavailable):
                    await task
            service.encodes.open()
            assert await at_work
            for call in (engine.decode(a, frames(1)), engine.rebuild(a, frames(1)), engine.encode_voice(clip)):
                with pytest.raises(StageUnavailable):
                    await call
            with pytest.raises(StageUnavailable):
                engine.check()
        assert engine.slots_held == 0
        with pytest.raises(StageUnavailable):
            async with engine.slot("late"):
                pytest.fail("admitted to a stopped codec")
        assert engine.slots_held == 0


async def test_an_engine_that_cannot_decode_does_not_start(mimi: Mimi) -> None:
    service = Service(mimi)
    service.steps.failure = RuntimeError("no kernel for this device")
    with pytest.raises(RuntimeError, match="no kernel"):
        await service.engine.start()
    with pytest.raises(StageUnavailable):
        service.engine.check()
    await service.engine.stop()
