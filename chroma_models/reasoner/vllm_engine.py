"""The Reasoner on vLLM: token, hidden row and text piece per step, to many turns at once."""

import asyncio
import gc
import tempfile
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import ReasonerConfig, TorchConfig
from chroma_models.engine.slots import Slot, SlotPool
from chroma_models.engine.step_log import StepLog
from chroma_models.errors import ChromaError, StageUnavailable
from chroma_models.loading import device_of, dtype_of
from chroma_models.reasoner.prompts import Prompt, PromptBuilder
from chroma_models.reasoner.reply import Reply
from chroma_models.reasoner.row_check import RowCheck, row_bytes
from chroma_models.reasoner.vllm_config import engine_args, prepare_environment, write_model_folder
from chroma_models.types import FAST_PRIORITY, LISTEN_RATE_HZ, Admitted, Finished, TextStep, Turn

RETRY_AFTER_S = 5.0
PROBES = ("one two three four", "The quick brown fox jumps over the lazy dog. 0123456789")
PROBE_TOKENS = 4


class VllmReasoner:
    """One vLLM engine, and the parent's side of the hidden-state tap.

    A turn is admitted when it gets one of config.slots slots. vLLM runs as many sequences, so an admitted turn is read
    at once, unless its KV cache is full; the caller learns of it before the first token, and can prepare meanwhile.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: ReasonerConfig, torch: TorchConfig, stat_loggers: list[Any] | None = None
    ) -> None:
        self.config = config
        self._checkpoint, self._torch, self._stat_loggers = checkpoint, torch, stat_loggers
        self.fingerprint = f"{checkpoint.digest}-{str(dtype_of(torch)).removeprefix('torch.')}"
        self.prompts = PromptBuilder(
            checkpoint.folder, checkpoint.architecture, config.max_model_len, config.max_audio_parts
        )
        self._im_end = checkpoint.architecture.im_end
        self._slots = SlotPool(config.slots)
        self.ran = StepLog()  # a step's seconds: since the one before, or since there was something to do
        self._pumps: set[asyncio.Task[None]] = set()
        self._rows: dict[str, deque[Tensor]] = {}  # by request id: rows whose tokens vLLM has not handed out yet
        self._silent_s, self._silent_from = 0.0, time.monotonic()  # time with turns running and no output
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._llm: Any = None

    @property
    def requests_running(self) -> int:
        return len(self._slots.held)

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self._launch)
            self._tap(self._llm.output_processor)
            await self.self_test()
        except BaseException as error:
            await self.stop()
            if isinstance(error, ChromaError) or not isinstance(error, Exception):
                raise
            raise StageUnavailable(f"vLLM did not start: {error}", RETRY_AFTER_S) from error

    def _launch(self) -> None:
        prepare_environment(self._torch)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        import chroma_models.reasoner.vllm_sampling  # noqa: F401  here, and not in the event loop at the first turn

        self._folder = tempfile.TemporaryDirectory(prefix="chroma-reasoner-")
        folder = Path(self._folder.name)
        write_model_folder(self._checkpoint, folder)
        args = AsyncEngineArgs(**engine_args(self.config, self._torch, folder))
        config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)
        processor = "RunnerV2TextNoise" if config.use_v2_model_runner else "TextNoise"
        config.model_config.logits_processors = [f"chroma_models.reasoner.vllm_sampling:{processor}"]
        if device_of(self._torch).type == "cpu":
            # vLLM puts a lone CPU worker in a process of its own, to pin its threads, and then the engine spins on a
            # whole core while it waits for it. Nothing is pinned here, so the engine does the work itself.
            config.parallel_config.distributed_executor_backend = "uni"
        self._llm = AsyncLLM.from_vllm_config(config, stat_loggers=self._stat_loggers, disable_log_stats=True)

    async def stop(self) -> None:
        """Turns still running end with StageUnavailable."""
        for pump in list(self._pumps):
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        llm, self._llm = self._llm, None
        if llm is not None:
            if llm.output_handler is not None:
                llm.output_handler.cancel()  # or it reports the engine's end as a failure
            await asyncio.to_thread(llm.shutdown)
            del llm
            gc.collect()  # vLLM's objects hold each other; left to the end of the process they complain in __del__
        if self._folder is not None:
            self._folder.cleanup()

    def _alive(self) -> None:
        if self._llm is None or self._llm.errored:
            raise StageUnavailable("The Reasoner's vLLM engine is not running.", RETRY_AFTER_S)

    def check(self) -> None:
        self._alive()
        longest_s = max(self.config.stall_timeout_s, 0.8 * self.config.first_token_timeout_s)
        silent_s = self._silent_s + (time.monotonic() - self._silent_from if self._pumps else 0.0)
        if silent_s > longest_s:
            raise StageUnavailable(f"The Reasoner made no step for {longest_s:g} s.", RETRY_AFTER_S)

    async def self_test(self) -> None:
        """Prove the tap on two short prompts at once. Raises StageUnavailable with what is wrong."""
        probes = [self._probe(i, self.prompts.voice_prompt(text)) for i, text in enumerate(PROBES)]
        steps = [step for made in await asyncio.gather(*probes) for step in made]
        problem = await asyncio.to_thread(RowCheck(self._checkpoint, self._torch).problem, steps)
        if problem is not None:
            raise StageUnavailable(f"The Reasoner's hidden-state tap failed its self-test: {problem}", RETRY_AFTER_S)

    async def _probe(self, i: int, ids: Sequence[int]) -> list[tuple[int, Tensor | None]]:
        request_id = f"self-test-{i}-{uuid.uuid4().hex}"
        rows = self._rows[request_id] = deque()
        made: list[tuple[int, Tensor | None]] = []
        params = self._params(max_tokens=PROBE_TOKENS)
        try:
            async for output in self._llm.generate({"prompt_token_ids": list(ids)}, params, request_id):
                made += [(token, rows.popleft() if rows else None) for token in output.outputs[0].token_ids]
        finally:
            del self._rows[request_id]
        return made

    async def steps(
        self, turn: Turn, after: Sequence[int] = ()
    ) -> AsyncGenerator[Admitted | list[TextStep] | Finished]:
        """See ReasonerEngine."""
        self._alive()
        prompt = await asyncio.to_thread(self.prompts.build, turn.messages)
        reply = Reply(turn, prompt, after, self.prompts, self.config, self._im_end)
        pump: asyncio.Task[None] | None = None
        if not reply.over:  # else nothing is to come, and no slot is needed
            pump = self._admit(reply, await self._slots.acquire(turn.id, self.config.admit_timeout_s, share=turn.share))
        try:
            yield Admitted(self.fingerprint, len(prompt.ids))
            while not isinstance(item := await reply.take(), Finished):
                yield item
            yield item
        finally:
            if pump is not None:
                pump.cancel()
                await asyncio.wait([pump])

    async def warm(self, turn: Turn) -> None:
        """See ReasonerEngine. Everything before the unfinished clip is read into the prefix cache.

        The clip itself is one item to vLLM, known by the whole of its content, so nothing of it can be kept.
        """
        try:
            self._alive()
            prompt = await asyncio.to_thread(self.prompts.build, turn.messages)
        except ChromaError:
            return
        if not prompt.clips or prompt.starts[-1] == 0:
            return
        settled = Prompt(prompt.ids[: prompt.starts[-1]], prompt.clips[:-1], prompt.starts[:-1])
        request = request_of(Reply(turn, settled, (), self.prompts, self.config, self._im_end))
        async for _ in self._llm.generate(
            request, self._params(max_tokens=1), f"warm-{uuid.uuid4().hex}", priority=FAST_PRIORITY
        ):
            pass

    def _admit(self, reply: Reply, slot: Slot) -> asyncio.Task[None]:
        """The slot is held until vLLM has done with the request, however the reader fares."""
        reply.open()
        pump = asyncio.create_task(self._pump(reply))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumped)
        pump.add_done_callback(lambda _: self._slots.release(slot))
        return pump

    def _pumped(self, pump: "asyncio.Task[None]") -> None:
        """Waiting in vain adds up over turns that come one at a time and give up; only an output clears it."""
        self._pumps.discard(pump)
        if not self._pumps:
            self._silent_s += time.monotonic() - self._silent_from

    async def _pump(self, reply: Reply) -> None:
        """Carry one request's tokens and rows from vLLM to its reply. Cancelling it aborts the request."""
        if len(self._pumps) == 1:
            self._silent_from = time.monotonic()
        request_id = f"{reply.turn.id}-{uuid.uuid4().hex}"
        self._rows[request_id] = deque()
        try:
            await self._carry(reply, request_id)
        except asyncio.CancelledError:
            reply.fail(StageUnavailable("The Reasoner was stopped.", RETRY_AFTER_S))
            raise
        except ChromaError as error:
            reply.fail(error)
        except Exception as error:
            failed = StageUnavailable(f"The Reasoner's engine failed with {type(error).__name__}.", RETRY_AFTER_S)
            failed.__cause__ = error
            reply.fail(failed)
        finally:
            del self._rows[request_id]

    async def _carry(self, reply: Reply, request_id: str) -> None:
        from chroma_models.reasoner.vllm_sampling import noise_args

        rows = self._rows[request_id]
        params = self._params(reply.budget, [self._im_end], noise_args(reply.turn.sampling, reply.first))
        stream = self._llm.generate(request_of(reply), params, request_id, priority=reply.turn.priority)
        async for output in stream:
            reply.cached_tokens = output.num_cached_tokens or 0
            for token in output.outputs[0].token_ids:
                if not rows:
                    raise StageUnavailable("The Reasoner's engine lost a hidden row.", RETRY_AFTER_S)
                reply.add(token, row_bytes(rows.popleft()))
        if not reply.over:  # vLLM gave it up: neither im_end nor the budget ended it
            raise StageUnavailable("The Reasoner's engine gave the turn up.", RETRY_AFTER_S)

    def _params(self, max_tokens: int, stop: Sequence[int] = (), extra: dict[str, Any] | None = None) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0.0,
            max_tokens=max_tokens,
            stop_token_ids=list(stop),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=extra,
        )

    def _tap(self, output_processor: Any) -> None:
        """Take the hidden rows out of vLLM's outputs before vLLM mistakes them for a pooling model's.

        Outputs that the engine merged for a slow reader keep their order, so a queue of rows per request pairs them.
        """
        inner = output_processor.process_outputs

        def process_outputs(outputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
            now = time.monotonic()
            if outputs and self._pumps:
                self.ran.add(now - self._silent_from, len(outputs))
            self._silent_s, self._silent_from = 0.0, now
            for output in outputs:
                row, output.pooling_output = output.pooling_output, None
                state = output_processor.request_states.get(output.request_id)
                rows = None if state is None else self._rows.get(state.external_req_id)
                if rows is not None and row is not None and output.new_token_ids:
                    rows.append(row)
            return inner(outputs, *args, **kwargs)

        output_processor.process_outputs = process_outputs


def request_of(reply: Reply) -> dict[str, Any]:
    """A vLLM prompt: ids with one placeholder per clip, the clips, their content hashes, and the cache's salt."""
    prompt = reply.prompt
    request: dict[str, Any] = {
        "prompt_token_ids": prompt.collapsed + reply.tokens[len(prompt.ids) :],
        "cache_salt": reply.turn.affinity or reply.turn.id,
    }
    if prompt.clips:
        request["multi_modal_data"] = {"audio": [(clip.samples, LISTEN_RATE_HZ) for clip in prompt.clips]}
        request["multi_modal_uuids"] = {"audio": [clip.digest for clip in prompt.clips]}
    return request
