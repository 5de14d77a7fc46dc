"""Mimi's pass of fixed shapes, run as ordinary calls, against the ordinary step: the same speech, the same memory."""

import logging
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from chroma_models.codec.engine import CodecEngine
from chroma_models.codec.static_decoder import StaticDecoder
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.codec.voice_encoder import VoiceEncoder
from chroma_models.config import CodecConfig
from chroma_models.types import CODEBOOKS, FRAME_SAMPLES
from tests.chroma_models.captures import NoCapture, rehearsing
from tests.chroma_models.codec.mimis import Mimi

CLOSE = 1e-4  # of full scale: products over other numbers of rows round differently
SLOTS = 5
LONG = 150  # frames: 300 positions, past the 257 cells of a ring


def static(mimi: Mimi, slots: int = SLOTS, max_group: int = 4) -> StaticDecoder:
    return StaticDecoder(mimi.shape, mimi.weights.__getitem__, slots, max_group)


def worst(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def same_memory(a: StreamDecoder, b: StreamDecoder) -> None:
    """Of every slot that streams may hold."""
    count = a.slots
    assert a.state.positions[:count] == b.state.positions[:count]
    assert worst(a.state.ring[:, :count], b.state.ring[:, :count]) < CLOSE
    for ours, theirs in zip(a.state.histories, b.state.histories, strict=True):
        assert worst(ours[:count], theirs[:count]) < CLOSE


def compare(mimi: Mimi, ours: StreamDecoder, theirs: StreamDecoder, rounds: int, random: Random) -> None:
    """Streams join, idle, leave and are restored, in groups of 1 to 4 and slots with gaps; slot 0 never leaves."""
    codes = mimi.codes(1, 4 * rounds + 40, seed=random.getrandbits(30))[0].to(ours.device)
    at = {0: 0}
    for _ in range(rounds):
        slot = random.randrange(1, ours.slots)
        event = random.random()
        if event < 0.2:
            for decoder in (ours, theirs):
                decoder.reset([slot])
            at[slot] = 0
        elif event < 0.25:
            at[slot] = random.randrange(30)
            for decoder in (ours, theirs):
                decoder.rebuild(slot, codes[: at[slot]])
        elif event < 0.35:
            at.pop(slot, None)
        slots = sorted(slot for slot in at if random.random() < 0.7)
        if not slots:
            continue
        group = random.randint(1, ours.max_group)
        part = torch.stack([codes[at[slot] :][:group] for slot in slots])
        assert worst(ours.step(slots, part), theirs.step(slots, part)) < CLOSE
        for slot in slots:
            at[slot] += group
    same_memory(ours, theirs)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_schedule_is_the_ordinary_steps(other_mimi: Mimi, seed: int) -> None:
    ours, theirs = static(other_mimi), other_mimi.decoder(SLOTS)
    compare(other_mimi, ours, theirs, 40, Random(seed))
    assert not ours.graphs.failed
    assert len(ours.graphs) > 0


def test_rings_that_wrap_are_the_ordinary_steps(mimi: Mimi) -> None:
    ours, theirs = static(mimi, 3), mimi.decoder(3)
    compare(mimi, ours, theirs, 100, Random(3))
    assert ours.state.positions[0] > ours.state.cells


@pytest.mark.parametrize("group", [1, 4])
def test_a_long_stream_sounds_like_one_shot_decoding(mimi: Mimi, group: int) -> None:
    decoder, codes = static(mimi, 3), mimi.codes(1, LONG)
    decoder.step([0, 2], mimi.codes(2, 3, seed=5))  # others before it
    heard = torch.cat([decoder.step([1], part)[0] for part in codes.split(group, 1)])
    assert worst(heard, mimi.offline(codes)[0]) < CLOSE


def test_slots_that_sit_out_keep_their_memory(mimi: Mimi) -> None:
    decoder = static(mimi)
    decoder.step([0, 1, 2, 3, 4], mimi.codes(5, 4))
    histories = [history[[1, 3]].clone() for history in decoder.state.histories]
    ring, positions = decoder.state.ring[:, [1, 3]].clone(), list(decoder.state.positions)
    decoder.step([0, 2, 4], mimi.codes(3, 2, seed=1))  # a bucket of 4: one row is nobody's
    assert torch.equal(decoder.state.ring[:, [1, 3]], ring)
    for history, before in zip(decoder.state.histories, histories, strict=True):
        assert torch.equal(history[[1, 3]], before)
    assert decoder.state.positions == [p + 4 * (slot in (0, 2, 4)) for slot, p in enumerate(positions)]


def test_no_row_hears_what_the_scratch_slot_holds(mimi: Mimi) -> None:
    clean, dirty = static(mimi), static(mimi)
    dirty.state.ring[:, SLOTS] = float("nan")
    for history in dirty.state.histories:
        history[SLOTS] = float("nan")
    codes = mimi.codes(3, 4)
    assert torch.equal(clean.step([0, 1, 3], codes), dirty.step([0, 1, 3], codes))


def test_warming_up_leaves_every_slot_new(mimi: Mimi) -> None:
    decoder = static(mimi)
    decoder.warm_up(lambda made, of: None)
    assert decoder.state.positions[:SLOTS] == [0] * SLOTS
    assert all(not history[:SLOTS].any() for history in decoder.state.histories)
    codes = mimi.codes(2, 4)
    assert torch.equal(decoder.step([0, 3], codes), static(mimi).step([0, 3], codes))


def test_where_capture_fails_ordinary_steps_go_on_mid_stream(
    other_mimi: Mimi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chroma_models.engine.cuda_graph.Graph", NoCapture(after=3))
    ours, theirs = static(other_mimi), other_mimi.decoder(SLOTS)
    with caplog.at_level(logging.ERROR):
        compare(other_mimi, ours, theirs, 40, Random(7))
    assert ours.graphs.failed
    assert sum("graph capture failed" in record.message for record in caplog.records) == 1


def test_a_capture_in_mid_stream_changes_nothing(other_mimi: Mimi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chroma_models.engine.cuda_graph.Graph", rehearsing)
    compare(other_mimi, static(other_mimi), other_mimi.decoder(SLOTS), 40, Random(8))


@pytest.mark.parametrize("group", [0, 5])
def test_a_group_it_has_no_room_for_is_refused(mimi: Mimi, group: int) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        static(mimi, 1).step([0], mimi.codes(1, group))


async def test_the_engine_speaks_through_passes(mimi: Mimi) -> None:
    decoder = static(mimi, 2)
    encoder = VoiceEncoder(mimi.shape, mimi.weights.__getitem__, mimi.weights)
    engine = CodecEngine(decoder, encoder, CodecConfig(slots=2))
    await engine.start()
    try:
        codes = mimi.codes(1, 10)
        async with engine.slot("turn") as slot:
            parts = [await engine.decode(slot, part[0].numpy().astype(np.int16)) for part in codes.split(4, 1)]
        heard = torch.from_numpy(np.frombuffer(b"".join(parts), np.float32).copy())
        assert heard.shape == (10 * FRAME_SAMPLES,)
        assert worst(heard, mimi.offline(codes)[0]) < CLOSE
    finally:
        await engine.stop()


@pytest.mark.gpu
def test_captured_passes_are_the_ordinary_steps(mimi: Mimi) -> None:
    if not torch.cuda.is_available():
        pytest.skip("graphs are captured on an NVIDIA GPU, and there is none")
    weights = {name: tensor.to("cuda") for name, tensor in mimi.weights.items()}
    ours = StaticDecoder(mimi.shape, weights.__getitem__, SLOTS)
    theirs = StreamDecoder(mimi.shape, weights.__getitem__, SLOTS)
    told: list[tuple[int, int]] = []
    ours.warm_up(lambda made, of: told.append((made, of)))
    assert not ours.graphs.failed
    assert told[-1][0] == told[-1][1] == len(ours.graphs) == len(ours.buckets) * ours.max_group
    compare(mimi, ours, theirs, 100, Random(11))
    assert ours.step([0], torch.zeros((1, 1, CODEBOOKS), dtype=torch.int64, device="cuda")).device.type == "cuda"
