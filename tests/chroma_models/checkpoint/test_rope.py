"""Rotary positions are transformers', however a config spells them."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from chroma_models.checkpoint.architecture import Rope
from chroma_models.errors import CheckpointError
from chroma_models.layers import rope_table

BACKBONE = {"factor": 32.0, "low_freq_factor": 0.125, "high_freq_factor": 0.5, "original_max_position_embeddings": 1024}
DECODER = {
    "factor": 32.0,
    "low_freq_factor": 0.001953125,
    "high_freq_factor": 0.0078125,
    "original_max_position_embeddings": 16,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize("stretch", [BACKBONE, DECODER, LLAMA3, None], ids=["backbone", "decoder", "llama", "plain"])
@pytest.mark.parametrize(("head_dim", "theta"), [(16, 500_000.0), (64, 500_000.0), (128, 1_000_000.0)])
def test_the_table_is_transformers(stretch: dict[str, Any] | None, head_dim: int, theta: float) -> None:
    spelled = {"rope_type": "llama3", **stretch} if stretch else {"rope_type": "default"}
    parameters = {"rope_theta": theta, **spelled}
    theirs = LlamaRotaryEmbedding(
        LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, head_dim=head_dim, rope_parameters=parameters)
    )
    cos, sin = theirs(torch.zeros(1), torch.arange(2048)[None])
    ours = rope_table(Rope.of({"rope_parameters": parameters}), head_dim, 2048, torch.device("cpu"))
    torch.testing.assert_close(ours[0], cos[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(ours[1], sin[0], rtol=0, atol=1e-6)


def test_the_stretch_changes_the_table() -> None:  # or the comparison above would prove little
    stretched = Rope.of({"rope_parameters": {"rope_theta": 500_000.0, "rope_type": "llama3", **BACKBONE}})
    cpu = torch.device("cpu")
    assert not torch.allclose(rope_table(stretched, 64, 64, cpu)[0], rope_table(Rope(500_000.0), 64, 64, cpu)[0])


SPELLINGS: dict[str, dict[str, Any]] = {
    "rope_parameters": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **BACKBONE}},
    "rope_scaling, theta beside": {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **BACKBONE}},
    "rope_scaling, old type key": {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **BACKBONE}},
    "rope_scaling, theta inside": {"rope_scaling": {"rope_type": "llama3", "rope_theta": 5e5, **BACKBONE}},
    "rope_parameters, theta beside": {"rope_theta": 5e5, "rope_parameters": {"rope_type": "llama3", **BACKBONE}},
    "null beside": {"rope_scaling": None, "rope_parameters": {"type": "llama3", "rope_theta": 5e5, **BACKBONE}},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_means_the_same(spelling: str) -> None:
    assert Rope.of(SPELLINGS[spelling]) == Rope(5e5, 32.0, 0.125, 0.5, 1024)


@pytest.mark.parametrize("config", [{"rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": None}])
def test_no_stretch_is_plain(config: dict[str, Any]) -> None:
    assert Rope.of(config) == Rope(5e5)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="yarn"):
        Rope.of({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})
