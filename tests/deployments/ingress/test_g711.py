"""G.711 against libsndfile's."""

import io

import numpy as np
import pytest
import soundfile

from deployments.ingress import g711

BYTES = bytes(range(256))
SUBTYPES = {"mulaw": "ULAW", "alaw": "ALAW"}


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_every_byte_means_what_the_standard_says(law: g711.Law) -> None:
    raw = {"format": "RAW", "subtype": SUBTYPES[law], "channels": 1, "samplerate": 8000}
    samples, _ = soundfile.read(io.BytesIO(BYTES), dtype="int16", **raw)
    assert np.array_equal(g711.expand(BYTES, law), samples)


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_every_sample_becomes_the_nearest_byte(law: g711.Law) -> None:
    samples = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
    heard = g711.expand(g711.compress(samples, law), law).astype(np.int32)
    levels = np.sort(g711.expand(BYTES, law).astype(np.int32))
    nearest = np.abs(samples.astype(np.int32)[:, None] - levels[None]).min(axis=1)
    assert np.array_equal(np.abs(samples.astype(np.int32) - heard), nearest)


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_what_was_compressed_once_passes_unchanged(law: g711.Law) -> None:
    once = g711.expand(BYTES, law)
    assert np.array_equal(g711.expand(g711.compress(once, law), law), once)
