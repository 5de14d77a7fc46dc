"""All stages in one process, without Ray: for parity, tests and benchmarks on a bare machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.codec.engine import CodecEngine
from chroma_models.config import BackboneConfig, CodecConfig, DecoderConfig, ReasonerConfig, TorchConfig
from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.engine.decoder_engine import FusedDecoder
from chroma_models.engine.warm_up import warm_up
from chroma_models.loading import fingerprint, load_backbone, load_codec, load_decoder
from chroma_models.reasoner import ReasonerEngine, make_reasoner
from chroma_models.reasoner.prompts import PromptBuilder
from chroma_models.stages.backbone import BackboneStage
from chroma_models.stages.codec import CodecStage


@dataclass(frozen=True)
class Pipeline:
    """reasoner -> backbone (decoder fused) -> codec. speak through `codec`."""

    checkpoint: Checkpoint
    reasoner: ReasonerEngine
    backbone: BackboneStage
    codec: CodecStage

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        checkpoint: Checkpoint,
        torch: TorchConfig,
        *,
        reasoner: ReasonerConfig,
        backbone: BackboneConfig | None = None,
        codec: CodecConfig | None = None,
        positions: Literal["published", "contiguous"] = "published",
    ) -> AsyncIterator["Pipeline"]:
        """Engines started and warm; everything is stopped on the way out."""
        decoder = DecoderConfig(positions=positions)
        codec_config = codec or CodecConfig()
        thinker = make_reasoner(checkpoint, reasoner, torch)
        depth = FusedDecoder(load_decoder(checkpoint, torch, decoder))
        spine = BackboneEngine(load_backbone(checkpoint, torch), depth, backbone or BackboneConfig(), fused=True)
        mimi: CodecEngine = load_codec(checkpoint, torch, codec_config)
        prompts = PromptBuilder(checkpoint.folder, checkpoint.architecture)
        await thinker.start()
        await spine.start()
        await mimi.start()
        try:
            await warm_up(spine)
            mark = fingerprint(checkpoint, torch, decoder)
            stage = BackboneStage(spine, thinker, prompts.voice_prompt, mark)
            yield cls(checkpoint, thinker, stage, CodecStage(mimi, stage, checkpoint.digest))
        finally:
            await mimi.stop()
            await spine.stop()
            await thinker.stop()
