"""Paced callers of a server that echoes: each talks and listens at once, in pieces of 80 ms, and times what comes."""

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import grpc
import numpy as np

from loadtest.contract import SERVICE

PIECE_S = 0.08
PIECE = bytes(2 * 1920)  # silence, int16 at 24 kHz
PROBE_EVERY = 12  # pieces; about one a second
HEAD_CHARS = 64  # of an event, its type among them
AUDIO, ERROR, DONE = '"response.output_audio.delta"', '"error"', '"response.done"'
DELTA = '"delta":"'
STAMP_CHARS = 12  # of base64: enough for the stamp


@dataclass
class Timed:
    """Milliseconds. down: since a list was made. round_trip: a piece and a question up, its answer down."""

    down: list[float] = field(default_factory=list)
    round_trip: list[float] = field(default_factory=list)
    heard_s: float = 0.0
    errors: list[str] = field(default_factory=list)
    asked: dict[str, float] = field(default_factory=dict)

    def heard(self, head: bytes, pcm_bytes: int) -> None:
        """A list: its first samples, which hold the time, and how long it is."""
        self.heard_s += pcm_bytes / len(PIECE) * PIECE_S
        made_ns = int(np.frombuffer(head, "<i8", 1)[0])
        self.down.append((time.monotonic_ns() - made_ns) / 1e6)

    def ask(self, number: int) -> str:
        name = f"probe-{number}"
        self.asked[name] = time.monotonic()
        return name

    def answered(self, name: str) -> None:
        asked = self.asked.pop(name, None)
        if asked is not None:
            self.round_trip.append(1000 * (time.monotonic() - asked))


class Caller(Protocol):
    """One live conversation. The probe is a cancel of nothing, which is refused at once and by name."""

    async def begin(self, reply_s: float, listens: bool) -> None: ...
    async def say(self, probe: str | None) -> None: ...
    async def listen(self, timed: Timed) -> None: ...
    async def end(self) -> None: ...


class WebSocketCaller:
    """Looks into events no further than it must: what it takes itself, it takes from the server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self._append = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(PIECE).decode()})

    async def begin(self, reply_s: float, listens: bool) -> None:
        """listens: the server looks for speech in what it hears."""
        self._socket = await self._session.ws_connect(self._url, max_msg_size=0)
        detection = {"type": "server_vad"} if listens else None
        audio = {"input": {"turn_detection": detection}}
        session = {"type": "realtime", "audio": audio, "chroma": {"max_reply_s": reply_s}}
        await self._send(type="session.update", session=session)
        content = [{"type": "input_text", "text": "hello"}]
        await self._send(type="conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await self._send(type="response.create")

    async def say(self, probe: str | None) -> None:
        await self._socket.send_str(self._append)
        if probe:
            await self._send(type="response.cancel", response_id="none", event_id=probe)

    async def listen(self, timed: Timed) -> None:
        async for message in self._socket:
            text: str = message.data
            if AUDIO in text[:HEAD_CHARS]:
                start = text.index(DELTA) + len(DELTA)
                end = text.index('"', start)
                timed.heard(base64.b64decode(text[start : start + STAMP_CHARS]), (end - start) * 3 // 4)
            elif ERROR in text[:HEAD_CHARS]:
                error = json.loads(text)["error"]
                if error["event_id"]:
                    timed.answered(error["event_id"])
                else:
                    timed.errors.append(error["message"])
            elif DONE in text[:HEAD_CHARS]:
                return
        raise ConnectionError(f"the socket was closed: {self._socket.close_code}")

    async def end(self) -> None:
        await self._socket.close()

    async def _send(self, **event: Any) -> None:
        await self._socket.send_str(json.dumps(event))


class GrpcCaller:
    """Knows the contract from the server's reflection."""

    def __init__(self, channel: grpc.aio.Channel, contract: dict[str, Any]) -> None:
        self._contract = contract
        self._call = channel.stream_stream(
            f"/{SERVICE}/Converse",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=contract["ConverseResponse"].FromString,
        )()
        self._piece = contract["ConverseRequest"](audio=PIECE)

    async def begin(self, reply_s: float, listens: bool) -> None:
        """As the other's."""
        whole_s = int(reply_s)
        reply = {"seconds": whole_s, "nanos": round((reply_s - whole_s) * 1e9)}
        await self._send(config={"turn_detection": {"disabled": not listens}, "max_reply": reply})
        await self._send(add_message={"role": 2, "parts": [{"text": "hello"}]})
        await self._send(create_response={})

    async def say(self, probe: str | None) -> None:
        await self._call.write(self._piece)
        if probe:
            await self._send(request_id=probe, cancel_response={"response_id": "none"})

    async def listen(self, timed: Timed) -> None:
        async for told in self._call:
            match told.WhichOneof("event"):
                case "response_delta":
                    audio = told.response_delta.audio
                    if audio:  # the last may hold what is left of a word alone
                        timed.heard(audio, len(audio))
                case "error" if told.error.request_id:
                    timed.answered(told.error.request_id)
                case "error":
                    timed.errors.append(told.error.status.message)
                case "response_done":
                    return

    async def end(self) -> None:
        self._call.cancel()

    async def _send(self, **fields: Any) -> None:
        await self._call.write(self._contract["ConverseRequest"](**fields))


async def converse(caller: Caller, late_s: float, seconds: float, listens: bool) -> Timed:
    """One conversation, begun late_s from now; it hears a reply of `seconds`, and talks as long."""
    timed = Timed()
    await asyncio.sleep(late_s)
    try:
        await caller.begin(seconds, listens)
        listening = asyncio.create_task(caller.listen(timed))
        began = time.monotonic()
        for number in range(int(seconds / PIECE_S)):
            await asyncio.sleep(began + number * PIECE_S - time.monotonic())
            await caller.say(timed.ask(number) if number % PROBE_EVERY == 0 else None)
        async with asyncio.timeout(10.0):
            await listening
        await caller.end()
    except (OSError, TimeoutError, grpc.RpcError, aiohttp.ClientError) as error:
        timed.errors.append(f"{type(error).__name__}: {error}")
    return timed
