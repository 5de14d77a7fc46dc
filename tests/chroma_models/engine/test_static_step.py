"""The pass that CUDA captures, run as ordinary calls, against the ordinary step: the same codes on any schedule."""

from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import DecoderConfig, TorchConfig
from chroma_models.engine.cuda_graph import buckets, fitting
from chroma_models.engine.decoder_engine import FusedDecoder
from chroma_models.engine.static_step import StaticStep
from chroma_models.engine.step import FrameStep
from chroma_models.interleave import segment_positions, wants_pair
from chroma_models.loading import load_backbone, load_decoder
from chroma_models.types import CODEBOOKS, Sampling, TextStep
from tests.chroma_models import plain_kernels
from tests.chroma_models.captures import rehearsing

FP32 = TorchConfig(device="cpu", dtype="float32")
SLOTS = 6


class Parts:
    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        torch_config = TorchConfig(device="cpu", dtype=dtype)
        checkpoint = Checkpoint.open(folder)
        self.backbone = load_backbone(checkpoint, torch_config)
        self.depth = load_decoder(checkpoint, torch_config, DecoderConfig())

    def ordinary(self) -> FrameStep:
        return FrameStep(self.backbone, FusedDecoder(self.depth), SLOTS)

    def static(self, *, fused: bool) -> StaticStep:
        return StaticStep(self.backbone, FusedDecoder(self.depth), SLOTS, self.depth if fused else None)


@pytest.fixture(scope="module")
def parts(tiny: Path) -> Parts:
    return Parts(tiny)


def speak(step: FrameStep, schedule: list[list[int]], top_k: list[int]) -> list[np.ndarray]:
    """Each round's slots make a frame; a slot's prompt is as long as its number says. Codes of every round."""
    width = step.backbone.hidden
    prompts = [3 + 41 * slot for slot in range(SLOTS)]
    for slot, length in enumerate(prompts):
        torch.manual_seed(slot)
        step.prefill(slot, 0, torch.randn(length, width).to(step.backbone.dtype))
    positions, frames = list(prompts), [0] * SLOTS
    made = []
    for slots in schedule:
        steps = [text(slot, frames[slot], width) if wants_pair(frames[slot]) else None for slot in slots]
        sampling = [Sampling(slot, temperature=0.8 * (top_k[slot] >= 0), top_k=max(top_k[slot], 0)) for slot in slots]
        codes: Future[torch.Tensor] = step.propose(
            slots, [positions[s] for s in slots], [frames[s] for s in slots], steps, sampling
        )
        made.append(step.commit(slots, codes.result()).copy())
        for slot, word in zip(slots, steps, strict=True):
            positions[slot] += segment_positions(frames[slot], word is not None)
            frames[slot] += 1
    return made


