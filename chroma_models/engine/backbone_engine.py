"""Continuous batching of turns through the Backbone, in a thread of its own."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from chroma_models.backbone import Backbone, check_codes, codes_tensor
from chroma_models.config import BackboneConfig
from chroma_models.engine.decoder_engine import FrameDecoder
from chroma_models.engine.outbox import Outbox
from chroma_models.engine.row import Row, due
from chroma_models.engine.slots import Slot, SlotPool
from chroma_models.engine.step import FrameStep
from chroma_models.errors import ChromaError, PromptTooLong, StageUnavailable
from chroma_models.interleave import prompt_positions, segment_positions, spoken_steps
from chroma_models.types import Finished, Frame, TextStep, Turn

log = logging.getLogger(__name__)

TICK_S = 0.08  # rows held for their lead are looked at this often, so that they wake together


@dataclass(frozen=True)
class _Batch:
    rows: list[Row]
    codes: "Future[Tensor]"
    steps: list[TextStep | None]
    started: float


class BackboneEngine:
    """Slots, step loop and outboxes. Feed text steps in, take frames out; call from one event loop.

    The loop: apply what the event loop asked for, prefill at most one chunk, propose (backbone, code 0), hand the
    batch to the decoder, commit. With a split decoder two half-batches are in flight, so one computes here while the
    other is away. A row whose text is late, or whose lead is long enough, sits out and holds nobody.
    """

    def __init__(self, backbone: Backbone, decoder: FrameDecoder, config: BackboneConfig, *, fused: bool) -> None:
        self.backbone, self.config = backbone, config
        self._max_in_flight = 1 if fused else config.half_batches
        self.step = FrameStep(backbone, decoder, config.slots)
        self._rows: dict[int, Row] = {}
        self._in_flight: deque[_Batch] = deque()
        self._pool = SlotPool(config.slots)
        self._outboxes: dict[Slot, Outbox] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mail: list[tuple[Slot, Frame | Finished | Exception]] = []
        self.busy_since: float | None = None  # deep health: the moment the current iteration began, None when idle
        self.steps = 0
        self.step_rows = 0
        self.step_s = 0.0
        self.prefill_positions = 0

    # -- the event loop's side ---------------------------------------------------------------------------------

    @property
    def slots_held(self) -> int:
        return len(self._pool.held)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="backbone-steps", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def check(self) -> None:
        """Deep health. Raises StageUnavailable when the step loop died, or has hung longer than stall_timeout_s."""
        if self._thread is None or not self._thread.is_alive():
            raise StageUnavailable("The Backbone's step loop is not running.", 1.0)
        since = self.busy_since
        if since is not None and time.monotonic() - since > self.config.stall_timeout_s:
            raise StageUnavailable("The Backbone's step loop has stalled.", 1.0)

    @asynccontextmanager
    async def slot(self, turn: Turn, text_tokens: Sequence[int], frames: Sequence[Frame] = ()) -> AsyncIterator[Outbox]:
        """Hold a slot for a turn and prefill its voice prompt, and the frames it already has when it is resumed.

        text_tokens  the voice's transcript, tokenized
        Yields the outbox its frames arrive in. Raises PromptTooLong, or Overloaded after admit_timeout_s.
        """
        for codes in (turn.voice.codes, *(frame.codes for frame in frames)):
            check_codes(codes, self.backbone.architecture.codebook_size)
        positions = prompt_positions(len(text_tokens), turn.voice.frames) + segment_positions(0, pair=True)
        if positions > self.backbone.positions:
            raise PromptTooLong(
                f"The voice takes {positions} of the Backbone's {self.backbone.positions} positions: "
                "use a shorter clip and transcript.",
                "voice",
            )
        slot = await self._pool.acquire(turn.id, self.config.admit_timeout_s)
        outbox = Outbox(slot, self.config.outbox_frames, self.config.stall_timeout_s)
        self._outboxes[slot] = outbox
        try:
            self._post(lambda: self._open(slot, turn, tuple(text_tokens), tuple(frames)))
            yield outbox
        finally:
            del self._outboxes[slot]
            self._post(lambda: self._close(slot))
            self._pool.release(slot)

    def feed(self, slot: Slot, steps: Sequence[TextStep]) -> None:
        """Text steps for a turn, in order."""
        self._post(lambda: self._feed(slot, list(steps)))

    def end_text(self, slot: Slot) -> None:
        """No more text steps will come, though im_end was not among them."""
        self._post(lambda: self._cut_text(slot))

    def _post(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._commands.append(command)
            self._wake.notify()

    def _deliver(self, mail: list[tuple[Slot, Frame | Finished | Exception]]) -> None:
        for slot, item in mail:
            outbox = self._outboxes.get(slot)  # a turn that hung up has none; its row's next owner is another slot
            if outbox is not None:
                outbox.put(item)

    # -- the engine thread's side ------------------------------------------------------------------------------

    def _run(self) -> None:
        if self.backbone.device.type == "cuda":
            torch.cuda.set_device(self.backbone.device)
        while True:
            with self._wake:
                if not self._commands and not self._stopping and not self._work(time.monotonic()):
                    self.busy_since = None
                    self._wake.wait(self._nap_s())
                if self._stopping:
                    return
                commands, self._commands = self._commands, deque()
            self.busy_since = time.monotonic()
            for command in commands:
                command()
            try:
                self._iterate()
            except Exception as error:  # a broken step ends its turns, typed, and the loop goes on
                self._fail_all(error)
            self._send_mail()

    def _work(self, now: float) -> bool:
        return bool(
            self._in_flight
            or any(row.prompt is not None for row in self._rows.values())
            or due(list(self._rows.values()), now, self.config.max_lead_s)
        )

    def _nap_s(self) -> float | None:
        """Until the next tick of the pace clock if a row is held, else until someone calls."""
        if not any(row.held for row in self._rows.values()):
            return None
        return TICK_S - time.monotonic() % TICK_S

    def _iterate(self) -> None:
        prefilling = next((row for row in self._rows.values() if row.prompt is not None), None)
        if prefilling is not None:
            self._prefill(prefilling)
        now = time.monotonic()
        ready = due(list(self._rows.values()), now, self.config.max_lead_s)
        several = self._max_in_flight > 1 and len(self._rows) >= self.config.min_split_rows
        if ready and (not self._in_flight or (several and len(self._in_flight) < self._max_in_flight)):
            if several and not self._in_flight:
                ready.sort(key=lambda row: row.lead_s(now))
                ready = ready[: max(1, -(-len(ready) // self._max_in_flight))]
            self._propose(sorted(ready, key=lambda row: row.slot.row), now)
            if several and len(self._in_flight) < self._max_in_flight:
                return
        if self._in_flight:
            self._commit(self._in_flight.popleft())

    def _prefill(self, row: Row) -> None:
        assert row.prompt is not None
        started = time.perf_counter()
        chunk = row.prompt[: self.config.prefill_chunk]
        self.step.prefill(row.slot.row, row.position, chunk)
        row.position += chunk.shape[0]
        row.prompt = row.prompt[chunk.shape[0] :] if chunk.shape[0] < row.prompt.shape[0] else None
        row.prefill_s += time.perf_counter() - started
        self.prefill_positions += chunk.shape[0]
        if row.prompt is None:
            row.idle_since = time.monotonic()

    def _propose(self, rows: list[Row], now: float) -> None:
        """Send some rows, ascending by slot, through the Backbone and on to the Decoder."""
        rows = [row for row in rows if not self._finish_if_over(row)]
        if not rows:
            return
        started = time.perf_counter()
        steps = [row.steps.popleft() if row.pair_due else None for row in rows]
        codes = self.step.propose(
            [row.slot.row for row in rows],
            [row.position for row in rows],
            [row.frame for row in rows],
            steps,
            [row.turn.sampling for row in rows],
        )
        for row, step in zip(rows, steps, strict=True):
            row.proposed(step, self.backbone.architecture.im_end, now)
        self._in_flight.append(_Batch(rows, codes, steps, started))

    def _commit(self, batch: _Batch) -> None:
        """Take a batch's codes: into the buffer that feeds the next step, and out to each turn."""
        for row in batch.rows:
            row.in_flight = False
        try:
            codes = batch.codes.result(self.config.stall_timeout_s)
        except TimeoutError as error:
            raise StageUnavailable("The Decoder did not answer in time.", 1.0) from error
        alive = [i for i, row in enumerate(batch.rows) if self._rows.get(row.slot.row) is row]
        if not alive:
            return
        mine = codes if len(alive) == len(batch.rows) else codes[alive]
        host = self.step.commit([batch.rows[i].slot.row for i in alive], mine)
        elapsed, now = time.perf_counter() - batch.started, time.monotonic()
        eos = self.backbone.architecture.codebook_eos
        for i, frame in zip(alive, host, strict=True):
            row = batch.rows[i]
            row.step_s += elapsed
            over = bool((frame[:-1] == eos).all())
            if not (over and frame[-1] == eos):  # a frame of zeros alone is not speech and is dropped
                self._mail.append((row.slot, Frame(row.frame, frame.tobytes(), batch.steps[i])))
                row.spoke(now)
            if over:
                self._finish(row, row.finished("end_of_speech"))
            self._finish_if_over(row)
        self.steps += 1
        self.step_rows += len(alive)
        self.step_s += elapsed

    def _finish_if_over(self, row: Row) -> bool:
        if self._rows.get(row.slot.row) is not row:
            return True
        reason = row.end_reason(self.backbone.positions)
        if reason is None:
            return False
        self._finish(row, row.finished(reason))
        return True

    def _finish(self, row: Row, finished: Finished) -> None:
        self._mail.append((row.slot, finished))
        del self._rows[row.slot.row]

    def _fail_all(self, error: Exception) -> None:
        typed = self._typed(error, "A step of the Backbone failed.")
        self._in_flight.clear()
        for row in self._rows.values():
            self._mail.append((row.slot, typed))
        self._rows.clear()

    def _typed(self, error: Exception, message: str) -> ChromaError:
        """What the turn is told; the words of an unexpected failure are for the log alone."""
        if isinstance(error, ChromaError):
            return error
        log.error("%s", message, exc_info=error)
        typed = StageUnavailable(message, 1.0)
        typed.__cause__ = error
        return typed

    def _send_mail(self) -> None:
        """One call into the event loop per iteration, whatever the number of turns."""
        if self._mail and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, self._mail)
            self._mail = []

    # -- commands, run in the engine thread --------------------------------------------------------------------

    def _open(self, slot: Slot, turn: Turn, text_tokens: tuple[int, ...], frames: tuple[Frame, ...]) -> None:
        try:
            prompt = self.backbone.embed_voice(text_tokens, turn.voice)
            row = Row(slot, turn, prompt, time.monotonic(), prompt.shape[0])
            if frames:
                row.prompt = torch.cat([prompt, self.backbone.embed_progress(frames)])
                row.frame = row.started_frame = len(frames)
                im_end = self.backbone.architecture.im_end
                row.text_ended = any(step.token == im_end for step in spoken_steps(frames))
                self.step.set_codes(slot.row, codes_tensor(frames[-1].codes, self.backbone.device)[0])
            self._rows[slot.row] = row
        except Exception as error:  # this turn's own input is at fault; nobody else notices
            self._mail.append((slot, self._typed(error, "The Backbone could not begin the turn.")))

    def _feed(self, slot: Slot, steps: list[TextStep]) -> None:
        row = self._rows.get(slot.row)
        if row is not None and row.slot is slot:
            row.steps.extend(steps)

    def _cut_text(self, slot: Slot) -> None:
        row = self._rows.get(slot.row)
        if row is not None and row.slot is slot:
            row.text_cut = True
            self._finish_if_over(row)

    def _close(self, slot: Slot) -> None:
        row = self._rows.get(slot.row)
        if row is not None and row.slot is slot:
            del self._rows[slot.row]
