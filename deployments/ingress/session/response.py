"""One reply on its way: a turn of the graph, told as events."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chroma_models.errors import InvalidRequest, PromptTooLong
from chroma_models.types import AudioChunk, Finished, Message, Turn
from deployments.ingress.callers import Caller
from deployments.ingress.errors import is_fault
from deployments.ingress.live_audio import Voicing
from deployments.ingress.log_context import bare_context
from deployments.ingress.openai_reply import audio_tokens
from deployments.ingress.provenance.statement import AudioHash, Hasher
from deployments.ingress.services import Services
from deployments.ingress.session.events import (
    Delta,
    OutputDone,
    OutputStarted,
    Reason,
    ResponseDone,
    ResponseInfo,
    ResponseStarted,
    ResponseStatus,
    ResponseUsage,
)
from deployments.ingress.session.items import Item, Piece, Reply, Status, Words
from deployments.ingress.session.outbox import Outbox
from deployments.ingress.spoken import Spoken
from deployments.ingress.usage import Protocol

log = logging.getLogger(__name__)

LEAST_SHARE = 1 / 64  # of the room; a conversation that does not fit into that has a newest exchange that never will


@dataclass(frozen=True)
class Surroundings:
    """What a response needs of its session. read: the messages, within a share of the Reasoner's room."""

    services: Services
    caller: Caller
    protocol: Protocol
    affinity: str
    outbox: Outbox
    read: Callable[[float], tuple[Message, ...]]
    added: Callable[[Item], str | None]  # an item begins; returns the id of the one before it
    changed: Callable[[Item], str | None]  # it has grown or ended; returns the same
    ended: Callable[["Response"], None]