def text(slot: int, frame: int, width: int) -> TextStep:
    rng = np.random.default_rng((slot, frame))
    row = rng.standard_normal(width).astype(np.float32)
    return TextStep(frame // 2, int(rng.integers(0, 400)), row.tobytes(), "")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    schedule=st.lists(st.sets(st.integers(0, SLOTS - 1), min_size=1).map(sorted), min_size=1, max_size=8),
    top_k=st.lists(st.sampled_from([-1, 0, 5, 64]), min_size=SLOTS, max_size=SLOTS),
    fused=st.booleans(),
)
def test_a_static_pass_makes_the_ordinary_steps_codes(
    parts: Parts, schedule: list[list[int]], top_k: list[int], fused: bool
) -> None:
    ordinary = speak(parts.ordinary(), schedule, top_k)
    static = speak(parts.static(fused=fused), schedule, top_k)
    for ours, theirs in zip(static, ordinary, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rows_that_sit_out_keep_their_memory(parts: Parts) -> None:
    step = parts.static(fused=True)
    speak(step, [[0, 1, 2, 3, 4, 5]], [-1] * SLOTS)
    before, codes = step.cache.cells[:, [1, 4]].clone(), step.codes.clone()
    step.propose([0, 5], [5, 210], [1, 1], [None, None], [Sampling(0), Sampling(5)])
    assert torch.equal(step.cache.cells[:, [1, 4]], before)
    assert torch.equal(step.codes[1:5], codes[1:5])


def test_every_shape_is_made_ahead_and_none_later(parts: Parts) -> None:
    step = parts.static(fused=True)
    told: list[tuple[int, int]] = []
    step.capture(lambda made, total: told.append((made, total)))
    assert told[-1][0] == told[-1][1] == len(told) == len(step._frames)
    speak(step, [[0, 3], [0, 1, 2, 3, 4, 5], [5]], [-1, 0, 5, -1, 64, -1])
    assert len(step._frames) == len(told)


def test_bfloat16_runs_the_same_passes(tiny: Path) -> None:
    parts = Parts(tiny, "bfloat16")
    schedule = [[0, 2, 5], [0, 1, 2, 5], [1, 5]]
    ordinary = speak(parts.ordinary(), schedule, [-1] * SLOTS)
    static = speak(parts.static(fused=True), schedule, [-1] * SLOTS)
    agreeing = [(a[:, 0] == b[:, 0]).mean() for a, b in zip(ordinary, static, strict=True)]
    assert np.mean(agreeing) > 0.6  # shapes round differently in eight bits; noise would agree once in 64
    assert all(codes.shape[1] == CODEBOOKS for codes in static)


@pytest.mark.parametrize("fused", [True, False])
def test_a_capture_with_turns_under_way_changes_nothing(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    schedule = [[0, 1, 2, 3, 4, 5], [0, 1], [0, 2, 3], [1], [0, 5], [0, 1], [0]]
    ordinary = speak(parts.ordinary(), schedule, [-1] * SLOTS)
    monkeypatch.setattr("chroma_models.engine.static_step.Graph", rehearsing)
    static = speak(parts.static(fused=fused), schedule, [-1] * SLOTS)
    for ours, theirs in zip(static, ordinary, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("fused", [True, False])
def test_kernels_of_its_own_get_what_they_need(
    parts: Parts, tiny: Path, monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    schedule = [[0, 2, 5], [0, 1, 2, 5], [1, 5], [0, 1, 2, 3, 4, 5]]
    ordinary = speak(parts.ordinary(), schedule, [-1] * SLOTS)
    monkeypatch.setattr("chroma_models.layers.FOLDED", set())  # kernels are for stacks as published
    monkeypatch.setattr("chroma_models.layers.triton_kernels", lambda *_: plain_kernels)
    static = speak(Parts(tiny).static(fused=fused), schedule, [-1] * SLOTS)
    for ours, theirs in zip(static, ordinary, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.gpu
def test_a_captured_pass_makes_the_codes_of_an_ordinary_step(tiny: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("graphs are captured on an NVIDIA GPU, and there is none")
    cuda = TorchConfig(device="cuda", dtype="float32")
    checkpoint = Checkpoint.open(tiny)
    backbone, depth = load_backbone(checkpoint, cuda), load_decoder(checkpoint, cuda, DecoderConfig())
    schedule = [[0, 2, 5], [0, 1, 2, 5], [1, 5], [0, 1, 2, 3, 4, 5]]
    for top_k in (-1, 5):
        ordinary = speak(FrameStep(backbone, FusedDecoder(depth), SLOTS), schedule, [top_k] * SLOTS)
        captured = speak(StaticStep(backbone, FusedDecoder(depth), SLOTS, depth), schedule, [top_k] * SLOTS)
        for ours, theirs in zip(captured, ordinary, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_buckets_cover_every_batch() -> None:
    for most in (1, 5, 64, 300, 1024):
        sizes = buckets(most)
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == most
        assert all(fitting(sizes, rows) >= rows for rows in range(1, most + 1))
