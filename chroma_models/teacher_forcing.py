"""Backbone states under frames that were given, not chosen: what parity compares."""

from collections.abc import Sequence

import torch
from torch import Tensor

from chroma_models.backbone import Backbone
from chroma_models.engine.kv_cache import KvCache
from chroma_models.interleave import segment_positions, wants_pair
from chroma_models.types import CODEBOOKS, EncodedVoice, Frame, TextStep


def teacher_forced(
    backbone: Backbone, text_tokens: Sequence[int], voice: EncodedVoice, steps: Sequence[TextStep], codes: Tensor
) -> tuple[Tensor, Tensor]:
    """The states and the codebook-0 logits (whole vocabulary) that predict each given frame.

    codes    int64 [frames, CODEBOOKS]
    returns  [frames, hidden], [frames, vocab]
    """
    packed = codes.to(torch.int16).numpy()
    waiting = iter(steps)
    frames: list[Frame] = []
    ended = False
    ends: list[int] = []
    length = 0
    for i in range(len(packed)):
        step = next(waiting) if wants_pair(i) and not ended else None
        ended = ended or (step is not None and step.token == backbone.architecture.im_end)
        frames.append(Frame(i, packed[i].reshape(CODEBOOKS).tobytes(), step))
        length += segment_positions(i, step is not None)
        ends.append(length - 1)
    prompt = backbone.embed_voice(text_tokens, voice)
    sequence = torch.cat([prompt, backbone.embed_progress(frames)])
    cache = KvCache(backbone.stack, 1, sequence.shape[0])
    states = cache.prefill(backbone.stack, 0, 0, sequence)
    hidden = states[torch.tensor(ends) + prompt.shape[0]]
    return hidden, hidden @ backbone.head
