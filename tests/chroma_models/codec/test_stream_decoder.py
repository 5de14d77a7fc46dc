"""Streamed speech equals one-shot decoding, whatever the schedule."""

from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from chroma_models.checkpoint.architecture import CodecShape
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.errors import CheckpointError
from chroma_models.types import CODEBOOKS, FRAME_SAMPLES
from tests.chroma_models.codec.mimis import Mimi, Moshi

CLOSE = 1e-4
FRAMES = 160  # 12.8 s: past the 10 s that a ring of 250 positions holds


def stream(decoder: StreamDecoder, slot: int, codes: Tensor, group: int = 4) -> Tensor:
    return torch.cat([decoder.step([slot], part[None])[0] for part in codes.split(group)])


def worst(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def play(decoder: StreamDecoder, codes: Tensor, random: Random) -> list[Tensor]:
    """Stream [streams, frames, CODEBOOKS] through fewer slots: they join, idle, leave early and come in any company.

    Returns what was heard of each stream.
    """
    heard: list[list[Tensor]] = [[] for _ in codes]
    at = [0] * len(codes)
    lengths = [random.choice([len(c), len(c), random.randint(1, len(c))]) for c in codes]
    waiting = list(range(len(codes)))
    playing: dict[int, int] = {}
    while waiting or playing:
        for slot in random.sample(range(decoder.slots), decoder.slots):
            if slot not in playing and waiting and random.random() < 0.2:
                decoder.reset([slot])
                playing[slot] = waiting.pop(0)
        group = random.randint(1, decoder.max_group)
        able = [s for s, i in playing.items() if at[i] + group <= lengths[i] and random.random() < 0.8]
        if able:
            slots = sorted(able)
            parts = torch.stack([codes[playing[s], at[playing[s]] :][:group] for s in slots])
            for slot, samples in zip(slots, decoder.step(slots, parts), strict=True):
                heard[playing[slot]].append(samples)
                at[playing[slot]] += group
        playing = {s: i for s, i in playing.items() if at[i] < lengths[i]}
    return [torch.cat(parts) for parts in heard]


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_schedule_sounds_like_one_shot_decoding(mimi: Mimi, seed: int) -> None:
    codes = mimi.codes(6, FRAMES)
    whole = mimi.offline(codes)
    for samples, expected in zip(play(mimi.decoder(3), codes, Random(seed)), whole, strict=True):
        assert worst(samples, expected[: len(samples)]) < CLOSE


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), max_group=st.integers(1, 6))
def test_sizes_come_from_the_configuration(other_mimi: Mimi, seed: int, max_group: int) -> None:
    codes = other_mimi.codes(5, 40)
    whole = other_mimi.offline(codes)
    for samples, expected in zip(play(other_mimi.decoder(3, max_group), codes, Random(seed)), whole, strict=True):
        assert worst(samples, expected[: len(samples)]) < CLOSE


@pytest.mark.parametrize("group", [1, 4])
def test_streams_sound_like_moshis(mimi: Mimi, group: int) -> None:
    codes = mimi.codes(1, FRAMES, seed=3)[0]
    assert worst(stream(mimi.decoder(1), 0, codes, group), Moshi(mimi).stream(codes, group)) < CLOSE


def test_the_oracles_hear_every_position_of_the_window(mimi: Mimi) -> None:
    """Else an error in the ring would pass unheard: one code, 124 frames back, must change the end of a stream."""
    codes = mimi.codes(1, FRAMES)
    changed = codes.clone()
    changed[0, -124] = (changed[0, -124] + 1) % mimi.shape.codebook_size
    frame = slice(-FRAME_SAMPLES, None)
    assert worst(mimi.offline(codes)[:, frame], mimi.offline(changed)[:, frame]) > 100 * CLOSE


def test_golden_waves(golden: Path) -> None:
    checkpoint = Checkpoint.open(golden / "checkpoint")
    get = checkpoint.source("codec_model", torch.device("cpu"), torch.float32)
    case = load_file(golden / "codec.safetensors")
    decoder = StreamDecoder(checkpoint.architecture.codec, get, slots=2)
    codes = case["in.codes_all"][:, :CODEBOOKS].transpose(1, 2)
    samples = torch.cat([decoder.step([0, 1], part) for part in codes.split(3, 1)], 1)
    assert worst(samples, case["out.wave_8"][:, 0]) < CLOSE


