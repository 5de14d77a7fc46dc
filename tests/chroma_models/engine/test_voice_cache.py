"""A voice read once per replica: the same codes, fewer positions."""

import asyncio

import torch
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.engine.voice_cache import VoiceCache
from chroma_models.interleave import prompt_positions
from chroma_models.reference import Reference
from tests.chroma_models.engine.engines import running
from tests.chroma_models.engine.turns import check, collect, scripted


async def test_a_cached_voice_gives_the_same_codes_and_is_not_prefilled_again(
    checkpoint: Checkpoint, reference: Reference
) -> None:
    """In other slots, resumed too, and against an engine that keeps nothing."""
    async with running(checkpoint) as engine, running(checkpoint, voice_cache_bytes=0) as forgetful:
        for seed in range(6):
            s = scripted(checkpoint, reference, seed, temperature=0.8 if seed % 2 else 0.0)
            prompt = prompt_positions(len(s.transcript), s.turn.voice.frames)
            first, _ = await collect(engine, s)
            before = engine.prefill_positions
            async with engine.slot(s.turn, s.transcript):  # moves the next turn to another slot
                again, _ = await collect(engine, s)
            assert engine.prefill_positions == before
            uncached, _ = await collect(forgetful, s)
            assert first == again == uncached
            check(again, s)
            resumed, _ = await collect(engine, s, done=2)
            check(resumed, s, start=2)
            assert engine.prefill_positions - before < prompt + 2 * 2
        assert len(engine.loop.voices) == 6
        assert len(forgetful.loop.voices) == 0
        assert forgetful.loop.voices.hits == 0
        assert engine.loop.voices.hits == 3 * 6


async def test_another_transcript_or_other_codes_are_another_voice(
    checkpoint: Checkpoint, reference: Reference
) -> None:
    """Even where a caller gives them the same digest."""
    async with running(checkpoint) as engine:
        for seed in (1, 2):
            s = scripted(checkpoint, reference, seed)
            object.__setattr__(s.turn.voice, "digest", "same")
            got, _ = await collect(engine, s)
            check(got, s)
            s.transcript.append(3)
            got, _ = await collect(engine, s)
            del s.__dict__["expected"]
            check(got, s)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), max_size=40))
def test_the_cache_stays_within_its_limit_and_keeps_the_latest(uses: list[tuple[int, int]]) -> None:
    cache = VoiceCache(limit_bytes=400, idle_s=60.0)
    sizes: dict[int, int] = {}
    for voice, elements in uses:
        key = ((voice,), b"")
        if cache.get(key) is None:
            sizes[voice] = elements * 4
            if cache.wants(key, elements * 4):
                cache.put(key, torch.zeros(elements))
        assert key in cache
        assert cache.bytes == sum(sizes[v] for v in range(10) if ((v,), b"") in cache) <= 400


def test_a_voice_larger_than_the_cache_evicts_nobody() -> None:
    cache = VoiceCache(limit_bytes=100, idle_s=60.0)
    cache.put(((1,), b""), torch.zeros(20))
    assert not cache.wants(((2,), b""), 101)
    cache.put(((2,), b""), torch.zeros(30))
    assert ((1,), b"") in cache
    assert len(cache) == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 30)), max_size=40))
def test_a_voice_that_is_used_no_more_is_gone_after_idle_s_and_no_other(uses: list[tuple[int, float]]) -> None:
    now = 1000.0
    cache = VoiceCache(limit_bytes=4000, idle_s=45.0, clock=lambda: now)
    used: dict[int, float] = {}
    for voice, pause_s in uses:
        now += pause_s
        left_s = cache.expire()
        kept = {v for v, at in used.items() if ((v,), b"") in cache}
        assert kept == {v for v, at in used.items() if at + 45.0 - now > 0}
        assert left_s == (min(used[v] for v in kept) + 45.0 - now if kept else None)
        assert cache.bytes == 40 * len(kept)
        if cache.get(((voice,), b"")) is None:
            cache.put(((voice,), b""), torch.zeros(10))
        used[voice] = now


async def test_an_engine_with_nothing_to_do_forgets_its_voices_too(
    checkpoint: Checkpoint, reference: Reference
) -> None:
    async with running(checkpoint, voice_cache_idle_s=0.2) as engine:
        await collect(engine, scripted(checkpoint, reference, 1))
        assert len(engine.loop.voices) == 1
        while len(engine.loop.voices):
            await asyncio.sleep(0.01)
        assert engine.loop.voices.bytes == 0
        again = scripted(checkpoint, reference, 1)
        check((await collect(engine, again))[0], again)
