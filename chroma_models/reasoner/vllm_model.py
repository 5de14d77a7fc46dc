"""Chroma's thinker as a vLLM model: transformers' audio tower in front of vLLM's Qwen2, from the checkpoint's own keys.

vLLM's own Qwen2.5-Omni module is not used: it imports torchvision, and builds the vision tower nothing here looks with.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMultiModal, SupportsPP
from vllm.model_executor.models.qwen2_audio import (
    Qwen2AudioDummyInputsBuilder,
    Qwen2AudioMultiModalProcessor,
    Qwen2AudioProcessingInfo,
)
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataParser
from vllm.multimodal.processing import PromptReplacement

from chroma_models.reasoner.mel import Mel, audio_tokens
from chroma_models.types import LISTEN_RATE_HZ

AUDIO_TOKEN = "<|AUDIO|>"


class AudioTextProcessor:
    """What vLLM takes for a transformers processor: ids of a text, features of clips as long as they are."""

    audio_token, audio_bos_token, audio_eos_token = AUDIO_TOKEN, "<|audio_bos|>", "<|audio_eos|>"

    def __init__(self, mel: Mel, tokenizer: Any) -> None:
        self.mel, self.tokenizer = mel, tokenizer
        self.feature_extractor = mel.extractor
        self.audio_token_id = tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)

    def __call__(self, text: str | list[str] | None = None, audio: Any = None, **_: Any) -> BatchFeature:
        data: dict[str, Any] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else text
            data["input_ids"] = torch.tensor([self.tokenizer.encode(t, add_special_tokens=False) for t in texts])
        if audio:
            features = [self.mel.features(samples) for samples in audio]
            data["input_audio_features"] = torch.cat(features, 1)  # [mel bins, frames of all clips]
            data["audio_feature_lengths"] = torch.tensor([f.shape[1] for f in features])
        return BatchFeature(data)


@lru_cache(maxsize=2)
def _mel(folder: str) -> Mel:
    return Mel(Path(folder))


class ThinkerProcessingInfo(Qwen2AudioProcessingInfo):
    def get_hf_config(self) -> Any:
        return self.ctx.get_hf_config().thinker_config

    def get_hf_processor(self, **_: object) -> AudioTextProcessor:
        return AudioTextProcessor(_mel(self.ctx.model_config.model), self.get_tokenizer())

    def get_data_parser(self) -> MultiModalDataParser:
        return MultiModalDataParser(target_sr=LISTEN_RATE_HZ, target_channels=1)

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """The longest clip the extractor keeps. vLLM's encoder budget follows; longer ones would wait for ever."""
        mel = _mel(self.ctx.model_config.model)
        return {"audio": audio_tokens(mel.frames(mel.max_samples))}


class ThinkerMultiModalProcessor(Qwen2AudioMultiModalProcessor):
    def _get_mm_fields_config(self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        lengths = hf_inputs.get("audio_feature_lengths", torch.empty((0,))).flatten()
        return {
            "input_audio_features": MultiModalFieldConfig.flat_from_sizes("audio", lengths, dim=1),
            "audio_feature_lengths": MultiModalFieldConfig.batched("audio", keep_on_cpu=True),
        }

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        placeholder = self.info.get_hf_processor().audio_token_id
        lengths = out_mm_kwargs.get_data().get("audio_feature_lengths")
        counts = [] if lengths is None else [audio_tokens(int(n)) for n in lengths.flatten()]
        return [
            PromptReplacement(
                modality="audio", target=[placeholder], replacement=lambda item: [placeholder] * counts[item]
            )
        ]


@MULTIMODAL_REGISTRY.register_processor(
    ThinkerMultiModalProcessor, info=ThinkerProcessingInfo, dummy_inputs=Qwen2AudioDummyInputsBuilder
)
class ChromaThinkerForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsPP):
    """Audio and text alone make the three M-RoPE axes equal, so positions are the plain ones of Qwen2."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "backbone.": None,
            "decoder.": None,
            "codec_model.": None,
            "thinker.visual.": None,
            "thinker.audio_tower.audio_bos_eos_token.": None,
            "thinker.lm_head.": "language_model.lm_head.",
            "thinker.model.": "language_model.model.",
            "thinker.": "",
        }
    )
    packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}  # noqa: RUF012  vLLM reads a plain class attribute

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return f"<|audio_bos|>{AUDIO_TOKEN}<|audio_eos|>"

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        self.config = config = vllm_config.model_config.hf_config.thinker_config
        self.multimodal_config = vllm_config.model_config.multimodal_config
        marks: Any = self  # SupportsMultiModal's, which torch's types would take for a submodule
        with marks._mark_tower_model(vllm_config, "audio"):
            self.audio_tower = Qwen2_5OmniAudioEncoder(config.audio_config)
            self.audio_tower.audio_bos_eos_token = nn.Identity()  # published, and used by nothing
        with marks._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                prefix=maybe_prefix(prefix, "language_model"),
                hf_config=config.text_config,
                architectures=["Qwen2ForCausalLM"],
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> Sequence[Tensor]:
        features, lengths = kwargs.get("input_audio_features"), kwargs.get("audio_feature_lengths")
        if features is None or lengths is None:
            return []
        lengths = lengths.flatten().to(features.device)
        tower: Any = self.audio_tower
        after_cnn, rows = tower._get_feat_extract_output_lengths(lengths)
        features = features.to(tower.dtype)
        encoded = tower(features, feature_lens=lengths, aftercnn_lens=after_cnn).last_hidden_state
        return tuple(encoded.split(rows.tolist()))

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> Any:
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        logits: Tensor | None = self.language_model.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        loaded: set[str] = AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
        return loaded
