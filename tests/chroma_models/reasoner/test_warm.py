"""Reading while the user speaks changes no word, and saves the work it claims to."""

from pathlib import Path

import numpy as np
import pytest
import torch

from chroma_models.reasoner.mel import Mel, Samples
from chroma_models.types import Audio, Message
from tests.chroma_models.reasoner.conversations import Heard, listen, message, speech, turn
from tests.chroma_models.reasoner.test_torch_engine import talkative

SECOND = 16_000


def clip(samples: Samples) -> Audio:
    return Audio(samples.tobytes(), "float32")


def asked(samples: Samples, name: str = "asked") -> tuple[Message, ...]:
    return (message("user", clip(samples)),)


def rising(seconds: float) -> Samples:
    """Ever louder: each moment moves the floor that normalisation sets for all before it."""
    samples = speech(seconds, 3)
    return (samples * np.linspace(1e-4, 1.0, len(samples)) ** 2).astype(np.float32)


QUESTIONS = {"even": speech(7.3, 1), "rising": rising(9.0), "whole blocks": speech(8.0, 2), "short": speech(1.0, 4)}


def same(one: Heard, other: Heard) -> None:
    assert one.tokens == other.tokens
    assert float((one.rows - other.rows).abs().max()) < 1e-5


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_question_overheard_is_answered_as_one_that_was_not(tiny: Path, name: str) -> None:
    samples = QUESTIONS[name]
    async with talkative(tiny) as engine:
        cold = await listen(engine, turn("cold", asked(samples)))
    async with talkative(tiny) as engine:
        for end in range(SECOND // 2, len(samples), SECOND // 2):
            await engine.warm(turn("warm", asked(samples[:end])))
        same(await listen(engine, turn("asked", asked(samples))), cold)


async def test_blocks_that_were_overheard_are_not_encoded_again(tiny: Path) -> None:
    samples = QUESTIONS["even"]
    async with talkative(tiny) as engine:
        await engine.warm(turn("warm", asked(samples[: 7 * SECOND])))
        assert engine.blocks.encoded == 3
        await listen(engine, turn("asked", asked(samples)))
        assert (engine.blocks.encoded, engine.blocks.found) == (3, 3)


async def test_a_louder_end_makes_quiet_blocks_be_encoded_again(tiny: Path) -> None:
    samples = speech(6.5, 1, 1e-4)
    samples[-SECOND // 2 :] = speech(0.5, 2, 0.9)
    async with talkative(tiny) as engine:
        await engine.warm(turn("warm", asked(samples[: 6 * SECOND])))
        before = engine.blocks.encoded
        await listen(engine, turn("asked", asked(samples)))
        assert engine.blocks.encoded > before


async def test_warming_takes_no_slot_and_harms_no_turn(tiny: Path) -> None:
    async with talkative(tiny) as engine:
        await engine.warm(turn("nothing yet", asked(np.zeros(10, np.float32))))
        await engine.warm(turn("silence", asked(np.zeros(5 * SECOND, np.float32))))
        assert engine.requests_running == 0
        assert (await listen(engine, turn("asked", asked(QUESTIONS["short"])))).tokens


def test_settled_frames_are_those_of_the_longer_clip(tiny: Path) -> None:
    mel = Mel(tiny)
    samples = speech(5.0, 8)
    whole = mel.features(samples)
    for end in (SECOND, 2 * SECOND + 77, 4 * SECOND - 1):
        settled = mel.settled_frames(end)
        part = mel.features(samples[:end])
        assert settled <= part.shape[1]
        floor = torch.maximum(part[:, :settled], whole.max() - 2.0)  # 8 of log10, over the scale's 4
        assert torch.equal(floor, torch.maximum(whole[:, :settled], whole.max() - 2.0))
        assert settled >= part.shape[1] - 2
