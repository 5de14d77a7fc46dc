"""Voices through the engine: encoded beside the step loop, checked, and never too many."""

import asyncio

import numpy as np
import pytest
import torch

from chroma_models.errors import InvalidVoice, Overloaded
from chroma_models.types import CODEBOOKS
from tests.chroma_models.codec.engines import running
from tests.chroma_models.codec.mimis import Mimi


async def test_a_voice_comes_back_as_transformers_codes(mimi: Mimi) -> None:
    pcm = (0.2 * np.random.default_rng(0).standard_normal(30_000)).astype(np.float32)
    async with running(mimi) as service:
        codes = np.frombuffer(await service.engine.encode_voice(pcm.tobytes()), "<i2").reshape(-1, CODEBOOKS)
        assert service.engine.voices == 1
    with torch.inference_mode():
        expected = mimi.model.encode(torch.from_numpy(pcm)[None, None]).audio_codes[0]
    assert np.array_equal(codes, expected.t().numpy())


@pytest.mark.parametrize(
    "pcm",
    [
        b"",
        b"\0\0\0",
        np.array([0.1, np.nan], np.float32).tobytes(),
        np.array([0.1, -np.inf], np.float32).tobytes(),
        np.zeros(24_001, np.float32).tobytes(),
    ],
    ids=["empty", "cut off", "NaN", "infinite", "too long"],
)
async def test_a_clip_that_is_no_voice_is_refused(mimi: Mimi, pcm: bytes) -> None:
    async with running(mimi, max_voice_s=1.0) as service:
        with pytest.raises(InvalidVoice):
            await service.engine.encode_voice(pcm)
        assert not service.encodes.calls
        assert await service.engine.encode_voice(np.zeros(24_000, np.float32).tobytes())


async def test_a_flood_of_voices_is_refused_and_cancelled_ones_make_room(mimi: Mimi) -> None:
    clip = np.ones(2000, np.float32).tobytes()
    async with running(mimi, slots=2) as service:
        service.encodes.close()
        tasks = [asyncio.create_task(service.engine.encode_voice(clip)) for _ in range(2)]
        await service.encodes.reached()
        with pytest.raises(Overloaded):
            await service.engine.encode_voice(clip)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        third = asyncio.create_task(service.engine.encode_voice(clip))
        await asyncio.sleep(0)
        service.encodes.open()
        assert await tasks[0] == await third
        assert len(service.encodes.calls) == 2
