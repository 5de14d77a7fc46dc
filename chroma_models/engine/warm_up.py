"""A real turn through the Backbone's engine before anyone else's, so that readiness means something."""

import time

import numpy as np

from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.errors import StageUnavailable
from chroma_models.types import CODEBOOKS, EncodedVoice, Finished, Limits, Sampling, TextStep, Turn

FRAMES = 6
LONGEST_S = 60.0


async def warm_up(engine: BackboneEngine) -> None:
    """Prefill, steps of 1, 2 and 3 positions, greedy and sampled, and the Decoder. Raises what goes wrong."""
    backbone = engine.backbone
    row = np.zeros(backbone.hidden, np.float32).tobytes()
    voice = EncodedVoice("", np.ones((4, CODEBOOKS), np.int16).tobytes(), "warm-up")
    for temperature in (0.0, 0.7):
        turn = Turn(
            id="warm-up",
            affinity="warm-up",
            messages=(),
            voice=voice,
            sampling=Sampling(seed=1, temperature=temperature),
            limits=Limits(max_reply_s=FRAMES / 12.5),
            pace="fast",
        )
        async with engine.slot(turn, [0]) as outbox:
            engine.feed(outbox.slot, [TextStep(i, 0, row, "") for i in range(FRAMES)])
            ends_at = time.monotonic() + LONGEST_S
            while not isinstance(await outbox.take(1.0), Finished):
                if time.monotonic() > ends_at:
                    raise StageUnavailable("The Backbone's warm-up turn did not end within a minute.")
