"""The audio encoder of Qwen2.5-Omni, as transformers has it, filled from a checkpoint."""

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder, SinusoidsPositionEmbedding

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import CheckpointError

PREFIX = "thinker.audio_tower"


class AudioEncoder:
    """Log-mel features of one clip in, the rows that stand at its placeholders out."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        """Raises CheckpointError when transformers' module has parameters that the checkpoint does not."""
        config = Qwen2_5OmniAudioEncoderConfig(**checkpoint.architecture.audio_encoder)
        config._attn_implementation = "sdpa"
        with torch.device("meta"):  # full size is 640 M parameters: never draw them at random first
            tower = Qwen2_5OmniAudioEncoder(config)
        tower.audio_bos_eos_token = nn.Identity()  # published, and used by nothing
        tower.positional_embedding = SinusoidsPositionEmbedding(config.max_source_positions, config.d_model)
        source = checkpoint.source(PREFIX, device, dtype)
        state = {name: source(name) for name, _ in tower.named_parameters()}
        tower.load_state_dict(state, strict=False, assign=True)
        left = [name for name, value in (*tower.named_parameters(), *tower.named_buffers()) if value.is_meta]
        if left:
            raise CheckpointError(f"{checkpoint.folder} lacks parts of the audio encoder: {', '.join(left)}.")
        self._tower = tower.to(device).eval()
        self._device, self._dtype = device, dtype

    @torch.inference_mode()
    def encode(self, features: Tensor) -> Tensor:
        """float32 [mel bins, frames] -> [audio_tokens(frames), hidden] in the encoder's dtype, on its device."""
        length = torch.tensor([features.shape[1]], device=self._device)
        after_cnn, _ = self._tower._get_feat_extract_output_lengths(length)
        encoded = self._tower(features.to(self._device, self._dtype), feature_lens=length, aftercnn_lens=after_cnn)
        rows: Tensor = encoded.last_hidden_state
        return rows
