"""Replies that outgrow the positions: where they roll, and that nothing is heard of it."""

import asyncio
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import PromptTooLong
from chroma_models.interleave import Windows, segment_positions, wants_pair
from chroma_models.reference import Reference
from chroma_models.types import CODEBOOKS, Finished, Limits, TextStep
from tests.chroma_models.engine.engines import running
from tests.chroma_models.engine.turns import TIE, Scripted, check, collect, scripted


@pytest.fixture(scope="module")
def short(checkpoint: Checkpoint) -> Checkpoint:
    """The tiny checkpoint with so few positions that the slow oracle can follow several rolls."""
    a = checkpoint.architecture
    fewer = copy(checkpoint)
    fewer.architecture = replace(a, backbone=replace(a.backbone, positions=140))
    return fewer


@pytest.fixture(scope="module")
def short_reference(short: Checkpoint) -> Reference:
    return Reference(short)


def long_reply(
    checkpoint: Checkpoint, reference: Reference, seed: int, *, frames: int, text: int, temperature: float = 0.7
) -> Scripted:
    """A turn whose text has `text` steps, the last one im_end."""
    s = scripted(checkpoint, reference, seed, frames=frames, temperature=temperature)
    rng = np.random.default_rng(seed + 1000)
    a = checkpoint.architecture
    tokens = [t for t in rng.integers(0, a.text_vocab, 2 * text).tolist() if t != a.im_end][: text - 1]
    rows = rng.standard_normal((text, a.backbone.hidden)).astype(np.float32)
    s.steps = [TextStep(i, t, rows[i].tobytes(), "") for i, t in enumerate([*tokens, a.im_end])]
    return s


@given(prompt=st.integers(0, 1900), frame=st.integers(0, 5000))
def test_every_frame_fits_and_rolls_where_the_walk_does(reference: Reference, prompt: int, frame: int) -> None:
    windows = Windows(prompt, 2048)
    start = windows.start(frame)
    assert start == reference.window_start(prompt, frame)
    assert start % 2 == 0
    fed = sum(segment_positions(i - start, wants_pair(i)) for i in range(start, frame + 1))
    assert prompt + fed <= 2048
    assert start == 0 or frame - start >= windows.kept >= 2 * (windows.frames // 8), "too little is remembered"


@pytest.mark.parametrize("split", [False, True])
async def test_a_reply_longer_than_its_positions_equals_the_oracle(
    short: Checkpoint, short_reference: Reference, split: bool
) -> None:
    """Several rolls each, together in a batch, with text that ends before, between and after them."""
    texts = {1: 20, 2: 50, 3: 99}
    turns = [long_reply(short, short_reference, seed, frames=170, text=text) for seed, text in texts.items()]
    async with running(short, split=split, prefill_chunk=7) as engine:
        heard = await asyncio.gather(*(collect(engine, s) for s in turns))
        assert engine.loop.rolls >= 6
    for s, (got, finished) in zip(turns, heard, strict=True):
        assert finished is not None
        assert finished.reason == "max_reply"
        check(got, s)


async def test_a_resumed_long_reply_rolls_where_it_would_have(short: Checkpoint, short_reference: Reference) -> None:
    """Resumed well before, right before, at and right after a roll, while text lasts and later."""
    s = long_reply(short, short_reference, 4, frames=160, text=60)
    windows = Windows(len(s.transcript) + s.turn.voice.frames + 3, 140)
    points = [i for i in range(160) if windows.rolls(i)]
    assert len(points) >= 3
    async with running(short) as engine:
        for done in [30, *(point + i for point in points for i in (-1, 0, 1))]:
            got, _ = await collect(engine, s, done=done)
            check(got, s, start=done)
            assert len(got) == 160 - done


@pytest.mark.slow
async def test_five_minutes_without_a_gap(checkpoint: Checkpoint, reference: Reference) -> None:
    """3,750 frames on the model's own positions; around each roll the oracle is fed the engine's history."""
    s = long_reply(checkpoint, reference, 5, frames=3750, text=900, temperature=1.0)
    async with running(checkpoint, prefill_chunk=64) as engine:
        got, finished = await collect(engine, s)
        rolls = engine.loop.rolls
    assert [frame.index for frame in got] == list(range(3750))
    assert finished is not None
    assert finished.reason == "max_reply"
    assert [f.step.index for f in got if f.step] == list(range(900))
    voice = np.frombuffer(s.turn.voice.codes, np.int16).reshape(-1, CODEBOOKS)
    codes = np.frombuffer(b"".join(f.codes for f in got), np.int16).reshape(-1, CODEBOOKS).tolist()
    rows = torch.stack([torch.frombuffer(bytearray(step.row), dtype=torch.float32) for step in s.steps])
    tokens = [step.token for step in s.steps]
    windows = Windows(len(s.transcript) + len(voice) + 3, checkpoint.architecture.backbone.positions)
    points = [i for i in range(3750) if windows.rolls(i)]
    assert rolls == len(points) >= 4
    ties = 0
    for index in (i for point in points for i in range(point - 1, point + 3)):
        sequence = reference.sequence(s.transcript, voice, rows, tokens, codes[:index])
        want, margin = reference.frame(sequence, s.turn.sampling, index)
        ties += margin < TIE
        assert codes[index] == want or margin < TIE
    assert ties < len(points)


async def test_a_voice_that_leaves_no_room_is_refused(checkpoint: Checkpoint, reference: Reference) -> None:
    s = scripted(checkpoint, reference, 8)
    positions = checkpoint.architecture.backbone.positions

    def voiced(frames: int) -> Scripted:
        codes = np.ones((frames, CODEBOOKS), np.int16)
        turn = replace(s.turn, voice=replace(s.turn.voice, codes=codes.tobytes()), limits=Limits(max_reply_s=1))
        return replace(s, turn=turn)

    room = positions - 3 - len(s.transcript) - 99  # 50 frames with their text
    async with running(checkpoint, prefill_chunk=512) as engine:
        _, finished = await collect(engine, voiced(room))
        assert isinstance(finished, Finished)
        with pytest.raises(PromptTooLong):
            await collect(engine, voiced(room + 1))
        assert engine.slots_held == 0