def test_a_reset_slot_is_a_new_stream(mimi: Mimi) -> None:
    used, fresh = mimi.decoder(2), mimi.decoder(2)
    codes = mimi.codes(2, 150)
    for part in codes.split(3, 1):
        used.step([0, 1], part)
    used.reset([1])
    assert torch.equal(stream(used, 1, codes[0, :20]), stream(fresh, 1, codes[0, :20]))
    assert worst(stream(used, 0, codes[0, :4]), stream(fresh, 0, codes[0, :4])) > CLOSE  # its neighbour remembers


def test_company_and_gaps_between_slots_change_no_bit_of_a_neighbours_state(mimi: Mimi) -> None:
    decoder, codes = mimi.decoder(5), mimi.codes(5, 12)
    decoder.step([1], codes[1:2, :4])
    before = [history[1].clone() for history in decoder.state.histories], decoder.state.ring[:, 1].clone()
    decoder.step([0, 2, 4], codes[[0, 2, 4], :3])
    assert all(torch.equal(a, b[1]) for a, b in zip(before[0], decoder.state.histories, strict=True))
    assert torch.equal(before[1], decoder.state.ring[:, 1])


@pytest.mark.parametrize("frames", [0, 1, 2, 7, 124, 125, 126, 254, 255, 256, 290])
def test_a_rebuilt_stream_goes_on_as_if_streamed(mimi: Mimi, frames: int) -> None:
    decoder = mimi.decoder(2)
    codes = mimi.codes(1, 300)
    decoder.step([0, 1], codes[:, :4].expand(2, -1, -1))  # what the slot held before
    decoder.rebuild(1, codes[0, :frames])
    expected = mimi.offline(codes)[0, frames * FRAME_SAMPLES :]
    samples = stream(decoder, 1, codes[0, frames:], 3)
    assert worst(samples, expected) < CLOSE


@pytest.mark.parametrize("frames", [5, 33, 34, 35, 60])
def test_a_rebuilt_state_is_the_streamed_one(other_mimi: Mimi, frames: int) -> None:
    """Not only what it plays next: every remembered input, and every key that a query may still see."""
    decoder, shape = other_mimi.decoder(2), other_mimi.shape
    codes = other_mimi.codes(1, frames)[0]
    stream(decoder, 0, codes)
    decoder.rebuild(1, codes)
    state = decoder.state
    assert state.positions[0] == state.positions[1] == 2 * frames
    for history in state.histories:
        assert worst(history[0], history[1]) < CLOSE
    seen = torch.arange(max(0, 2 * frames - shape.context + 1), 2 * frames) % state.cells
    assert worst(state.ring[:, 0, seen], state.ring[:, 1, seen]) < CLOSE


def test_reach_is_how_far_back_a_code_is_heard(other_mimi: Mimi) -> None:
    reach = other_mimi.decoder(1).reach_frames
    codes = other_mimi.codes(1, reach + 20)
    changed = codes.clone()
    changed[0, 9] = (changed[0, 9] + 1) % other_mimi.shape.codebook_size
    difference = (other_mimi.offline(codes) - other_mimi.offline(changed))[0].view(-1, FRAME_SAMPLES)
    last = int(difference.abs().amax(1).nonzero().max())
    assert 9 < last <= 9 + reach


def test_preparing_a_stream_touches_no_slot(mimi: Mimi) -> None:
    decoder, codes = mimi.decoder(1), mimi.codes(1, 30)
    stream(decoder, 0, codes[0, :20])
    before = decoder.state.ring.clone()
    decoder.prepare(codes[0])
    assert torch.equal(before, decoder.state.ring)
    assert decoder.state.positions == [40]


@pytest.mark.parametrize(
    "change",
    [{"num_quantizers": 4}, {"attention_bias": True}, {"hidden_act": "relu"}, {"num_key_value_heads": 1}],
)
def test_a_mimi_that_would_sound_wrong_is_refused(mimi: Mimi, change: dict[str, object]) -> None:
    shape = CodecShape.of({**mimi.shape.raw, **change})
    with pytest.raises(CheckpointError, match=next(iter(change))):
        StreamDecoder(shape, mimi.weights.__getitem__, slots=1)


@pytest.mark.parametrize("group", [0, 5])
def test_a_group_the_ring_has_no_room_for_is_refused(mimi: Mimi, group: int) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        mimi.decoder(1).step([0], mimi.codes(1, group))
