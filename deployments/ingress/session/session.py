"""A live conversation as a state machine: a protocol calls its methods and sends its events."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

from chroma_models.errors import TooLarge
from chroma_models.types import Message
from deployments.ingress.callers import Caller
from deployments.ingress.live_audio import AudioFormat
from deployments.ingress.services import Services
from deployments.ingress.session.errors import (
    AlreadyAnswering,
    EmptyBuffer,
    NothingToCancel,
    SessionClosed,
    TooManyResponses,
)
from deployments.ingress.session.events import (
    Aside,
    AudioCleared,
    AudioCommitted,
    Delta,
    Event,
    IdleTimeout,
    ItemAdded,
    ItemDeleted,
    ItemRetrieved,
    ItemTruncated,
    ResponseInfo,
    SpeechStarted,
    SpeechStopped,
)
from deployments.ingress.session.history import History, Room, read
from deployments.ingress.session.ids import new_item_id, new_session_id
from deployments.ingress.session.input_audio import MS_SAMPLES
from deployments.ingress.session.items import Item, Speech
from deployments.ingress.session.listening import Listening
from deployments.ingress.session.outbox import Outbox
from deployments.ingress.session.response import Response, Surroundings
from deployments.ingress.session.settings import SessionSettings
from deployments.ingress.usage import Protocol


class Session:
    """One connection's conversation. Methods raise what the client did wrong and then leave everything as it was.

    Not for several tasks at once, but that events() is read by one and the methods are called by another. Whoever opens
    a session closes it.
    """

    def __init__(
        self,
        services: Services,
        caller: Caller,
        settings: SessionSettings,
        affinity: str | None = None,
        protocol: Protocol = "realtime",
    ) -> None:
        """affinity: what is the same for other sessions of the same conversation, where there are any."""
        self.id = new_session_id()
        self._affinity = affinity or self.id
        self.conversation_id = f"conv_{secrets.token_hex(12)}"
        self.expires_at = int(time.time() + services.config.session.max_session_s)  # Unix second
        self._services, self._caller, self._protocol = services, caller, protocol
        self._settings = settings
        self._outbox = Outbox(self._sent)
        self._history = History(services.config.session, services.config.audio)
        self._listening = Listening(services, settings, self._speech_began, self._speech_ended)
        self._responses: dict[str, Response] = {}  # running
        self._ending: set[asyncio.Task[None]] = set()  # responses that were cancelled, until their stages have stopped
        self._owed = False  # a turn of the user's waits for the running response to end, to be answered
        self._speech_item = ""  # id that the user's turn under way will have
        self._idle: asyncio.TimerHandle | None = None
        self._quieter = asyncio.Event()  # a turn, the user's or ours, has ended
        self._closed = False

    @property
    def settings(self) -> SessionSettings:
        return self._settings

    @property
    def items(self) -> tuple[Item, ...]:
        return self._history.items

    @property
    def input_format(self) -> AudioFormat:
        return self._listening.format

    @property
    def busy(self) -> bool:
        """Whether the user speaks or is being answered."""
        return bool(self._responses) or self._listening.speaking

    async def quiet(self, for_s: float = 0.0) -> None:
        """Returns between two turns, when for_s have gone by without one."""
        while True:
            while self.busy:
                self._quieter.clear()
                await self._quieter.wait()
            self._quieter.clear()
            await asyncio.sleep(for_s)
            if not self.busy and not self._quieter.is_set():
                return

    async def outstayed(self) -> bool:
        """Returns when the server is to end the session: True after max_session_s, False between two turns once this
        replica drains."""
        config, health = self._services.config, self._services.health
        try:
            async with asyncio.timeout(config.session.max_session_s):
                await health.left()
                await self.quiet(config.drain_quiet_s)
        except TimeoutError:
            return True
        return False

    async def events(self) -> AsyncIterator[Event]:
        """What the client is to be told, until the session is closed. For one reader."""
        while (event := await self._outbox.take()) is not None:
            yield event

    @property
    def hurried(self) -> bool:
        """More waits for the client than it should have when it is listened to; see unhurried()."""
        return self._outbox.full

    async def unhurried(self) -> None:
        """Returns when the client has taken enough of what it was told to be listened to again."""
        await self._outbox.unhurried()

    def configure(self, settings: SessionSettings) -> None:
        """Responses that begin from now on, and audio appended from now on, follow the new settings."""
        self._check_open()
        self._check_instructions(settings)
        if settings.turn_detection != self._settings.turn_detection:
            self._speech_item = ""
        self._listening.follow(settings)
        self._settings = settings

    def tell(self, payload: object) -> None:
        """Put something of the protocol's own among the events."""
        self._outbox.put(Aside(payload))

    async def append_audio(self, data: bytes) -> None:
        """Bytes in the settings' input format. Raises InvalidAudio, TooLarge, StageUnavailable."""
        self._check_open()
        await self._listening.append(data)

    def commit(self) -> str:
        """The audio appended so far becomes an item of the user's; returns its id. Raises EmptyBuffer."""
        self._check_open()
        least_s = self._services.config.audio.min_clip_s
        if self._listening.seconds < least_s:
            raise EmptyBuffer(
                f"Error committing input audio buffer: it holds {1000 * self._listening.seconds:.0f} ms of audio, "
                f"and a turn needs {1000 * least_s:.0f} ms."
            )
        self._listening.settle()
        item_id = self._commit(self._speech_item or new_item_id(), self._listening.start, self._listening.end)
        self._listening.restart()
        self._speech_item = ""
        return item_id

    def clear(self) -> None:
        """Forget the audio that was appended and not committed."""
        self._check_open()
        self._listening.settle()
        self._listening.keep_from(self._listening.end)
        self._listening.restart()
        self._speech_item = ""
        self._quieter.set()
        self._outbox.put(AudioCleared())

    def add_item(self, item: Item, after: str | None = None) -> None:
        """after: an item's id, "root", or None for the end. Raises DuplicateItem, UnknownItem, TooLarge."""
        self._check_open()
        previous = self._history.add(item, after)
        self._stop_waiting()
        self._outbox.put(ItemAdded(item, previous))

    def delete_item(self, item_id: str) -> None:
        """Raises UnknownItem."""
        self._check_open()
        self._history.remove(item_id)
        self._outbox.put(ItemDeleted(item_id))

    def retrieve(self, item_id: str) -> None:
        """Raises UnknownItem."""
        self._check_open()
        self._outbox.put(ItemRetrieved(self._history.get(item_id)))

    def referred(self, item_id: str) -> Item:
        """An item that an out-of-band response names. Raises UnknownItem."""
        return self._history.get(item_id, "reference")

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """The user heard no more than this of a spoken reply. Raises UnknownItem, InvalidRequest."""
        self._check_open()
        audio_end_ms = self._history.truncate(item_id, audio_end_ms)
        for response in self._responses.values():
            if response.item_id == item_id:
                response.heard_until(audio_end_ms)
        self._outbox.put(ItemTruncated(item_id, content_index, audio_end_ms))

    def respond(
        self,
        settings: SessionSettings | None = None,
        *,
        in_conversation: bool = True,
        given: Sequence[Item] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Answer; returns the response's id. Its failures are events.

        settings: for this response alone. given: read these items, not the conversation. Raises AlreadyAnswering,
        TooManyResponses.
        """
        self._check_open()
        self._check_instructions(settings or self._settings)
        if in_conversation and (active := self._active()) is not None:
            raise AlreadyAnswering(
                f"Conversation already has an active response in progress: {active.info.id}. "
                "Wait until it is finished before creating a new one."
            )
        most = self._services.config.session.max_responses
        if not in_conversation and sum(not one.info.in_conversation for one in self._responses.values()) >= most:
            raise TooManyResponses(f"A session has at most {most} out-of-band responses at once.")
        self._stop_waiting()
        if in_conversation:
            self._owed = False
        info = ResponseInfo(f"resp_{secrets.token_hex(12)}", in_conversation, metadata, settings or self._settings)
        reading = partial(self._read, info.settings, None if given is None else tuple(given))
        known = (self._services, self._caller, self._protocol, self._affinity, self._outbox)
        around = Surroundings(*known, reading, self._history.add, self._changed, self._ended)
        self._responses[info.id] = Response(info, new_item_id(), around)
        return info.id

    def cancel(self, response_id: str | None = None) -> str:
        """Stop a response, or the one of the conversation; returns its id. Raises NothingToCancel."""
        self._check_open()
        response = self._active() if response_id is None else self._responses.get(response_id)
        if response is None:
            raise NothingToCancel("Cancellation failed: no active response found")
        response.cancel("client_cancelled")
        return response.info.id

    async def finish(self) -> None:
        """The client says nothing more: a turn it is in the middle of ends here. Returns between two turns."""
        await self._listening.finish()
        await self.quiet()

    async def close(self) -> None:
        """Ends all that runs; events() ends once what waits has been taken."""
        self._closed = True
        self._stop_waiting()
        self._listening.close()
        for response in self._responses.values():  # they stay known: what waits and is still taken was said by one
            response.stop()  # before a closed outbox could let it come to its end, and be forgotten
        self._outbox.close()
        await asyncio.gather(*(response.close() for response in self._responses.values()), *self._ending)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed("The session has been closed.")

    def _check_instructions(self, settings: SessionSettings) -> None:
        most = self._services.config.session.max_text_chars
        if len(settings.instructions) > most:
            raise TooLarge(f"Instructions may have {most} characters.", "instructions")

    def _active(self) -> Response | None:
        """The response of the conversation, if one runs."""
        return next((one for one in self._responses.values() if one.info.in_conversation), None)

    def _sent(self, delta: Delta) -> None:
        if (response := self._responses.get(delta.response.id)) is not None:
            response.sent(delta)

    def _changed(self, item: Item) -> str | None:
        self._history.replace(item)
        return self._history.previous(item.id)

    def _ended(self, response: Response) -> None:
        self._responses.pop(response.info.id, None)
        ending = asyncio.create_task(response.close())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        self._quieter.set()
        if not response.info.in_conversation or self._closed:
            return
        if self._owed:
            self.respond()
        else:
            self._wait_for_the_user(response)

    def _read(self, settings: SessionSettings, given: tuple[Item, ...] | None, share: float) -> tuple[Message, ...]:
        """The messages of a turn, within a share of what the Reasoner reads."""
        room = Room.within(self._services, settings, share)
        return read(self._history.items if given is None else given, settings.instructions, room, settings.truncation)

    def _speech_began(self, sample: int) -> None:
        self._stop_waiting()
        self._speech_item = new_item_id()
        self._listening.keep_from(sample)
        self._outbox.put(SpeechStarted(self._speech_item, sample // MS_SAMPLES))
        active = self._active()
        detection = self._listening.detection
        if active is not None and detection is not None and detection.interrupt_response:
            active.cancel("turn_detected")

    def _speech_ended(self, sample: int) -> None:
        item_id, self._speech_item = self._speech_item, ""
        self._outbox.put(SpeechStopped(item_id, sample // MS_SAMPLES))
        self._commit(item_id, self._listening.start, sample)
        detection = self._listening.detection
        if detection is None or not detection.create_response:
            return
        if self._active() is None:
            self.respond()
        else:
            self._owed = True

    def _commit(self, item_id: str, start: int, end: int) -> str:
        self._stop_waiting()
        self._quieter.set()
        item = Item(item_id, "user", (Speech(self._listening.take(start, end)),))
        previous = self._history.add(item)
        self._outbox.put(AudioCommitted(item_id, previous))
        self._outbox.put(ItemAdded(item, previous))
        return item_id

    def _wait_for_the_user(self, answered: Response) -> None:
        """A reply has been played to its end idle_timeout_ms ago: then ask whether anybody is there."""
        detection = self._listening.detection
        if detection is None or detection.idle_timeout_ms is None:
            return
        after_s = answered.left_to_play_s + detection.idle_timeout_ms / 1000
        begins = self._listening.end + int(answered.left_to_play_s * 1000) * MS_SAMPLES
        self._stop_waiting()
        self._idle = asyncio.get_running_loop().call_later(after_s, self._nobody_spoke, begins)

    def _nobody_spoke(self, start: int) -> None:
        least = int(self._services.config.audio.min_clip_s * 1000) * MS_SAMPLES
        end = self._listening.end
        start = max(start, self._listening.start)
        if self.busy or end - start < least:
            return
        item_id = new_item_id()
        self._outbox.put(IdleTimeout(item_id, start // MS_SAMPLES, end // MS_SAMPLES))
        self._commit(item_id, start, end)
        self._listening.restart()
        self.respond()

    def _stop_waiting(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
