"""The vLLM Reasoner against the torch one, on one shared engine: what its hidden-state tap gives is what was computed."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import Overloaded, PromptTooLong, StageUnavailable
from chroma_models.reasoner import make_reasoner
from chroma_models.reasoner.torch_engine import TorchReasoner
from chroma_models.types import Admitted, TextStep
from tests.chroma_models.reasoner.conversations import CONVERSATIONS, FP32, SMALL, Heard, listen, message, said, turn

pytest.importorskip("vllm", reason="vLLM is not installed: the torch Reasoner is what runs here")

from chroma_models.reasoner.vllm_engine import VllmReasoner  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vllm(tiny: Path) -> AsyncIterator[VllmReasoner]:
    engine = make_reasoner(Checkpoint.open(tiny), SMALL, FP32)
    assert isinstance(engine, VllmReasoner)
    await engine.start()
    yield engine
    await engine.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def oracle(tiny: Path) -> AsyncIterator[TorchReasoner]:
    engine = TorchReasoner(Checkpoint.open(tiny), SMALL, FP32)
    await engine.start()
    yield engine
    await engine.stop()


def same(ours: Heard, wanted: Heard) -> None:
    assert ours.tokens == wanted.tokens
    assert float((ours.rows - wanted.rows).abs().max()) < 1e-4
    assert [step.text for step in ours.steps] == [step.text for step in wanted.steps]
    assert [step.index for step in ours.steps] == [step.index for step in wanted.steps]
    assert ours.end.reason == wanted.end.reason
    assert ours.end.usage.prompt_tokens == wanted.end.usage.prompt_tokens


async def nothing_left(engine: VllmReasoner) -> None:
    """The engine core answers an abort in its own time; what the parent holds is gone at once."""
    assert engine.requests_running == 0
    assert engine._rows == {}
    assert engine._pumps == set()
    assert engine._llm.output_processor.get_num_unfinished_requests() == 0


async def test_every_conversation_at_once_equals_the_torch_engine(vllm: VllmReasoner, oracle: TorchReasoner) -> None:
    turns = [turn(name, messages) for name, messages in CONVERSATIONS.items()]
    assert len(turns) >= 6
    ours = await asyncio.gather(*(listen(vllm, t) for t in turns))
    for t, heard in zip(turns, ours, strict=True):
        same(heard, await listen(oracle, t))
        assert isinstance(heard.items[0], Admitted)
        assert heard.items[0].fingerprint == oracle.fingerprint
    await nothing_left(vllm)


async def test_sampled_replies_equal_the_torch_engines_in_any_company(vllm: VllmReasoner, oracle: TorchReasoner) -> None:
    turns = [
        turn(name, messages, temperature=temperature, seed=i)
        for i, (name, messages) in enumerate(CONVERSATIONS.items())
        for temperature in (0.0, 0.7, 1.4)
    ]
    ours = await asyncio.gather(*(listen(vllm, t) for t in turns[::2]), *(listen(vllm, t) for t in turns[1::2]))
    for t, heard in zip([*turns[::2], *turns[1::2]], ours, strict=True):
        same(heard, await listen(oracle, t))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
async def test_a_reply_goes_on_where_it_broke_off(
    vllm: VllmReasoner, oracle: TorchReasoner, temperature: float
) -> None:
    t = turn("resumed", CONVERSATIONS["history"], temperature=temperature)
    whole = await listen(vllm, t)
    for spoken in (1, len(whole.steps) // 2):
        rest = await listen(vllm, t, whole.tokens[:spoken])
        assert [(s.index, s.token, s.text) for s in rest.steps] == [(s.index, s.token, s.text) for s in whole.steps[spoken:]]
        same(rest, await listen(oracle, t, whole.tokens[:spoken]))


async def test_control_tokens_spoken_before_are_no_placeholders(vllm: VllmReasoner, oracle: TorchReasoner) -> None:
    t = turn("odd", CONVERSATIONS["two clips"])
    audio = Checkpoint.open(vllm.prompts_folder).architecture.audio_token if False else vllm._audio_token
    after = [5, audio, 7]
    same(await listen(vllm, t, after), await listen(oracle, t, after))
