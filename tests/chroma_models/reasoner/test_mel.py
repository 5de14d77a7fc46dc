"""Features without the padding are the reference's features, but for the rounding of a shorter matrix product."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from chroma_models.errors import CheckpointError
from chroma_models.reasoner.mel import Mel, Samples, audio_tokens

MAXIMUM_S = 4
ROUNDING = 2e-6  # features lie in -1.5..2; on some CPUs a product of another width adds up in another order


@pytest.fixture(scope="module")
def mel(tmp_path_factory: pytest.TempPathFactory) -> Mel:
    folder = tmp_path_factory.mktemp("extractor")
    extractor(folder)
    return Mel(folder)


def extractor(folder: Path, **changes: int) -> None:
    settings = {
        "feature_size": 128,
        "sampling_rate": 16_000,
        "hop_length": 160,
        "chunk_length": MAXIMUM_S,
        "n_fft": 400,
    }
    WhisperFeatureExtractor(**(settings | changes)).save_pretrained(folder)


def padded(mel: Mel, samples: Samples) -> tuple[np.ndarray, int]:
    """The reference's way: pad to the maximum, cut what is longer, keep the frames the mask marks."""
    made = mel.extractor(
        samples, sampling_rate=16_000, padding="max_length", return_attention_mask=True, return_tensors="np"
    )
    frames = int(made["attention_mask"][0].sum())
    return made["input_features"][0][:, :frames], frames


LENGTHS = [1, 159, 160, 161, 321, 399, 400, 401, 1000, 16_000, 21_920, 63_599, 63_600, 63_999, 64_000, 64_001, 70_000]


@pytest.mark.parametrize("loudness", [0.0, 1e-4, 0.01, 0.9])
@pytest.mark.parametrize("length", LENGTHS)
def test_features_are_the_padded_ones(mel: Mel, length: int, loudness: float) -> None:
    samples = (loudness * np.random.default_rng(length).standard_normal(length)).astype(np.float32)
    wanted, frames = padded(mel, samples)
    assert mel.frames(length) == frames
    assert np.abs(mel.features(samples).numpy() - wanted).max() <= ROUNDING


@pytest.mark.parametrize("seed", range(20))
def test_a_loud_end_scales_the_whole_clip_as_it_does_there(mel: Mel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = (1e-3 * rng.standard_normal(int(rng.integers(400, 20_000)))).astype(np.float32)
    samples[-int(rng.integers(1, 200)) :] = 0.9
    assert np.abs(mel.features(samples).numpy() - padded(mel, samples)[0]).max() <= ROUNDING


def test_a_longer_clip_is_cut_where_the_reference_cuts_it(mel: Mel) -> None:
    samples = np.random.default_rng(0).standard_normal(5 * 16_000).astype(np.float32)
    assert mel.frames(len(samples)) == 100 * MAXIMUM_S
    assert np.array_equal(mel.features(samples).numpy(), mel.features(samples[: 16_000 * MAXIMUM_S]).numpy())


def test_audio_takes_25_tokens_a_second_and_too_little_takes_none() -> None:
    assert [audio_tokens(100 * s) for s in (1, 2, 4, 300)] == [25, 50, 100, 7500]
    assert [audio_tokens(m) for m in (0, 1, 2, 3, 4, 5, 7, 137, 213)] == [0, 0, 0, 1, 1, 1, 2, 34, 53]


def test_an_absent_or_foreign_extractor_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        Mel(tmp_path)
    extractor(tmp_path, sampling_rate=8_000)
    with pytest.raises(CheckpointError, match="8000"):
        Mel(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps([]))
    with pytest.raises(CheckpointError):
        Mel(tmp_path)
