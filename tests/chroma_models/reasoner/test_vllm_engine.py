"""The vLLM Reasoner against the torch one, on one shared engine: its tap gives the rows that were computed."""

import asyncio
import dataclasses
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from safetensors.torch import load_file
from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.engine.slots import SlotPool
from chroma_models.errors import Overloaded, PromptTooLong, StageUnavailable
from chroma_models.reasoner import make_reasoner
from chroma_models.reasoner.torch_engine import TorchReasoner
from chroma_models.types import Admitted
from tests.chroma_models.reasoner.conversations import (
    CONVERSATIONS,
    FP32,
    SMALL,
    Heard,
    golden_turn,
    listen,
    message,
    said,
    turn,
)

pytest.importorskip("vllm", reason="vLLM is not installed: the torch Reasoner is what runs here")

from chroma_models.reasoner.vllm_engine import VllmReasoner

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


async def test_sampled_replies_equal_the_torch_engines_in_any_company(
    vllm: VllmReasoner, oracle: TorchReasoner
) -> None:
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
        assert [(s.index, s.token, s.text) for s in rest.steps] == [
            (s.index, s.token, s.text) for s in whole.steps[spoken:]
        ]
        same(rest, await listen(oracle, t, whole.tokens[:spoken]))


async def test_control_tokens_spoken_before_are_no_placeholders(
    tiny: Path, vllm: VllmReasoner, oracle: TorchReasoner
) -> None:
    architecture = Checkpoint.open(tiny).architecture
    for name in ("two clips", "text only"):
        t, after = turn("odd", CONVERSATIONS[name]), [5, architecture.audio_token, architecture.text_start]
        same(await listen(vllm, t, after), await listen(oracle, t, after))


async def test_a_prefix_from_the_cache_gives_the_same_rows(vllm: VllmReasoner, oracle: TorchReasoner) -> None:
    first = turn("first", (*CONVERSATIONS["history"], message("assistant", said("Yes."))))
    second = turn("second", (*first.messages, message("user", said("And now?"))))
    await listen(vllm, first)
    again = await listen(vllm, second)
    assert again.end.usage.cached_tokens > 0
    same(again, await listen(oracle, second))
    stranger = dataclasses.replace(second, affinity="someone else")
    assert (await listen(vllm, stranger)).end.usage.cached_tokens == 0


async def test_a_history_read_ahead_is_found_and_changes_no_word(vllm: VllmReasoner, oracle: TorchReasoner) -> None:
    asked = dataclasses.replace(turn("asked", CONVERSATIONS["history"]), affinity="read ahead")
    await vllm.warm(asked)
    heard = await listen(vllm, asked)
    assert heard.end.usage.cached_tokens > 0
    same(heard, await listen(oracle, asked))


@pytest.fixture
def talkative(vllm: VllmReasoner, monkeypatch: pytest.MonkeyPatch) -> VllmReasoner:
    """The same engine, but replies end by their budget alone."""
    monkeypatch.setattr(vllm, "_im_end", vllm._checkpoint.architecture.text_start)
    return vllm


async def test_leaving_at_any_moment_leaves_nothing_and_harms_nobody(talkative: VllmReasoner) -> None:
    t = turn("stays", CONVERSATIONS["history"], tokens=60)
    wanted = await listen(talkative, t)
    stays = asyncio.create_task(listen(talkative, t))
    for leave_after in (0, 1, 2, 3, 5) * 3:
        async with aclosing(talkative.steps(turn("leaves", CONVERSATIONS["two clips"], tokens=500))) as items:
            for _ in range(leave_after):
                await anext(items)
    same(await stays, wanted)
    await nothing_left(talkative)


async def test_cancelled_tasks_leave_nothing(talkative: VllmReasoner) -> None:
    tasks = [
        asyncio.create_task(listen(talkative, turn(f"{i}", CONVERSATIONS["history"], tokens=500))) for i in range(12)
    ]
    for i, task in enumerate(tasks):
        await asyncio.sleep(0.006 * (i % 4))
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await nothing_left(talkative)
    assert len((await listen(talkative, turn("next", CONVERSATIONS["text only"]))).steps) == 16


