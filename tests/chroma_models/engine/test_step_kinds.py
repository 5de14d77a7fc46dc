"""`step` in the settings says which stages run in passes of fixed shapes."""

from pathlib import Path
from typing import Literal

import pytest
import torch

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.codec.static_decoder import StaticDecoder
from chroma_models.config import CodecConfig, TorchConfig
from chroma_models.engine.cuda_graph import wants_static
from chroma_models.loading import load_codec

Kind = Literal["auto", "eager", "static"]


@pytest.mark.parametrize(
    ("kind", "device", "static"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("eager", "cuda", False),
        ("static", "cpu", True),
    ],
)
def test_auto_is_static_on_cuda_alone(kind: Kind, device: str, static: bool) -> None:
    assert wants_static(kind, torch.device(device)) is static


@pytest.mark.parametrize("kind", ["auto", "eager", "static"])
def test_the_codec_is_loaded_as_its_settings_say(tiny: Path, kind: Kind) -> None:
    engine = load_codec(Checkpoint.open(tiny), TorchConfig(device="cpu"), CodecConfig(slots=1, step=kind))
    assert isinstance(engine._decoder, StaticDecoder) is (kind == "static")
