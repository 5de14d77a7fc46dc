"""What the audio encoder hears: log-mel features of one clip, without the reference's padding to the maximum."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import WhisperFeatureExtractor

from chroma_models.errors import CheckpointError
from chroma_models.types import LISTEN_RATE_HZ

Samples = NDArray[np.float32]  # mono at LISTEN_RATE_HZ, -1..1


class Mel:
    """The checkpoint's own Whisper extractor, run on a clip as long as it is.

    The reference pads every clip with zeros to the extractor's maximum, 300 s, and throws the padding's frames away.
    They count for one thing: the loudest value of the clip scales it, and a frame that reaches past the end of the
    clip may hold it. n_fft zeros keep every such frame, so the first frames are the reference's: bit for bit, or but
    for rounding where the CPU's product of a shorter matrix adds up in another order.
    """

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError when preprocessor_config.json is absent or describes another sampling rate."""
        try:
            extractor = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except (OSError, json.JSONDecodeError, TypeError) as error:
            raise CheckpointError(f"{folder / 'preprocessor_config.json'} cannot be used: {error}.") from error
        if extractor.sampling_rate != LISTEN_RATE_HZ:
            raise CheckpointError(f"The feature extractor wants {extractor.sampling_rate} Hz, not {LISTEN_RATE_HZ}.")
        self.extractor = extractor
        self.max_samples: int = extractor.n_samples
        self._hop: int = extractor.hop_length
        self._n_fft: int = extractor.n_fft

    def cut(self, samples: Samples) -> Samples:
        """As much of a clip as the model hears. The reference cuts longer clips without a word, too."""
        return samples[: self.max_samples]

    def frames(self, samples: int) -> int:
        """Mel frames of a clip of that many samples, cut."""
        return -(-min(samples, self.max_samples) // self._hop)

    def settled_frames(self, samples: int) -> int:
        """Mel frames of a clip so far that lie wholly in it: only a louder moment can still change them."""
        return max(0, (min(samples, self.max_samples) - self._n_fft // 2) // self._hop + 1)

    def features(self, samples: Samples) -> Tensor:
        """float32 [mel bins, frames] of one clip."""
        samples = self.cut(samples)
        zeros = min(self._n_fft, self.max_samples - len(samples))
        padded = np.pad(samples, (0, zeros))
        # The public call pads, batches and masks; the method behind it is the transform alone.
        mel = self.extractor._torch_extract_fbank_features(padded[None])[0]
        return torch.from_numpy(mel[:, : self.frames(len(samples))].copy())


def audio_tokens(mel_frames: int) -> int:
    """Placeholders, and rows out of the audio encoder, of a clip: 25 a second. 0 for a clip too short to hear.

    Source: Qwen2.5-Omni, _get_feat_extract_output_lengths.
    """
    return max(0, ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1)
