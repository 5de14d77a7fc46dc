"""The Backbone's step loop: rows, prefills and batches in flight, in a thread of its own."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from chroma_models.backbone import Backbone, codes_tensor
from chroma_models.config import BackboneConfig
from chroma_models.engine.cuda_graph import announce
from chroma_models.engine.decoder_engine import FrameDecoder
from chroma_models.engine.row import Row
from chroma_models.engine.scheduler import Plan, Scheduler
from chroma_models.engine.slots import Slot
from chroma_models.engine.static_step import StaticStep, make_step
from chroma_models.engine.step import FrameStep
from chroma_models.engine.step_times import StepTimes
from chroma_models.engine.voice_cache import VoiceCache
from chroma_models.errors import ChromaError, Lost, StageUnavailable
from chroma_models.interleave import Windows, spoken_steps
from chroma_models.types import Finished, Frame, TextStep, Turn

log = logging.getLogger(__name__)

DECODER_STALLS = 2  # of stall_timeout_s: several Decoders may be asked for one step, one after another

Mail = tuple[Slot, Frame | Finished | Exception]


@dataclass(frozen=True)
class _Batch:
    rows: list[Row]
    codes: "Future[Tensor]"
    steps: list[TextStep | None]
    started: float


class StepLoop:
    """Runs commands from the event loop, then one iteration: prefill a portion, propose, hand to the decoder, commit.

    With a split decoder two half-batches are in flight, so one computes here while the other is away; with graphs and
    the decoder here the next step is launched before the last one's codes are read. A row whose text
    is late, or whose lead is long enough, sits out and holds nobody. Who goes when is the Scheduler's.

    deliver  called in this thread with what turns are to get
    died     called in this thread when the loop ends otherwise than by stop(): nobody will get anything any more
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: FrameDecoder,
        config: BackboneConfig,
        *,
        fused: bool,
        deliver: Callable[[list[Mail]], None],
        died: Callable[[Exception], None],
    ) -> None:
        self.backbone, self.config = backbone, config
        self.times = StepTimes()
        self.voices = VoiceCache(config.voice_cache_bytes, config.voice_cache_idle_s)
        self._decoder = decoder
        self.step = make_step(backbone, decoder, config.slots + config.reserved_slots, config.step)
        self._deliver, self._died = deliver, died
        # A pass that keeps its codes on the device need not wait for the host to have read them.
        self._ahead = 1 if fused and isinstance(self.step, StaticStep) else 0
        self._max_in_flight = 1 if fused else config.half_batches
        self._scheduler = Scheduler(self.times)
        self._rows: dict[int, Row] = {}
        self._in_flight: deque[_Batch] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._mail: list[Mail] = []
        self._working_since = 0.0  # when the work that the next commit ends began
        self._prefilled_since = 0  # positions prefilled since then
        self.busy_since: float | None = None  # deep health: the moment the current iteration began, None when idle
        self.steps = 0
        self.step_rows = 0
        self.step_s = 0.0
        self.prefill_positions = 0
        self.rolls = 0

    # -- called from other threads -----------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    def start(self) -> None:
        self._working_since = time.perf_counter()
        self._thread = threading.Thread(target=self._run, name="backbone-steps", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when the iteration at work has ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def post(self, command: Callable[[], None]) -> None:
        """Run one of the commands below in the loop's thread, in order, before its next iteration."""
        with self._wake:
            self._commands.append(command)
            self._wake.notify()

    def round_s(self, rows: int) -> float:
        """What one frame of so many rows takes: they step together, or in halves."""
        parts = self._max_in_flight if rows >= self.config.min_split_rows else 1
        return parts * self.times.step_s(-(-rows // parts))

    # -- commands, run in the loop's thread --------------------------------------------------------------------

    def open(self, slot: Slot, turn: Turn, text_tokens: tuple[int, ...], frames: tuple[Frame, ...]) -> None:
        """Begin a turn: the voice's prompt from the cache or to be prefilled, and the window of a resumed one."""
        try:
            key = (text_tokens, turn.voice.codes)
            prompt = self.backbone.embed_voice(text_tokens, turn.voice)
            windows = Windows(prompt.shape[0], self.backbone.positions)
            row = Row(slot, turn, windows, prompt, voice_key=key, ahead=self._ahead)
            cached = self.voices.get(key)
            if cached is not None:
                self.step.write_prefix(slot.row, cached)
                row.position, row.prompt, row.voice_key = prompt.shape[0], None, None
            if frames:
                row.frame = len(frames)
                row.recent = list(frames[row.windows.start(row.frame) :])
                window = self.backbone.embed_progress(row.recent)
                row.prompt = window if row.prompt is None else torch.cat([row.prompt, window])
                im_end = self.backbone.architecture.im_end
                row.text_ended = any(step.token == im_end for step in spoken_steps(frames))
                self.step.set_codes(slot.row, codes_tensor(frames[-1].codes, self.backbone.device)[0])
            if row.prompt is None:
                row.idle_since = time.monotonic()
            self._rows[slot.row] = row
        except Exception as error:  # this turn's own input is at fault; nobody else notices
            self._mail.append((slot, self._typed(error, "The Backbone could not begin the turn.")))

    def feed(self, slot: Slot, steps: list[TextStep]) -> None:
        row = self._rows.get(slot.row)
        if row is not None and row.slot is slot:
            row.fed_at = row.fed_at or time.monotonic()
            row.steps.extend(steps)

    def cut_text(self, slot: Slot) -> None:
        row = self._rows.get(slot.row)
        if row is not None and row.slot is slot:
            row.text_cut = True
            self._finish_if_over(row)

    def close(self, slot: Slot) -> None:
        row = self._rows.get(slot.row)
        if row is not None and row.slot is slot:
            del self._rows[slot.row]

    # -- the loop ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self.backbone.device.type == "cuda":
                torch.cuda.set_device(self.backbone.device)
            self._prepare()
            while not self._stopping:
                self._turn_over()
        except BaseException as error:  # whatever it was, nobody may wait for a loop that is gone
            self._stopping = True  # not alive any more, though the thread has yet to end
            self._died(self._typed(error, "The Backbone's step loop has died."))

    def _prepare(self) -> None:
        """Capture what can be captured. A device that cannot is served by plain calls, and the log says so."""
        try:
            self.step.prepare(announce("backbone"))
        except Exception as error:
            log.error("graph capture failed; the Backbone goes on with plain calls", exc_info=error)
            self.step = FrameStep(self.backbone, self._decoder, self.config.slots + self.config.reserved_slots)
            self._ahead = 0

    def _turn_over(self) -> None:
        """Commands, then an iteration, or a nap when there is nothing to do."""
        for command in self._take_commands():
            command()
        config = self.config
        plan = self._scheduler.plan(self._rows.values(), time.monotonic(), config.max_lead_s, config.prefill_chunk)
        idle = plan.idle and not self._in_flight
        expires_s = self.voices.expire()
        if not idle:
            self._iterate(plan)
        self._send_mail()
        if idle:
            with self._wake:
                if not self._commands and not self._stopping:
                    self.busy_since = None
                    naps_s = [s for s in (plan.nap_s, expires_s) if s is not None]
                    self._wake.wait(min(naps_s, default=None))
            self._working_since = time.perf_counter()
            self._prefilled_since = 0

    def _take_commands(self) -> deque[Callable[[], None]]:
        with self._wake:
            commands, self._commands = self._commands, deque()
        self.busy_since = time.monotonic()
        return commands

    def _iterate(self, plan: Plan[Row]) -> None:
        if plan.prefill is not None:
            self._prefill(plan.prefill, plan.positions)
            if plan.prefill.ready:  # its first frame need not wait for the next iteration
                plan.step.insert(0, plan.prefill)
        ready = plan.step
        several = self._max_in_flight > 1 and len(self._rows) >= self.config.min_split_rows
        most = self._max_in_flight if several else 1 + self._ahead
        if ready and len(self._in_flight) < most:
            if several and not self._in_flight:
                ready = ready[: max(1, -(-len(ready) // self._max_in_flight))]
            self._propose(sorted(ready, key=lambda row: row.slot.row))
            if len(self._in_flight) < most:
                return
        if self._in_flight:
            self._commit(self._in_flight.popleft())

    def _prefill(self, row: Row, positions: int) -> None:
        assert row.prompt is not None
        started = time.perf_counter()
        chunk = row.prompt[:positions]
        try:
            self.step.prefill(row.slot.row, row.position, chunk)
            row.position += chunk.shape[0]
            row.prompt = row.prompt[chunk.shape[0] :] if chunk.shape[0] < row.prompt.shape[0] else None
            self._keep_voice(row)
        except Exception as error:
            self._fail([row], error, "A prefill of the Backbone failed.")
            return
        row.prefill_s += time.perf_counter() - started
        self.prefill_positions += chunk.shape[0]
        self._prefilled_since += chunk.shape[0]
        if row.prompt is None:
            row.idle_since = time.monotonic()

    def _keep_voice(self, row: Row) -> None:
        """Once the prompt is prefilled, the next turn in this voice need not do it again."""
        if row.voice_key is None or row.position < row.windows.prompt:
            return
        if self.voices.wants(row.voice_key, self.step.prefix_bytes(row.windows.prompt)):
            self.voices.put(row.voice_key, self.step.read_prefix(row.slot.row, row.windows.prompt))
        row.voice_key = None

    def _propose(self, rows: list[Row]) -> None:
        """Send some rows, ascending by slot, through the Backbone and on to the Decoder."""
        rows = [row for row in rows if self._rows.get(row.slot.row) is row and not self._finish_if_over(row)]
        if not rows:
            return
        started, now = time.perf_counter(), time.monotonic()
        steps = [row.steps.popleft() if row.pair_due else None for row in rows]
        try:
            codes = self.step.propose(
                [row.slot.row for row in rows],
                [row.position for row in rows],
                [row.next_frame for row in rows],
                steps,
                [row.turn.sampling for row in rows],
            )
        except Exception as error:
            self._fail(rows, error, "A step of the Backbone failed.")
            return
        for row, step in zip(rows, steps, strict=True):
            row.proposed(step, self.backbone.architecture.im_end, now)
        self._in_flight.append(_Batch(rows, codes, steps, started))

    def _commit(self, batch: _Batch) -> None:
        """Take a batch's codes: into the buffer that feeds the next step, and out to each turn."""
        for row in batch.rows:
            row.in_flight -= 1
        alive = [i for i, row in enumerate(batch.rows) if self._rows.get(row.slot.row) is row]
        if not alive:  # everybody has hung up: nobody waits for the answer
            batch.codes.cancel()
            return
        try:
            codes = batch.codes.result(DECODER_STALLS * self.config.stall_timeout_s)
            mine = codes if len(alive) == len(batch.rows) else codes[alive]
            host = self.step.commit([batch.rows[i].slot.row for i in alive], mine)
        except TimeoutError:
            batch.codes.cancel()
            late = Lost("The Decoder did not answer in time.", 1.0)  # another Backbone may have another one
            self._fail([batch.rows[i] for i in alive], late, late.message)
            return
        except Exception as error:
            self._fail([batch.rows[i] for i in alive], error, "A step of the Backbone failed.")
            return
        elapsed, now = time.perf_counter() - max(batch.started, self._working_since), time.monotonic()
        eos = self.backbone.architecture.codebook_eos
        for i, codes_of_row in zip(alive, host, strict=True):
            row = batch.rows[i]
            row.step_s += elapsed
            over = bool((codes_of_row[:-1] == eos).all())
            if not (over and codes_of_row[-1] == eos):  # a frame of zeros alone is not speech and is dropped
                frame = Frame(row.frame, codes_of_row.tobytes(), batch.steps[i])
                self._mail.append((row.slot, frame))
                row.spoke(frame, now)
            if over:
                self._finish(row, row.finished("end_of_speech"))
            elif not self._finish_if_over(row) and row.windows.rolls(row.frame):
                self._roll(row)
        self._measure(len(batch.rows))
        self.steps += 1
        self.step_rows += len(alive)
        self.step_s += elapsed

    def _roll(self, row: Row) -> None:
        """The slot is full: keep the prompt's positions, feed the recent frames again behind them."""
        try:
            row.forget()
            row.prompt = self.backbone.embed_progress(row.recent)
            row.position = row.windows.prompt
            self.rolls += 1
        except Exception as error:
            self._fail([row], error, "The Backbone could not go on with a long reply.")

    def _measure(self, rows: int) -> None:
        """What ran since the last commit: a step, and perhaps prefills. Right on a GPU too, where both are queued."""
        now = time.perf_counter()
        seconds, self._working_since = now - self._working_since, now
        positions, self._prefilled_since = self._prefilled_since, 0
        if positions == 0:
            self.times.stepped(rows, seconds)
        elif self.times.trusted:
            self.times.prefilled(positions, seconds - self.times.step_s(rows))

    # -- ends --------------------------------------------------------------------------------------------------

    def _finish_if_over(self, row: Row) -> bool:
        if self._rows.get(row.slot.row) is not row:
            return True
        reason = None if row.in_flight else row.end_reason()
        if reason is None:
            return False
        self._finish(row, row.finished(reason))
        return True

    def _finish(self, row: Row, finished: Finished) -> None:
        self._mail.append((row.slot, finished))
        del self._rows[row.slot.row]

    def _fail(self, rows: list[Row], error: Exception, message: str) -> None:
        """A broken step ends its own turns, typed; the loop and everybody else go on."""
        typed = self._typed(error, message)
        for row in rows:
            if self._rows.get(row.slot.row) is row:
                self._mail.append((row.slot, typed))
                del self._rows[row.slot.row]

    def _typed(self, error: BaseException, message: str) -> ChromaError:
        """What the turn is told; the words of an unexpected failure are for the log alone."""
        if isinstance(error, ChromaError):
            return error
        log.error("%s", message, exc_info=error)
        typed = StageUnavailable(message, 1.0)
        typed.__cause__ = error
        return typed

    def _send_mail(self) -> None:
        """One call into the event loop per iteration, whatever the number of turns."""
        if self._mail:
            mail, self._mail = self._mail, []
            self._deliver(mail)