class Response:
    """Runs in a task of its own, in an empty context: one that inherits a request would make all turns siblings, and
    cancelling one cancels them all.

    ended() is called once, in the step in which ResponseDone is put; nothing of the response is put later.
    """

    def __init__(self, info: ResponseInfo, item_id: str, around: Surroundings) -> None:
        self.info, self.item_id, self._around = info, item_id, around
        self.done = False
        self.reply = Reply()
        self._started = False  # there is output
        self._playing_since: float | None = None
        self._voicing = Voicing(info.settings.output)
        self._heard = Hasher(info.settings.output.encoding, info.settings.output.rate_hz)
        self._prompt_tokens = 0
        self._messages: tuple[Message, ...] = ()
        self._seed = 0
        self._clock = asyncio.get_running_loop().time
        self._spoken = Spoken(self._clock, self._clock(), around.services.config.sanity)
        around.outbox.put(ResponseStarted(info))
        self._task = asyncio.create_task(self._run(), name=f"response-{info.id}", context=bare_context())

    @property
    def left_to_play_s(self) -> float:
        """How long a client that plays from the first audio on has still to play."""
        if self._playing_since is None or not self.info.settings.speaks:
            return 0.0
        return max(0.0, self._playing_since + self.reply.audio_ms / 1000 - self._clock())

    def cancel(self, reason: Reason) -> None:
        """Nothing more is sent, and every stage behind stops. Does nothing once done."""
        if not self.done:
            self._around.outbox.drop(self.info.id)
            self._finish("cancelled", reason)
            self._task.cancel()

    def stop(self) -> None:
        """It ends without a word."""
        self.done = True
        self._task.cancel()

    async def close(self) -> None:
        """Returns when nothing of it runs."""
        self.stop()
        await asyncio.gather(self._task, return_exceptions=True)

    def sent(self, delta: Delta) -> None:
        """A delta is on its way to the client: from now on it was said."""
        if self._playing_since is None:
            self._playing_since = self._clock()
        self.reply = self.reply.plus(delta.pieces, delta.frames)
        if self.info.in_conversation:
            self._around.changed(self._item("in_progress"))

    def heard_until(self, audio_end_ms: int) -> None:
        """What is still to come of the reply is not heard."""
        self.reply = self.reply.heard_until(audio_end_ms)

    async def _run(self) -> None:
        around, settings = self._around, self.info.settings
        model = around.services.config.model_id
        told = (self.info.id, around.caller, around.protocol, model, settings.voice_name, self._spoken)
        try:
            with around.services.ledger.response(*told) as self._record:
                self._record.delivered_frames = lambda: self.reply.frames
                self._record.live = settings.speaks
                await around.services.ledger.check(around.caller)
                with around.services.place():
                    await self._speak_within_room()
                await around.outbox.room(self.info.id, deltas=1)
            finished = self._spoken.finished
            if finished is not None and finished.reason != "end_of_speech":
                self._finish("incomplete", "max_output_tokens")
            else:
                self._finish("completed")
        except Exception as error:
            if is_fault(error):
                log.error("response %s failed", self.info.id, exc_info=error)
            await self._around.outbox.room(self.info.id, deltas=1)
            self._finish("failed", error=error)

    async def _speak_within_room(self) -> None:
        """Again with half as much of the conversation, while the Reasoner finds it too long."""
        share = 1.0
        while True:
            self._messages = self._around.read(share)
            self._record.hears(self._messages)
            try:
                return await self._speak()
            except PromptTooLong:
                shorter = self._around.read(share / 2)
                if self._started or self.info.settings.truncation.mode == "disabled" or share <= LEAST_SHARE:
                    raise
                share /= 2
                if shorter == self._messages and share <= LEAST_SHARE:
                    raise

    async def _speak(self) -> None:
        services, spoken = self._around.services, self._spoken
        turn = await self._turn()
        spoken.open()
        async with services.admitted(self._record.traced(turn)) as (admitted, items):
            self._prompt_tokens = self._record.prompt_tokens = admitted.prompt_tokens
            async for item in items:
                if isinstance(item, AudioChunk):
                    await self._say(item)
                elif isinstance(item, Finished):
                    spoken.finish(item)
        if self.info.settings.speaks and (rest := self._voicing.say(b"", last=True)):
            self._heard.add(rest)
            self._put(Delta(self.info, self.item_id, (), rest, 0, spoken.frames))

    async def _turn(self) -> Turn:
        services, settings = self._around.services, self.info.settings
        if not self._messages:
            raise InvalidRequest("There is nothing to answer: add an item, commit audio, or give instructions.")
        voice = await services.voices.again(settings.voice_name, settings.voice, self._around.caller)
        draw = settings.draw
        sampling = services.sampling(draw.seed, draw.temperature, draw.top_k, draw.text_temperature)
        self._seed = sampling.seed
        return services.turns.build(
            self._around.caller,
            self._around.affinity,
            self._messages,
            voice,
            sampling,
            services.limits(settings.max_reply_s, settings.max_text_tokens),
            "realtime" if settings.speaks else "fast",
            services.config.max_turn_s,
        )

    async def _say(self, chunk: AudioChunk) -> None:
        first = self._spoken.frames
        _, samples = self._spoken.add(chunk)
        new = [frame for frame in chunk.frames if frame.index >= first]
        if not new:
            return
        pieces = tuple(Piece(frame.index, frame.step.text) for frame in new if frame.step and frame.step.text)
        audio = self._voicing.say(samples) if self.info.settings.speaks else b""
        self._heard.add(audio)
        await self._around.outbox.room(self.info.id)
        self._put(Delta(self.info, self.item_id, pieces, audio, len(new), first))

    def _put(self, delta: Delta) -> None:
        if not self._started:
            self._started = True
            item = Item(self.item_id, "assistant", (), "in_progress")
            previous = self._around.added(item) if self.info.in_conversation else None
            self._around.outbox.put(OutputStarted(self.info, item, previous))
        self._around.outbox.put(delta)

    def _finish(self, status: ResponseStatus, reason: Reason | None = None, error: Exception | None = None) -> None:
        if self.done:
            return
        self.done = True
        output: tuple[Item, ...] = ()
        if self._started:
            item = self._item("completed" if status == "completed" else "incomplete")
            previous = self._around.changed(item) if self.info.in_conversation else None
            self._around.outbox.put(OutputDone(self.info, item, previous))
            output = (item,)
        report = {**self._spoken.report(self._seed, False), "provenance": self._provenance(status)}
        self._around.outbox.put(ResponseDone(self.info, status, reason, error, output, self._usage(), report))
        self._around.ended(self)

    def _provenance(self, status: ResponseStatus) -> Mapping[str, Any] | None:
        """What is said of what was said; of audio that was cut short it is not known how much was sent."""
        if not self._started:
            return None
        whole = self.info.settings.speaks and status in ("completed", "incomplete")
        audio: AudioHash | None = self._heard.done() if whole else None
        return self._around.services.provenance.statement(
            self._around.caller.tenant, self.info.settings.voice_name, self.info.id, audio
        )

    def _item(self, status: Status) -> Item:
        part = self.reply if self.info.settings.speaks else Words(self.reply.text)
        return Item(self.item_id, "assistant", (part,), status)

    def _usage(self) -> ResponseUsage:
        finished = self._spoken.finished
        counted = finished.usage if finished else None
        prompt = counted.prompt_tokens if counted else self._prompt_tokens
        return ResponseUsage(
            prompt_tokens=prompt,
            prompt_audio_tokens=min(prompt, audio_tokens(self._messages)),
            cached_tokens=counted.cached_tokens if counted else 0,
            text_tokens=counted.text_tokens if counted else len(self.reply.pieces),
            audio_tokens=self.reply.frames if self.info.settings.speaks else 0,
        )
