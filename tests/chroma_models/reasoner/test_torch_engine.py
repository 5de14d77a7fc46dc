"""The torch Reasoner against the public reference's outputs and against transformers, alone and in company."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import ReasonerConfig
from chroma_models.errors import InvalidRequest, Overloaded, PromptTooLong, StageUnavailable, TurnTimeout
from chroma_models.reasoner import make_reasoner
from chroma_models.reasoner.reply import Reply
from chroma_models.reasoner.torch_engine import Row, TorchReasoner
from chroma_models.types import Admitted, Finished, TextStep, Turn
from tests.chroma_models.reasoner.conversations import CONVERSATIONS, FP32, SMALL, Heard, golden_turn, listen, turn


@asynccontextmanager
async def running(folder: Path, config: ReasonerConfig = SMALL) -> AsyncIterator[TorchReasoner]:
    engine = make_reasoner(Checkpoint.open(folder), config.model_copy(update={"engine": "torch"}), FP32)
    assert isinstance(engine, TorchReasoner)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def talkative(folder: Path, config: ReasonerConfig = SMALL) -> AsyncIterator[TorchReasoner]:
    """An engine whose replies end by their budget alone."""
    async with running(folder, config) as engine:
        engine._im_end = -1
        yield engine


async def golden_turns(engine: TorchReasoner, golden: Path) -> list[Heard]:
    """Both rows of a golden, each as its single run, the second joining the first late."""

    async def one(row: int) -> Heard:
        await asyncio.sleep(0.01 * row)
        return await listen(engine, golden_turn(golden, row))

    return list(await asyncio.gather(one(0), one(1)))


async def test_goldens_come_out_token_by_token_and_row_by_row(golden: Path) -> None:
    async with running(golden / "checkpoint") as engine:
        for row, heard in enumerate(await golden_turns(engine, golden)):
            wanted = load_file(golden / f"b1_row{row}.safetensors")
            tokens = wanted["out.thinker_tokens"][0].tolist()
            assert heard.tokens == tokens
            assert float((heard.rows - wanted["out.thinker_hidden"][0]).abs().max()) < 1e-5
            ended = tokens[-1] == engine._im_end
            assert heard.end.reason == ("end_of_speech" if ended else "max_text_tokens")


def thinker(folder: Path) -> Qwen2_5OmniThinkerForConditionalGeneration:
    config = Qwen2_5OmniThinkerConfig(**json.loads((folder / "config.json").read_text())["thinker_config"])
    model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=torch.float32).eval()
    weights = load_file(folder / "model.safetensors")
    mine = {name.removeprefix("thinker."): w for name, w in weights.items() if name.startswith("thinker.")}
    missing, unexpected = model.load_state_dict(mine, strict=False)
    assert not unexpected
    assert not [name for name in missing if not name.startswith(("visual.", "audio_tower.audio_bos_eos"))]
    return model


@torch.no_grad()
def oracle_rows(
    model: Qwen2_5OmniThinkerForConditionalGeneration, engine: TorchReasoner, turn: Turn, tokens: list[int]
) -> tuple[Tensor, Tensor]:
    """transformers reads prompt and reply in one pass, the clips padded as it likes them.

    returns hidden rows and logits behind each token of the reply
    """
    prompt = engine.prompts.build(turn.messages)
    ids = torch.tensor([[*prompt.ids, *tokens]])
    audio = {}
    if prompt.clips:
        made = engine.prompts.mel.extractor(
            [clip.samples for clip in prompt.clips],
            sampling_rate=16_000,
            padding="max_length",
            max_length=16_000 * 6,
            return_attention_mask=True,
            return_tensors="pt",
        )
        audio = {"input_features": made["input_features"], "feature_attention_mask": made["attention_mask"]}
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, output_hidden_states=True, **audio)
    behind = slice(len(prompt.ids) - 1, len(prompt.ids) - 1 + len(tokens))
    return out.hidden_states[-1][0, behind], out.logits[0, behind]


async def test_every_conversation_reads_as_in_transformers_all_at_once(tiny: Path) -> None:
    model = thinker(tiny)
    async with running(tiny) as engine:
        turns = [turn(name, messages) for name, messages in CONVERSATIONS.items()]
        heard = await asyncio.gather(*(listen(engine, t) for t in turns))
        for t, h in zip(turns, heard, strict=True):
            rows, logits = oracle_rows(model, engine, t, h.tokens)
            assert float((h.rows - rows).abs().max()) < 1e-5, t.id
            assert h.tokens == logits.argmax(-1).tolist(), t.id
            assert [step.index for step in h.steps] == list(range(len(h.steps)))
            assert isinstance(h.items[0], Admitted)
            assert h.end.usage.prompt_tokens == len(engine.prompts.build(t.messages).ids)
            assert h.end.usage.text_tokens == len(h.steps)


async def test_company_and_lateness_change_no_word(tiny: Path) -> None:
    """Greedy and sampled replies alone, and again with others that come and go."""
    async with talkative(tiny, SMALL.model_copy(update={"slots": 3})) as engine:
        temperatures = [0.0, 0.8, 1.3] * 2
        turns = [
            turn(name, messages, temperature=temperature, seed=i, tokens=10 + 6 * i)
            for i, ((name, messages), temperature) in enumerate(zip(CONVERSATIONS.items(), temperatures, strict=True))
        ]
        alone = [await listen(engine, t) for t in turns]

        async def late(i: int) -> Heard:
            await asyncio.sleep(0.007 * (5 - i))
            return await listen(engine, turns[i])

        company = await asyncio.gather(*map(late, range(len(turns))))
        for a, b in zip(alone, company, strict=True):
            assert a.tokens == b.tokens
            assert float((a.rows - b.rows).abs().max()) < 1e-5
        assert engine.requests_running == 0


async def test_seeds_differ_and_temperature_zero_ignores_them(tiny: Path) -> None:
    async with running(tiny) as engine:
        messages = CONVERSATIONS["text only"]
        replies = [(await listen(engine, turn("s", messages, temperature=1.0, seed=s))).tokens for s in range(4)]
        greedy = [(await listen(engine, turn("g", messages, seed=s))).tokens for s in range(2)]
        assert len({tuple(r) for r in replies}) == 4
        assert greedy[0] == greedy[1]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
async def test_a_reply_goes_on_where_it_broke_off(tiny: Path, temperature: float) -> None:
    async with running(tiny) as engine:
        for name in ("history", "text only"):
            t = turn(name, CONVERSATIONS[name], temperature=temperature)
            whole = await listen(engine, t)
            for spoken in (1, len(whole.steps) // 2, len(whole.steps) - 1):
                rest = await listen(engine, t, whole.tokens[:spoken])
                assert rest.tokens == whole.tokens[spoken:]
                assert [step.index for step in rest.steps] == list(range(spoken, len(whole.steps)))
                assert [step.text for step in rest.steps] == [step.text for step in whole.steps[spoken:]]
                assert float((rest.rows - whole.rows[spoken:]).abs().max()) < 1e-5
                assert rest.end.reason == whole.end.reason


async def test_a_reply_that_was_complete_ends_at_once(tiny: Path) -> None:
    async with running(tiny) as engine:
        messages = CONVERSATIONS["text only"]
        ended = await listen(engine, turn("e", messages), [5, engine._im_end])
        spent = await listen(engine, turn("m", messages, tokens=3), [5, 6, 7])
        assert (ended.steps, ended.end.reason) == ([], "end_of_speech")
        assert (spent.steps, spent.end.reason) == ([], "max_text_tokens")
        with pytest.raises(InvalidRequest, match="spoken"):
            await listen(engine, turn("x", messages), [10**6])


async def test_positions_are_a_limit_said_out_loud(tiny: Path) -> None:
    messages = CONVERSATIONS["text only"]
    async with talkative(tiny) as engine:
        length = len(engine.prompts.build(messages).ids)
    async with talkative(tiny, SMALL.model_copy(update={"max_model_len": length + 5})) as engine:
        heard = await listen(engine, turn("p", messages))
        assert (len(heard.steps), heard.end.reason) == (5, "positions")
    async with talkative(tiny, SMALL.model_copy(update={"max_model_len": length})) as engine:
        with pytest.raises(PromptTooLong):
            await listen(engine, turn("p", messages))
        assert engine.requests_running == 0


async def test_a_closed_stream_leaves_nothing_and_harms_nobody(tiny: Path) -> None:
    async with talkative(tiny, SMALL.model_copy(update={"slots": 2})) as engine:
        t = turn("stays", CONVERSATIONS["history"], tokens=60)
        wanted = await listen(engine, t)
        stays = asyncio.create_task(listen(engine, t))
        for leave_after in (0, 1, 2, 3) * 3:
            async with aclosing(engine.steps(turn("leaves", CONVERSATIONS["two clips"], tokens=800))) as items:
                for _ in range(leave_after):
                    await anext(items)
        assert (await stays).tokens == wanted.tokens
        assert engine.requests_running == 0


async def test_a_cancelled_task_leaves_nothing(tiny: Path) -> None:
    async with talkative(tiny) as engine:
        tasks = [
            asyncio.create_task(listen(engine, turn(f"{i}", CONVERSATIONS["history"], tokens=800))) for i in range(12)
        ]
        for i, task in enumerate(tasks):
            await asyncio.sleep(0.004 * (i % 3))
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert engine.requests_running == 0
        assert len((await listen(engine, turn("next", CONVERSATIONS["text only"]))).steps) == 16


class LeftBetweenTwoLooks(Reply):
    """Its reader leaves right after the step loop has looked for the first time."""

    @property
    def cancelled(self) -> bool:
        seen, self.left = self.left, self.left or threading.current_thread().name == "reasoner"
        return seen

    @cancelled.setter
    def cancelled(self, left: bool) -> None:
        self.left = left


async def test_a_reader_who_leaves_while_the_loop_looks_is_let_go(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chroma_models.reasoner.torch_engine.Reply", LeftBetweenTwoLooks)
    async with running(tiny) as engine, asyncio.timeout(60):
        async with aclosing(engine.steps(turn("left", CONVERSATIONS["text only"]))) as items:
            await anext(items)
            await anext(items)  # nothing for a while: the loop has looked
        assert engine.requests_running == 0


async def test_a_full_engine_says_so_in_time(tiny: Path) -> None:
    async with talkative(tiny, SMALL.model_copy(update={"slots": 1, "admit_timeout_s": 0.05})) as engine:
        async with aclosing(engine.steps(turn("first", CONVERSATIONS["text only"], tokens=900))) as items:
            await anext(items)
            with pytest.raises(Overloaded) as refused:
                await listen(engine, turn("second", CONVERSATIONS["text only"]))
            assert refused.value.retry_after_s
        assert len((await listen(engine, turn("third", CONVERSATIONS["text only"]))).steps) == 16


async def test_a_mute_engine_sends_keep_alives_fails_its_check_and_ends_the_turn(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.model_copy(update={"idle_s": 0.02, "first_token_timeout_s": 0.2, "stall_timeout_s": 0.1})
    async with running(tiny, config) as engine:

        def mute(rows: list[Row]) -> None:
            time.sleep(0.005)
            left = [row for row in rows if row.reply.cancelled]
            engine._post([], left)
            rows[:] = [row for row in rows if row not in left]

        monkeypatch.setattr(engine, "_iterate", mute)
        heard = Heard()
        stream = engine.steps(turn("mute", CONVERSATIONS["text only"]))
        with pytest.raises(TurnTimeout, match="first word"):
            await collect(stream, heard)
        assert heard.items.count([]) >= 1  # a busy machine sends fewer than the ten that fit
        with pytest.raises(StageUnavailable, match="no step"):
            await check_beside_a_turn(engine)
        with pytest.raises(StageUnavailable, match="no step"):
            await check_while_turns_arrive(engine)
        assert engine.requests_running == 0


async def collect(stream: AsyncIterator[Admitted | list[TextStep] | Finished], heard: Heard) -> None:
    async for item in stream:
        heard.items.append(item)


async def check_beside_a_turn(engine: TorchReasoner) -> None:
    """check() once a turn has waited longer than anybody should."""
    async with aclosing(engine.steps(turn("mute too", CONVERSATIONS["text only"]))) as items:
        await anext(items)
        await asyncio.sleep(0.3)
        engine.check()


async def check_while_turns_arrive(engine: TorchReasoner) -> None:
    """check() in the moment when another turn has come to the one that waits."""
    async with aclosing(engine.steps(turn("mute", CONVERSATIONS["text only"]))) as items:
        await anext(items)
        await asyncio.sleep(0.3)
        async with aclosing(engine.steps(turn("new", CONVERSATIONS["text only"]))) as others:
            await anext(others)
            engine.check()


async def test_a_dead_step_loop_fails_its_turns_and_its_check(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talkative(tiny) as engine:
        engine.check()

        def broken(*_: object) -> Tensor:
            raise ValueError("no")

        monkeypatch.setattr(engine._cache, "step", broken)
        with pytest.raises(StageUnavailable, match="ValueError"):
            await listen(engine, turn("unlucky", CONVERSATIONS["text only"]))
        with pytest.raises(StageUnavailable):
            engine.check()
        with pytest.raises(StageUnavailable):
            await listen(engine, turn("late", CONVERSATIONS["text only"]))
        assert engine.requests_running == 0


async def test_stopping_ends_the_turns_under_way(tiny: Path) -> None:
    async with talkative(tiny) as engine:
        task = asyncio.create_task(listen(engine, turn("long", CONVERSATIONS["history"], tokens=900)))
        await asyncio.sleep(0.05)
        await engine.stop()
        with pytest.raises(StageUnavailable, match="stopped"):
            await task
        assert engine.requests_running == 0
