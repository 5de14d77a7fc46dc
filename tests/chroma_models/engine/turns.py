"""Random turns for the engine tests, and what the oracle says of them."""

import asyncio
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.reference import Reference
from chroma_models.types import CODEBOOKS, EncodedVoice, Finished, Frame, Limits, Sampling, TextStep, Turn

TIE = 1e-4  # where the oracle's two best logits are closer than this, rounding may decide


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


async def collect(
    engine: BackboneEngine, s: Scripted, *, chunks: tuple[int, ...] = (), leave_after: int | None = None, done: int = 0
) -> tuple[list[Frame], Finished | None]:
    """Run a turn, its text arriving in chunks of the given sizes with the loop turning in between."""
    resumed = frames_of(s)[:done] if done else []
    got: list[Frame] = []
    async with engine.slot(s.turn, s.transcript, resumed) as outbox:

        async def speak() -> None:
            rest = s.steps[sum(f.step is not None for f in resumed) :]
            for size in chunks:
                engine.feed(outbox.slot, rest[:size])
                rest = rest[size:]
                await asyncio.sleep(0.002)
            engine.feed(outbox.slot, rest)

        task = asyncio.create_task(speak())
        try:
            while True:
                item = await outbox.take(5.0)
                if isinstance(item, Finished):
                    return got, item
                assert item, "the engine fell silent"
                got += item
                if leave_after is not None and len(got) >= leave_after:
                    return got, None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def frames_of(s: Scripted) -> list[Frame]:
    """The oracle's frames as the engine would have delivered them."""
    steps = iter(s.steps)
    return [
        Frame(i, np.array(codes, np.int16).tobytes(), next(steps, None) if i % 2 == 0 else None)
        for i, (codes, _) in enumerate(s.expected)
    ]


def check(got: list[Frame], s: Scripted, *, start: int = 0) -> None:
    """Codes equal the oracle's up to its first near-tie; indices count up; each text step is where it was spoken."""
    want = frames_of(s)[start:]
    tie = next((i for i, (_, margin) in enumerate(s.expected[start:]) if margin < TIE), None)
    limit = len(want) if tie is None or s.turn.sampling.temperature else tie
    assert got[:limit] == want[:limit][: len(got)]
