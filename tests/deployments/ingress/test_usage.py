"""What a conversation is billed for."""

import numpy as np

from chroma_models.reasoner.mel import audio_tokens as placeholders
from chroma_models.types import LISTEN_RATE_HZ, Audio, Message
from deployments.ingress.openai_reply import audio_tokens


def test_a_clip_counts_the_same_in_either_encoding_and_as_many_tokens_as_the_reasoner_reads() -> None:
    for samples in (3_200, LISTEN_RATE_HZ, 3 * LISTEN_RATE_HZ + 77):
        coarse = Audio(np.zeros(samples, "<i2").tobytes())
        fine = Audio(np.zeros(samples, "<f4").tobytes(), "float32")
        expected = placeholders(-(-samples // 160))
        assert audio_tokens([Message("user", (coarse,))]) == expected
        assert audio_tokens([Message("user", (fine,))]) == expected
