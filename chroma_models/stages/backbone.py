"""The Backbone stage: pulls text steps from the Reasoner, gives out frames."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from chroma_models.engine.backbone_engine import BackboneEngine
from chroma_models.engine.outbox import Outbox
from chroma_models.errors import ChromaError, StageUnavailable, TurnTimeout
from chroma_models.interleave import spoken_steps
from chroma_models.stages.streams import ItemPacer
from chroma_models.stages.survival import Losses, check_goes_on, surviving
from chroma_models.types import Admitted, Finished, Frame, Progress, TextStep, Turn, Usage

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 1.0

StepItem = Admitted | list[TextStep] | Finished
FrameItem = Admitted | list[Frame] | Finished


class Reasoner(Protocol):
    """The stage before: an engine in this process, or a handle to a deployment."""

    def steps(self, turn: Turn, after: Sequence[int] = ()) -> AsyncGenerator[StepItem, None]: ...


class BackboneStage:
    """One running turn is one frames() call: the slot, and the Reasoner's stream, live exactly as long."""

    def __init__(
        self,
        engine: BackboneEngine,
        reasoner: Reasoner,
        tokenize_transcript: Callable[[str], Sequence[int]],
        fingerprint: str,
    ) -> None:
        self.engine = engine
        self.fingerprint = fingerprint
        self._reasoner = reasoner
        self._tokenize = tokenize_transcript
        self.resumed = 0  # Reasoner streams that were opened again

    async def frames(self, turn: Turn, progress: Progress | None = None) -> AsyncGenerator[FrameItem, None]:
        """Frames of a turn, from where progress ends. Raises typed errors; closing it frees everything upstream.

        progress  all frames so far. Text steps of frames older than half the Backbone's positions are read for their
                  tokens alone and may come without rows; the rows of later ones are needed.
        """
        done = self._resumable(progress)
        spoken = spoken_steps(done)
        config = self.engine.config
        async with self.engine.slot(turn, self._tokenize(turn.voice.transcript), done) as outbox:
            text = _Text(self._reasoner, self.engine, turn, outbox, self.fingerprint)
            async with aclosing(text):
                if not any(step.token == self.engine.backbone.architecture.im_end for step in spoken):
                    await text.open([step.token for step in spoken])
                losses = text.losses
                yield Admitted(self.fingerprint, losses=losses)
                pacer = ItemPacer()
                delivered = len(spoken)
                silent_until = time.monotonic() + config.first_audio_timeout_s
                while True:
                    if text.losses > losses:
                        losses = text.losses
                        self.resumed += 1
                        yield Admitted(self.fingerprint, losses=losses)
                    await outbox.settle(pacer.hold_s())
                    item = await outbox.take(KEEP_ALIVE_S)
                    if isinstance(item, Finished):
                        yield text.finished(item, delivered)
                        return
                    if item:
                        silent_until = float("inf")
                        delivered += len(spoken_steps(item))
                        pacer.sent(len(item))
                    elif time.monotonic() > silent_until:
                        raise TurnTimeout(f"No speech within {config.first_audio_timeout_s:g} s.")
                    yield item

    def _resumable(self, progress: Progress | None) -> tuple[Frame, ...]:
        if progress is None or not progress.frames:
            return ()
        check_goes_on(progress.fingerprint, self.fingerprint, "Backbone")
        return progress.frames


class _Text:
    """The Reasoner's stream of one turn, pumped into the engine by a task of its own."""

    def __init__(self, reasoner: Reasoner, engine: BackboneEngine, turn: Turn, outbox: Outbox, mark: str) -> None:
        self._reasoner, self._engine, self._turn, self._outbox, self._mark = reasoner, engine, turn, outbox, mark
        self._task: asyncio.Task[None] | None = None
        self._admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._end: Finished | None = None
        self._prompt_tokens = 0
        self._losses = Losses(turn)

    @property
    def losses(self) -> int:
        return self._losses.count

    async def open(self, after: Sequence[int]) -> None:
        """Returns when the Reasoner has admitted the turn; raises what it raises instead."""
        self._task = asyncio.create_task(self._pump(after), name=f"text-{self._turn.id}")
        self._task.add_done_callback(self._ended)
        await self._admitted

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """However the pump ended, nobody waits for text that will not come: a cancel from upstream is a loss too."""
        error = None if task.cancelled() else task.exception()
        if self._end is not None and error is None:
            return
        if error is not None and not isinstance(error, ChromaError):
            log.error("the Reasoner's stream failed", exc_info=error)
        typed = error if isinstance(error, ChromaError) else StageUnavailable("The Reasoner was lost.", 1.0)
        if self._admitted.done():
            self._outbox.fail(typed)
        else:
            self._admitted.set_exception(typed)

    async def _pump(self, after: Sequence[int]) -> None:
        config, losses, tokens = self._engine.config, self._losses, list(after)
        tried = 0

        def steps() -> AsyncGenerator[StepItem, None]:
            """From the last token on; by another way than before, which may have led to a replica that hangs."""
            nonlocal tried
            turn, tried = losses.turn, tried + 1
            if tried > 1:
                turn = replace(turn, affinity=f"{turn.affinity}-{tried}")
            return self._reasoner.steps(turn, tuple(tokens))

        patience_s = config.admit_timeout_s + config.stall_timeout_s
        async with aclosing(surviving(steps, losses, "Reasoner", config.stall_timeout_s, patience_s)) as items:
            async for item in items:
                if isinstance(item, Admitted):
                    if tokens:
                        check_goes_on(self._mark, item.fingerprint, "Reasoner")
                    self._prompt_tokens = item.prompt_tokens
                    self._admit()
                elif isinstance(item, Finished):
                    self._admit()
                    self._end = item
                    if item.reason != "end_of_speech":
                        self._engine.end_text(self._outbox.slot)
                    return
                elif item:
                    self._admit()
                    tokens += [step.token for step in item]
                    self._engine.feed(self._outbox.slot, item)
        raise StageUnavailable("The Reasoner's stream ended without an end.", 1.0)

    def _admit(self) -> None:
        if not self._admitted.done():
            self._admitted.set_result(None)

    def finished(self, end: Finished, delivered: int) -> Finished:
        """The turn's end with the Reasoner's numbers in it; text is counted as delivered, not as thought."""
        usage, timing = Usage(), {}
        if self._end is not None:
            usage, timing = self._end.usage, self._end.timing
        usage = replace(usage, prompt_tokens=self._prompt_tokens, text_tokens=delivered, frames=end.usage.frames)
        return Finished(end.reason, usage, {**timing, **end.timing})

    async def aclose(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
