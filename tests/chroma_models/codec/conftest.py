"""Mimis shared by the codec's tests."""

import pytest

from tests.chroma_models.codec.mimis import Mimi, random_mimi


@pytest.fixture(scope="session")
def mimi() -> Mimi:
    """Two layers of 250 positions, as the published Mimi's eight."""
    return random_mimi()


@pytest.fixture(scope="session")
def other_mimi() -> Mimi:
    """What a configuration may change: 32 quantizers, a short context, real groups, three layers."""
    return random_mimi(num_quantizers=32, sliding_window=20, upsample_groups=4, num_hidden_layers=3, num_filters=2)