async def test_limits_are_said_out_loud(talkative: VllmReasoner, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = CONVERSATIONS["long text"]
    length = len(talkative.prompts.build(messages).ids)
    cut = await listen(talkative, turn("budget", messages, tokens=3))
    full = await listen(talkative, turn("positions", messages, tokens=1024))
    assert (len(cut.steps), cut.end.reason) == (3, "max_text_tokens")
    assert (len(full.steps), full.end.reason) == (SMALL.max_model_len - length, "positions")
    with pytest.raises(PromptTooLong):
        await listen(talkative, turn("too long", (*messages, *messages)))
    monkeypatch.setattr(talkative, "_slots", SlotPool(1))
    monkeypatch.setattr(talkative, "config", SMALL.model_copy(update={"admit_timeout_s": 0.05}))
    async with aclosing(talkative.steps(turn("only", messages, tokens=400))) as items:
        await anext(items)
        with pytest.raises(Overloaded):
            await listen(talkative, turn("second", messages))
    await nothing_left(talkative)


async def test_steps_come_one_by_one_at_first_and_in_lists_later(talkative: VllmReasoner) -> None:
    heard = await listen(talkative, turn("lists", CONVERSATIONS["text only"], tokens=400))
    lists = [item for item in heard.items if isinstance(item, list)]
    assert len(lists[0]) < max(map(len, lists))
    assert max(map(len, lists)) > 3
    assert len(lists) < 200


Rows = list[Tensor | None]
BREAKAGES: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "no rows": (lambda rows: [None for _ in rows], "without a row"),
    "rows of before the norm": (lambda rows: [3 * row for row in rows if row is not None], "mean square"),
    "rows cut short": (lambda rows: [row[:-1] for row in rows if row is not None], "row 0 is"),
    "no numbers": (lambda rows: [row * float("nan") for row in rows if row is not None], "not finite"),
    "scrambled rows": (lambda rows: [row.flip(0) for row in rows if row is not None], "mean square|output head"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_tap_fails_the_self_test(
    vllm: VllmReasoner, monkeypatch: pytest.MonkeyPatch, breakage: str
) -> None:
    await vllm.self_test()
    broken, complaint = BREAKAGES[breakage]
    processor = vllm._llm.output_processor
    inner = processor.process_outputs

    def process_outputs(outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        for output, row in zip(outputs, broken([output.pooling_output for output in outputs]), strict=True):
            output.pooling_output = row
        return inner(outputs, *args, **kwargs)

    monkeypatch.setattr(processor, "process_outputs", process_outputs)
    with pytest.raises(StageUnavailable, match=complaint):
        await vllm.self_test()
    monkeypatch.undo()
    await vllm.self_test()
    await nothing_left(vllm)


async def test_rows_swapped_between_two_turns_fail_the_self_test(
    vllm: VllmReasoner, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = vllm._llm.output_processor
    inner = processor.process_outputs
    swapped = 0

    def process_outputs(outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal swapped
        rows = deque(output.pooling_output for output in outputs)
        rows.rotate(1)
        swapped += len(outputs) > 1
        for output, row in zip(outputs, rows, strict=True):
            output.pooling_output = row
        return inner(outputs, *args, **kwargs)

    monkeypatch.setattr(processor, "process_outputs", process_outputs)
    with pytest.raises(StageUnavailable, match="output head"):
        await vllm.self_test()
    assert swapped


async def test_a_lost_row_fails_the_turn_and_not_its_neighbour(
    vllm: VllmReasoner, oracle: TorchReasoner, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = vllm._llm.output_processor
    inner = processor.process_outputs

    def process_outputs(outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        for output in outputs:
            if output.request_id.startswith("loser"):
                output.pooling_output = None
        return inner(outputs, *args, **kwargs)

    monkeypatch.setattr(processor, "process_outputs", process_outputs)
    kept = turn("keeper", CONVERSATIONS["one question"])
    lost, heard = await asyncio.gather(
        listen(vllm, turn("loser", CONVERSATIONS["text only"])), listen(vllm, kept), return_exceptions=True
    )
    assert isinstance(lost, StageUnavailable)
    assert "hidden row" in str(lost)
    assert isinstance(heard, Heard)
    same(heard, await listen(oracle, kept))
    await nothing_left(vllm)


async def test_a_stalled_engine_fails_its_check(talkative: VllmReasoner, monkeypatch: pytest.MonkeyPatch) -> None:
    talkative.check()
    patience = {"stall_timeout_s": 0.05, "first_token_timeout_s": 0.1}
    monkeypatch.setattr(talkative, "config", SMALL.model_copy(update=patience))
    monkeypatch.setattr(
        talkative._llm.output_processor,
        "process_outputs",
        lambda *_, **__: SimpleNamespace(request_outputs=[], reqs_to_abort=[]),
    )
    async with aclosing(talkative.steps(turn("mute", CONVERSATIONS["text only"]))) as items:
        await anext(items)
        await asyncio.sleep(0.2)
        with pytest.raises(StageUnavailable, match="no step"):
            talkative.check()
    await nothing_left(talkative)
    with pytest.raises(StageUnavailable, match="no step"):
        talkative.check()  # the turn gave up, but nobody has been answered since
    monkeypatch.undo()
    await listen(talkative, turn("answered", CONVERSATIONS["text only"]))
    talkative.check()


@pytest_asyncio.fixture(loop_scope="module")
async def golden_engine(goldens: Path) -> AsyncIterator[VllmReasoner]:
    """A second engine, on the reference's own checkpoint with a head of its own and an end of speech."""
    engine = VllmReasoner(Checkpoint.open(goldens / "C" / "checkpoint"), SMALL, FP32)
    await engine.start()
    yield engine
    await engine.stop()


async def test_goldens_come_out_and_a_killed_engine_is_noticed(goldens: Path, golden_engine: VllmReasoner) -> None:
    engine, folder = golden_engine, goldens / "C"
    for row, heard in enumerate(await asyncio.gather(*(listen(engine, golden_turn(folder, r)) for r in (0, 1)))):
        wanted = load_file(folder / f"b1_row{row}.safetensors")
        assert heard.tokens == wanted["out.thinker_tokens"][0].tolist()
        assert float((heard.rows - wanted["out.thinker_hidden"][0]).abs().max()) < 1e-4

    async with aclosing(engine.steps(turn("unlucky", CONVERSATIONS["history"], tokens=600))) as items:
        await anext(items)
        for process in engine._llm.engine_core.resources.engine_manager.processes:
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(StageUnavailable):
            await drain(items)
    with pytest.raises(StageUnavailable):
        engine.check()
    with pytest.raises(StageUnavailable):
        await listen(engine, turn("late", CONVERSATIONS["text only"]))
    assert engine.requests_running == 0
    assert engine._folder is not None
    model_folder = engine._folder.name
    await engine.stop()
    assert not os.path.exists(model_folder)


async def drain(items: AsyncIterator[object]) -> None:
    async for _ in items:
        await asyncio.sleep(0)
