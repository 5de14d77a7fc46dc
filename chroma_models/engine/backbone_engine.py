"""Continuous batching of turns through the Backbone: slots, admission and outboxes around the step loop."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from chroma_models.backbone import Backbone, check_codes
from chroma_models.config import BackboneConfig
from chroma_models.engine.admission import Admission
from chroma_models.engine.decoder_engine import FrameDecoder
from chroma_models.engine.outbox import Outbox
from chroma_models.engine.slots import Rank, Slot, SlotPool
from chroma_models.engine.step import FrameStep
from chroma_models.engine.step_log import StepLog
from chroma_models.engine.step_loop import Mail, StepLoop
from chroma_models.errors import InvalidRequest, Overloaded, PromptTooLong, StageUnavailable, TurnTimeout
from chroma_models.interleave import Windows, prompt_positions
from chroma_models.types import Frame, TextStep, Turn

log = logging.getLogger(__name__)

SHORTEST_WINDOW_FRAMES = 50  # what a voice must leave of the positions: four seconds of reply to go on from


class BackboneEngine:
    """Feed text steps in, take frames out; call from one event loop. The work is done in StepLoop's thread."""

    def __init__(self, backbone: Backbone, decoder: FrameDecoder, config: BackboneConfig, *, fused: bool) -> None:
        self.backbone = backbone
        self.loop = StepLoop(backbone, decoder, config, fused=fused, deliver=self._mailed, died=self._lost)
        self.ran = StepLog()
        self._pool = SlotPool(config.slots + config.reserved_slots, config.reserved_slots)
        self._admission = Admission(self.loop.times, self.loop.round_s)
        self._outboxes: dict[Slot, Outbox] = {}
        self._tickets: dict[Slot, object] = {}  # under which Admission knows the turns that hold slots
        self._events: asyncio.AbstractEventLoop | None = None
        self._gone: StageUnavailable | None = None  # set once no turn can run here any more

    @property
    def config(self) -> BackboneConfig:
        return self.loop.config

    @config.setter
    def config(self, config: BackboneConfig) -> None:
        """Limits change while running; sizes are those the engine was built with."""
        self.loop.config = config

    @property
    def step(self) -> FrameStep:
        return self.loop.step

    @property
    def slots_held(self) -> int:
        return len(self._pool.held)

    @property
    def steps(self) -> int:
        return self.loop.steps

    @property
    def step_rows(self) -> int:
        return self.loop.step_rows

    @property
    def step_s(self) -> float:
        return self.loop.step_s

    @property
    def prefill_positions(self) -> int:
        return self.loop.prefill_positions

    @property
    def load(self) -> float:
        """Share of real time that the realtime turns need, by the forecast."""
        return self._admission.load()

    async def start(self) -> None:
        self._events = asyncio.get_running_loop()
        self.loop.start()

    async def stop(self) -> None:
        """Turns that still run end with StageUnavailable."""
        self._end_everything(StageUnavailable("The Backbone is stopping.", 1.0))
        await asyncio.to_thread(self.loop.stop)

    def check(self) -> None:
        """Deep health. Raises StageUnavailable when the step loop died, or has hung longer than stall_timeout_s."""
        if not self.loop.alive:
            raise StageUnavailable("The Backbone's step loop is not running.", 1.0)
        since = self.loop.busy_since
        if since is not None and time.monotonic() - since > self.config.stall_timeout_s:
            raise StageUnavailable("The Backbone's step loop has stalled.", 1.0)

    @asynccontextmanager
    async def slot(self, turn: Turn, text_tokens: Sequence[int], frames: Sequence[Frame] = ()) -> AsyncIterator[Outbox]:
        """Hold a slot for a turn and prefill its voice prompt, and the frames it already has when it is resumed.

        text_tokens  the voice's transcript, tokenized
        frames       all frames so far, from 0; of frames older than the window (Windows, at most half the positions)
                     the text steps may have lost their rows
        Yields the outbox its frames arrive in. Raises PromptTooLong; Overloaded after admit_timeout_s, or at once where
        the forecast sees no room by then; StageUnavailable when the engine has stopped. The slot is free again when the
        context is left, when the turn outlives its time, or when its outbox stays over its limit.
        """
        positions = self._check(turn, text_tokens, frames)
        slot = await self._admit(turn, tuple(text_tokens), positions, resumed=bool(frames))
        config = self.config
        outbox = Outbox(slot, config.outbox_frames, config.stall_timeout_s)
        outbox.on_overflow = lambda: self._free(slot)
        self._outboxes[slot] = outbox
        assert self._events is not None
        limit_s = min(turn.deadline_s, config.max_turn_s)
        timer = self._events.call_later(limit_s, self._expire, outbox)
        try:
            if self._gone is not None:
                raise self._gone
            self.loop.post(lambda: self.loop.open(slot, turn, tuple(text_tokens), tuple(frames)))
            yield outbox
        finally:
            timer.cancel()
            del self._outboxes[slot]
            self._free(slot)

    def feed(self, slot: Slot, steps: Sequence[TextStep]) -> None:
        """Text steps for a turn, in order."""
        self.loop.post(lambda: self.loop.feed(slot, list(steps)))

    def end_text(self, slot: Slot) -> None:
        """No more text steps will come, though im_end was not among them."""
        self.loop.post(lambda: self.loop.cut_text(slot))

    def _check(self, turn: Turn, text_tokens: Sequence[int], frames: Sequence[Frame]) -> int:
        """Positions to prefill. Raises InvalidVoice, PromptTooLong, InvalidRequest."""
        check_codes(turn.voice.codes, self.backbone.architecture.codebook_size)
        if frames:
            check_codes(b"".join(frame.codes for frame in frames), self.backbone.architecture.codebook_size)
            if any(frame.index != i for i, frame in enumerate(frames)):
                raise InvalidRequest("The frames of a turn's progress are numbered from 0 without a gap.", "progress")
        prompt = prompt_positions(len(text_tokens), turn.voice.frames)
        windows = Windows(prompt, self.backbone.positions)
        if windows.frames < SHORTEST_WINDOW_FRAMES:
            raise PromptTooLong(
                f"The voice takes {prompt} of the Backbone's {self.backbone.positions} positions: "
                "use a shorter clip and transcript.",
                "voice",
            )
        return prompt + 2 * (len(frames) - windows.start(len(frames)))

    async def _admit(self, turn: Turn, text_tokens: tuple[int, ...], positions: int, *, resumed: bool) -> Slot:
        if self._gone is not None:
            raise self._gone
        if (text_tokens, turn.voice.codes) in self.loop.voices:
            positions -= prompt_positions(len(text_tokens), turn.voice.frames)
        realtime, config = turn.pace == "realtime", self.config
        window = Windows(prompt_positions(len(text_tokens), turn.voice.frames), self.backbone.positions).frames
        rolls = turn.limits.max_frames > window
        ticket = object()

        def fits() -> bool:
            return self._admission.fits(
                positions,
                realtime=realtime,
                resumed=resumed,
                max_load=config.max_load,
                patience_s=config.admit_timeout_s,
            )

        def claim() -> bool:
            if not fits():
                return False
            self._admission.entered(ticket, positions, turn.limits.max_frames, realtime=realtime, rolls=rolls)
            return True

        too_many = "One more turn would slow the others down."
        if not fits():
            end_s = self._admission.next_end_s()
            if end_s is not None and end_s > config.admit_timeout_s:
                raise Overloaded(too_many, self._admission.retry_after_s())
        rank = Rank.RESUMED if resumed else Rank.REALTIME if realtime else Rank.FAST
        try:
            slot = await self._pool.acquire(turn.id, config.admit_timeout_s, rank, claim, turn.share)
        except BaseException as error:
            self._admission.left(ticket)
            if isinstance(error, Overloaded):
                message = error.message if fits() else too_many
                raise Overloaded(message, self._admission.retry_after_s()) from None
            raise
        self._tickets[slot] = ticket
        return slot

    def _free(self, slot: Slot) -> None:
        """The slot's end, whichever of its ends comes first; the others do nothing."""
        ticket = self._tickets.pop(slot, None)
        if ticket is not None:
            self.loop.post(lambda: self.loop.close(slot))
            self._admission.left(ticket)
            self._pool.release(slot)

    def _expire(self, outbox: Outbox) -> None:
        outbox.fail(TurnTimeout("The turn took longer than it may."))
        self._free(outbox.slot)

    # -- from the step loop's thread ---------------------------------------------------------------------------

    def _mailed(self, mail: list[Mail]) -> None:
        loop, ran = self.loop, self.ran
        for left in range(loop.steps - ran.steps, 0, -1):  # one, unless a step before it brought nobody anything
            ran.add((loop.step_s - ran.busy_s) / left, (loop.step_rows - ran.rows) // left)
        self._call(lambda: self._deliver(mail))

    def _lost(self, error: Exception) -> None:
        lost = error if isinstance(error, StageUnavailable) else StageUnavailable(str(error), 1.0)
        self._call(lambda: self._end_everything(lost))

    def _call(self, callback: Callable[[], None]) -> None:
        assert self._events is not None
        try:
            self._events.call_soon_threadsafe(callback)
        except RuntimeError:  # the event loop is closed, and everyone who waited in it is gone
            log.warning("the step loop outlived its event loop")

    def _deliver(self, mail: list[Mail]) -> None:
        for slot, item in mail:
            outbox = self._outboxes.get(slot)  # a turn that hung up has none; its row's next owner is another slot
            if outbox is not None:
                if isinstance(item, Frame):
                    self._admission.heard(self._tickets.get(slot), 1)
                outbox.put(item)

    def _end_everything(self, error: StageUnavailable) -> None:
        self._gone = self._gone or error
        for outbox in self._outboxes.values():
            outbox.fail(self._gone)
