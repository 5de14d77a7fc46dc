"""Random turns for the engine tests, and what the oracle says of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.reference import Reference
from chroma_models.types import CODEBOOKS, EncodedVoice, Limits, Sampling, TextStep, Turn


@dataclass
class Scripted:
    """A turn whose Reasoner is a script: random rows and tokens."""

    turn: Turn
    transcript: list[int]
    steps: list[TextStep]
    reference: Reference

    @cached_property
    def expected(self) -> list[tuple[list[int], float]]:
        """(codes, smallest margin) of every frame, by the slow oracle."""
        codes = np.frombuffer(self.turn.voice.codes, np.int16).reshape(-1, CODEBOOKS)
        rows = torch.stack([torch.frombuffer(bytearray(s.row), dtype=torch.float32) for s in self.steps])
        tokens = [s.token for s in self.steps]
        generated = self.reference.generate(
            self.transcript, codes, rows, tokens, self.turn.sampling, self.turn.limits.max_frames
        )
        return list(generated)


def scripted(
    checkpoint: Checkpoint, reference: Reference, seed: int, *, frames: int = 12, temperature: float = 0.0
) -> Scripted:
    rng = np.random.default_rng(seed)
    a = checkpoint.architecture
    voice = rng.integers(0, a.codebook_size, (int(rng.integers(1, 9)), CODEBOOKS)).astype(np.int16)
    transcript = rng.integers(0, a.text_vocab, int(rng.integers(1, 7))).tolist()
    count = int(rng.integers(1, 8))
    words = [t for t in rng.integers(0, a.text_vocab, 64).tolist() if t != a.im_end]
    tokens = [*words[:count], a.im_end]
    rows = rng.standard_normal((len(tokens), a.backbone.hidden)).astype(np.float32)
    steps = [TextStep(i, t, rows[i].tobytes(), f"w{i}") for i, t in enumerate(tokens)]
    turn = Turn(
        id=f"turn-{seed}",
        affinity="a",
        messages=(),
        voice=EncodedVoice("", voice.tobytes(), str(seed)),
        sampling=Sampling(seed=seed, temperature=temperature, top_k=int(rng.integers(0, 12))),
        limits=Limits(max_reply_s=frames / 12.5),
        pace="fast",
    )
    return Scripted(turn, transcript, steps, reference)
