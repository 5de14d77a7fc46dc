"""The Reasoner in plain torch: the oracle of vLLM's hidden-state tap, and the engine where vLLM is not installed."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import ReasonerConfig, TorchConfig
from chroma_models.engine.kv_cache import KvCache
from chroma_models.engine.slots import Slot, SlotPool
from chroma_models.engine.step_log import StepLog
from chroma_models.errors import ChromaError, StageUnavailable
from chroma_models.layers import Stack
from chroma_models.loading import device_of, dtype_of, set_threads
from chroma_models.reasoner.audio_encoder import AudioEncoder
from chroma_models.reasoner.heard_blocks import HeardBlocks
from chroma_models.reasoner.prompts import PromptBuilder
from chroma_models.reasoner.reply import Reply
from chroma_models.reasoner.row_check import row_bytes
from chroma_models.sampling import TEXT, RowSampling, choose
from chroma_models.types import Admitted, Finished, TextStep, Turn

PREFILL_CHUNK = 256  # positions read between two steps of the running turns
RETRY_AFTER_S = 5.0


@dataclass(eq=False)
class Row:
    """A turn on its KV row: first its prompt is read, in chunks, then it steps."""

    slot: Slot
    reply: Reply
    features: deque[Tensor]  # of clips not yet encoded
    heard: list[Tensor] = field(default_factory=list)
    prompt: Tensor | None = None  # [positions, hidden], once all clips are heard
    length: int = 0  # positions in the cache
    last: int = -1  # the token to feed next
    made: int = 0

    @property
    def reading(self) -> bool:
        return self.made == 0


class TorchReasoner:
    """Continuous batching over KV rows in a thread of its own, with chunked prefill between steps."""

    def __init__(self, checkpoint: Checkpoint, config: ReasonerConfig, torch: TorchConfig) -> None:
        self.config = config
        self._checkpoint, self._torch = checkpoint, torch
        self._device, self._dtype = device_of(torch), dtype_of(torch)
        self.fingerprint = f"{checkpoint.digest}-{str(self._dtype).removeprefix('torch.')}"
        self.prompts = PromptBuilder(
            checkpoint.folder, checkpoint.architecture, config.max_model_len, config.max_audio_parts
        )
        self._im_end = checkpoint.architecture.im_end
        self._block_frames = 2 * int(checkpoint.architecture.audio_encoder["n_window"])
        self._slots = SlotPool(config.slots)
        self.ran = StepLog()
        self._arrivals: deque[Row] = deque()
        self._overheard: deque[tuple[Tensor, asyncio.Future[None]]] = deque()  # features of what is still being said
        self._wake = threading.Condition()
        self._stopping = False
        self._died: BaseException | None = None
        self._progress = time.monotonic()
        self._thread: threading.Thread | None = None

    @property
    def requests_running(self) -> int:
        return len(self._slots.held)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._load)
        self._thread = threading.Thread(target=self._run, name="reasoner", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Turns still running end with StageUnavailable."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def check(self) -> None:
        if self._died is not None or self._thread is None or not self._thread.is_alive():
            raise StageUnavailable("The Reasoner's step loop is not running.", RETRY_AFTER_S)
        longest_s = max(self.config.stall_timeout_s, self.config.first_token_timeout_s)
        if self.requests_running and time.monotonic() - self._progress > longest_s:
            raise StageUnavailable(f"The Reasoner made no step for {longest_s:g} s.", RETRY_AFTER_S)

    async def steps(
        self, turn: Turn, after: Sequence[int] = ()
    ) -> AsyncGenerator[Admitted | list[TextStep] | Finished]:
        """See ReasonerEngine."""
        if self._died is not None or self._stopping:
            raise StageUnavailable("The Reasoner is not running.", RETRY_AFTER_S)
        prompt = await asyncio.to_thread(self.prompts.build, turn.messages)
        features = await asyncio.to_thread(lambda: deque(self.prompts.mel.features(c.samples) for c in prompt.clips))
        reply = Reply(turn, prompt, after, self.prompts, self.config, self._im_end)
        if not reply.over:  # else nothing is to come, and no slot is needed
            self._admit(
                Row(await self._slots.acquire(turn.id, self.config.admit_timeout_s, share=turn.share), reply, features)
            )
        try:
            yield Admitted(self.fingerprint, len(prompt.ids))
            while not isinstance(item := await reply.take(), Finished):
                yield item
            yield item
        finally:
            if reply.budget:
                self._cancel(reply)
                await reply.gone.wait()

    async def warm(self, turn: Turn) -> None:
        """See ReasonerEngine. The encoder is done with every two seconds that later speech cannot change."""
        try:
            prompt = await asyncio.to_thread(self.prompts.build, turn.messages)
        except ChromaError:
            return  # too short yet, or too long: the turn itself will say so
        for clip in prompt.clips:
            features = await asyncio.to_thread(self.prompts.mel.features, clip.samples)
            settled = self.prompts.mel.settled_frames(len(clip.samples)) // self._block_frames * self._block_frames
            done: asyncio.Future[None] = self._loop.create_future()
            with self._wake:
                if not settled or self._stopping or self._died is not None:
                    continue
                self._overheard.append((features[:, :settled], done))
                self._wake.notify()
            await done

    def _admit(self, row: Row) -> None:
        row.reply.open()
        with self._wake:
            if not self._stopping and self._died is None:
                if self.requests_running == 1:  # else turns that go on arriving would hide a stalled loop
                    self._progress = time.monotonic()
                self._arrivals.append(row)
                self._wake.notify()
                return
        self._deliver([], [row], StageUnavailable("The Reasoner is not running.", RETRY_AFTER_S))

    def _cancel(self, reply: Reply) -> None:
        with self._wake:
            reply.cancelled = True
            self._wake.notify()

    def _deliver(self, steps: list[tuple[Reply, int, bytes]], left: list[Row], error: Exception | None) -> None:
        """In the event loop: what one iteration of the step loop made, and the rows it is done with."""
        for reply, token, row in steps:
            reply.add(token, row)
        for gone in left:
            if error is not None:
                gone.reply.fail(error)
            gone.reply.gone.set()
            self._slots.release(gone.slot)

    # What follows runs in the engine's own thread, apart from _load.

    def _load(self) -> None:
        set_threads(self._torch)
        architecture, checkpoint = self._checkpoint.architecture, self._checkpoint
        model = checkpoint.source("thinker.model", self._device, self._dtype)
        self._stack = Stack(architecture.reasoner, model, self.config.max_model_len)
        self._embedding = model("embed_tokens.weight")
        tied = checkpoint.tied_lm_head
        head = self._embedding if tied else checkpoint.tensor("thinker.lm_head.weight", self._device, self._dtype)
        self._head = head
        self.blocks = HeardBlocks(AudioEncoder(checkpoint, self._device, self._dtype).encode, self._block_frames)
        self._cache = KvCache(self._stack, self.config.slots, self.config.max_model_len)
        self._text_book = torch.tensor([TEXT], device=self._device)

    def _run(self) -> None:
        rows: list[Row] = []
        error: Exception = StageUnavailable("The Reasoner was stopped.", RETRY_AFTER_S)
        try:
            set_threads(self._torch)  # the count belongs to the thread
            while self._gather(rows):
                if rows:
                    self._iterate(rows)
                if not any(row.reading for row in rows):  # whoever waits for an answer goes first
                    self._overhear()
        except Exception as caught:  # whatever it was, nobody may wait for this thread any longer
            self._died = caught
            error = StageUnavailable(f"The Reasoner's step loop died of {type(caught).__name__}.", RETRY_AFTER_S)
            error.__cause__ = caught
        with self._wake:
            self._stopping = True
            rows += self._arrivals
            self._arrivals.clear()
            overheard = list(self._overheard)
            self._overheard.clear()
        self._post([], rows, error)
        for _, done in overheard:
            self._settle(done)

    def _post(self, steps: list[tuple[Reply, int, bytes]], left: list[Row], error: Exception | None = None) -> None:
        if (steps or left) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, steps, left, error)

    def _gather(self, rows: list[Row]) -> bool:
        """Take in arrivals; wait while there is nothing to do. False when it is time to stop."""
        with self._wake:
            while not self._stopping and not self._arrivals and not rows and not self._overheard:
                self._wake.wait()
            rows += self._arrivals
            self._arrivals.clear()
            return not self._stopping

    def _overhear(self) -> None:
        """Encode what one speaker has said so far."""
        with self._wake:
            if not self._overheard:
                return
            features, done = self._overheard.popleft()
        try:
            self.blocks.rows(features)
        finally:
            self._settle(done)

    def _settle(self, done: "asyncio.Future[None]") -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))

    @torch.inference_mode()
    def _iterate(self, rows: list[Row]) -> None:
        """One piece of reading for one turn, one step for all that speak."""
        started = time.perf_counter()
        left = [row for row in rows if row.reply.cancelled]  # read once: a reader may leave at any moment
        rows[:] = sorted((row for row in rows if row not in left), key=lambda row: row.slot.row)
        speaking = [row for row in rows if not row.reading]
        reading = [row for row in rows if row.reading]
        made: list[tuple[Reply, int, bytes]] = []
        if reading:
            row = min(reading, key=lambda row: (row.reply.turn.priority, row.reply.opened))
            hidden = self._read(row)
            if hidden is not None:
                made += self._say([row], hidden)
        if speaking:
            embedded = F.embedding(torch.tensor([[row.last] for row in speaking], device=self._device), self._embedding)
            slots, lengths = [row.slot.row for row in speaking], [row.length for row in speaking]
            hidden = self._cache.step(self._stack, slots, lengths, embedded, [1] * len(speaking))
            for row in speaking:
                row.length += 1
            made += self._say(speaking, hidden)
        done = [row for row in rows if row.made and (row.last == self._im_end or row.made == row.reply.budget)]
        rows[:] = [row for row in rows if row not in done]
        self._progress = time.monotonic()
        if made:
            self.ran.add(time.perf_counter() - started, len(made))
        self._post(made, left + done)

    def _read(self, row: Row) -> Tensor | None:
        """Encode one clip, or prefill one chunk. Gives [1, hidden] once the last position is in."""
        if row.features:
            row.heard.append(self.blocks.rows(row.features.popleft()))
            return None
        if row.prompt is None:
            row.prompt = F.embedding(torch.tensor(row.reply.tokens, device=self._device), self._embedding)
            for start, heard in zip(row.reply.prompt.starts, row.heard, strict=True):
                row.prompt[start : start + len(heard)] = heard
        chunk = row.prompt[row.length : row.length + PREFILL_CHUNK]
        hidden = self._cache.prefill(self._stack, row.slot.row, row.length, chunk)
        row.length += len(chunk)
        return hidden[-1:] if row.length == len(row.prompt) else None

    def _say(self, rows: list[Row], hidden: Tensor) -> list[tuple[Reply, int, bytes]]:
        """Choose each row's next token from its hidden row [rows, hidden]."""
        logits = F.linear(hidden, self._head)
        samplings = [row.reply.turn.sampling for row in rows]
        drawn = [replace(sampling, temperature=sampling.text_temperature, top_k=0) for sampling in samplings]
        indices = [row.reply.first + row.made for row in rows]
        sampling = RowSampling.of(drawn, indices, self._device)
        noise = sampling.noise(self._text_book, logits.shape[-1])
        tokens = choose(logits, sampling, None if noise is None else noise[:, 0]).tolist()
        made = []
        for row, token, vector in zip(rows, tokens, hidden.cpu(), strict=True):
            row.last, row.prompt = token, None
            row.made += 1
            made.append((row.reply, token, row_bytes(vector)))
        return made
