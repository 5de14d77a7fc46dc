"""Encoded voices are the ones that transformers and the public reference have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.codec.voice_encoder import VoiceEncoder, matching_names
from chroma_models.errors import CheckpointError
from chroma_models.types import CODEBOOKS, FRAME_SAMPLES
from tests.chroma_models.codec.mimis import Mimi


def encoder(mimi: Mimi) -> VoiceEncoder:
    return VoiceEncoder(mimi.shape, mimi.weights.__getitem__, mimi.weights)


def clip(samples: int, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("which", ["mimi", "other_mimi"])
def test_codes_are_the_first_eight_of_transformers(which: str, request: pytest.FixtureRequest) -> None:
    mimi: Mimi = request.getfixturevalue(which)
    pcm = clip(24_000 + 77)
    with torch.inference_mode():
        expected = mimi.model.encode(torch.from_numpy(pcm)[None, None]).audio_codes[0, :CODEBOOKS]
    codes = encoder(mimi).encode(pcm)
    assert codes.dtype == np.int16
    assert np.array_equal(codes, expected.t().numpy())


@pytest.mark.parametrize(
    "samples", [1, 2, 1000, FRAME_SAMPLES - 1, FRAME_SAMPLES, FRAME_SAMPLES + 1, 9 * FRAME_SAMPLES]
)
def test_a_begun_frame_counts(mimi: Mimi, samples: int) -> None:
    assert encoder(mimi).encode(clip(samples)).shape == (-(-samples // FRAME_SAMPLES), CODEBOOKS)


def test_golden_codes(golden: Path) -> None:
    checkpoint = Checkpoint.open(golden / "checkpoint")
    get = checkpoint.source("codec_model", torch.device("cpu"), torch.float32)
    names = [name.removeprefix("codec_model.") for name in checkpoint.names("codec_model")]
    voices = VoiceEncoder(checkpoint.architecture.codec, get, names)
    waves = load_file(golden / "codec.safetensors")
    pairs = list(zip(waves["in.wave"][:, 0], waves["out.codes"], strict=True))
    for row in ("b1_row0", "b1_row1"):
        case = load_file(golden / f"{row}.safetensors")
        pairs.append((case["in.input_values"][0, 0], case["out.prompt_audio_codes"][0]))
    for wave, codes in pairs:
        assert np.array_equal(voices.encode(wave.numpy()), codes[:CODEBOOKS].t().numpy())


def test_only_the_encoder_half_is_loaded(mimi: Mimi) -> None:
    asked: list[str] = []

    def get(name: str) -> torch.Tensor:
        asked.append(name)
        return mimi.weights[name]

    VoiceEncoder(mimi.shape, get, mimi.weights)
    assert asked
    assert not [name for name in asked if name.startswith(("decoder", "upsample"))]


def test_names_are_found_below_modules_that_were_nested_later() -> None:
    names = ["encoder.layers.1.conv.weight", "encoder_transformer.layers.1.norm.weight", "downsample.conv.weight"]
    nested = {
        "encoder.encoder.layers.1.conv.weight": names[0],
        "encoder.encoder_transformer.layers.1.norm.weight": names[1],
        "encoder.downsample.conv.weight": names[2],
    }
    assert matching_names(nested, names) == nested


def test_a_missing_tensor_is_named(mimi: Mimi) -> None:
    names = [name for name in mimi.weights if name != "encoder.layers.0.conv.bias"]
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.0\.conv\.bias"):
        VoiceEncoder(mimi.shape, mimi.weights.__getitem__, names)


def test_a_tensor_of_another_shape_is_named(mimi: Mimi) -> None:
    weights = {**mimi.weights, "encoder.layers.0.conv.bias": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.0\.conv\.bias"):
        VoiceEncoder(mimi.shape, weights.__getitem__, weights)
