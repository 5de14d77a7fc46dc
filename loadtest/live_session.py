"""One person who talks to the server live: over the Realtime WebSocket, with a microphone and a loudspeaker."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from loadtest.audio_event import opened
from loadtest.event_order import EventOrder
from loadtest.microphone import Microphone, Utterance
from loadtest.playback import Playback

WITHIN_S = 60.0  # whatever is waited for


@dataclass
class Reply:
    """One response as it was heard. Times are seconds on the clock of the program."""

    id: str
    playback: Playback  # since the turn it answers was committed
    spoken: Utterance | None  # what it answers
    item_id: str | None = None
    status: str | None = None
    reason: str | None = None  # why it was cancelled or failed
    done_at: float | None = None
    stopped_at: float | None = None  # the user wanted it to be silent: a cancel was sent, or a word was said
    server: dict[str, Any] = field(default_factory=dict)

    @property
    def first_audio_s(self) -> float | None:
        return self.playback.first_audio_s

    @property
    def latency_s(self) -> float | None:
        """From the end of the user's speech to the first audio."""
        if self.spoken is None or self.playback.first_audio_at is None:
            return None
        return self.playback.first_audio_at - self.spoken.ended_at

    @property
    def silence_s(self) -> float | None:
        """From the wish for silence until the server had ended the response, and the last of its audio had come."""
        if self.stopped_at is None or self.done_at is None:
            return None
        return max(self.done_at, self.playback.last_audio_at or 0.0) - self.stopped_at


class Unheard(Exception):
    """A reply ended without audio."""


class LiveSession:
    """Open it with `async with`. What goes wrong is kept in faults; nothing is raised for it."""

    def __init__(
        self, client: aiohttp.ClientSession, url: str, number: int, owners: dict[str, int], piece_s: float
    ) -> None:
        """url: ws://HOST:PORT. owners: see EventOrder."""
        self._client, self._url, self._piece_s = client, url, piece_s
        self.order = EventOrder(number, owners)
        self.replies: list[Reply] = []
        self.faults: list[str] = []
        self._by_id: dict[str, Reply] = {}
        self._committed_at = 0.0
        self._said: Utterance | None = None
        self._changed = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> "LiveSession":
        self._socket = await self._client.ws_connect(f"{self._url}/v1/realtime", max_msg_size=0)
        self.microphone = Microphone(self._socket.send_str, self._piece_s)
        self._reading = asyncio.create_task(self._read())
        self._talking = asyncio.create_task(self.microphone.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        self._talking.cancel()
        await self._socket.close()
        for task in (self._reading, self._talking):
            task.cancel()
        ended = await asyncio.gather(self._reading, self._talking, return_exceptions=True)
        self.faults += [repr(end) for end in ended if isinstance(end, Exception)]

    async def configure(self, max_reply_s: float) -> None:
        await self._send(type="session.update", session={"type": "realtime", "chroma": {"max_reply_s": max_reply_s}})

    async def ask(self, samples: NDArray[np.int16]) -> Reply:
        """Say it; returns once the server has heard the turn and has begun to answer."""
        known = len(self.replies)
        self._said = self.microphone.say(samples)
        await self._said.ended.wait()
        await self._until(lambda: len(self.replies) > known, "an answer")
        return self.replies[-1]

    async def played(self, reply: Reply, seconds: float | None = None) -> None:
        """Returns when so much of a reply has been played, or all of it. Raises Unheard."""
        if seconds is None:
            await self._until(lambda: reply.done_at is not None, f"the end of {reply.id}")
            await asyncio.sleep(reply.playback.silent_from - time.monotonic())
            return
        begun = lambda: reply.playback.first_audio_at is not None or reply.done_at is not None  # noqa: E731
        await self._until(begun, f"audio of {reply.id}")
        if reply.playback.first_audio_at is None:
            raise Unheard(f"{reply.id} was {reply.status} before it was heard: {reply.reason}")
        await asyncio.sleep(reply.playback.first_audio_at + seconds - time.monotonic())

    async def cancel(self, reply: Reply) -> None:
        """By a message; returns when the server has ended it."""
        reply.stopped_at = time.monotonic()
        await self._send(type="response.cancel")
        await self._ended(reply, reply.stopped_at)

    async def interrupt(self, reply: Reply, samples: NDArray[np.int16]) -> Reply:
        """By voice; returns the answer to what was said."""
        next_reply = await self.ask(samples)
        assert self._said is not None
        assert self._said.began_at is not None
        reply.stopped_at = self._said.began_at
        await self._ended(reply, reply.stopped_at)
        return next_reply

    async def _ended(self, reply: Reply, stopped_at: float) -> None:
        """And tell the server how much of it was heard, as a client must."""
        await self._until(lambda: reply.done_at is not None, f"the end of {reply.id}")
        heard_s = min(stopped_at - (reply.playback.first_audio_at or stopped_at), reply.playback.audio_s)
        if reply.item_id is not None:
            heard_ms = max(0, int(1000 * heard_s))
            event = {"item_id": reply.item_id, "content_index": 0, "audio_end_ms": heard_ms}
            await self._send(type="conversation.item.truncate", **event)

    async def _send(self, **event: Any) -> None:
        await self._socket.send_str(json.dumps(event))

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Raises TimeoutError."""
        ends_at = time.monotonic() + WITHIN_S
        while not condition():
            if self._reading.done():
                raise ConnectionError(f"the connection ended; {what} was waited for")
            self._changed.clear()
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + ends_at - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                raise TimeoutError(f"{what} did not come within {WITHIN_S:g} s") from None

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._take(message.data, time.monotonic())
                    self._changed.set()
        finally:
            self._changed.set()
        if not self._closed:
            self.faults.append(f"the server closed the connection with {self._socket.close_code}")

    def _take(self, text: str, now: float) -> None:
        event, audio_bytes = opened(text)
        self.order.see(event)
        match event["type"]:
            case "response.output_audio.delta":
                self._heard(event, audio_bytes, now)
            case "input_audio_buffer.committed":
                self._committed_at = now
            case "response.created":
                reply = Reply(event["response"]["id"], Playback(self._committed_at), self._said)
                self._by_id[reply.id] = reply
                self.replies.append(reply)
            case "response.done":
                self._done(event["response"], now)
            case "error":
                self.faults.append(event["error"]["message"])

    def _heard(self, event: dict[str, Any], audio_bytes: int, now: float) -> None:
        reply = self._by_id[event["response_id"]]
        reply.item_id = event["item_id"]
        if reply.stopped_at is None:
            reply.playback.heard(audio_bytes, now)
        else:
            reply.playback.last_audio_at = now  # not played

    def _done(self, response: dict[str, Any], now: float) -> None:
        reply = self._by_id[response["id"]]
        details = response.get("status_details") or {}
        reply.status, reply.done_at, reply.server = response["status"], now, response.get("chroma") or {}
        reply.reason = details.get("reason") or (details.get("error") or {}).get("message")
