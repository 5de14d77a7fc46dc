"""A reply as OpenAI's clients expect it: one object, or server-sent events."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import pydantic_core
from starlette.responses import Response
from starlette.types import Scope, Send

from chroma_models.types import SAMPLE_RATE_HZ, AudioChunk, Finished, Turn
from deployments.ingress.audio_in import encode_base64
from deployments.ingress.audio_out import to_pcm16
from deployments.ingress.openai_chat import ChatRequest
from deployments.ingress.openai_reply import FINISH, Envelope, Json, audio_tokens, usage
from deployments.ingress.provenance.files import sealed
from deployments.ingress.provenance.statement import Attest, Hasher
from deployments.ingress.speaker import Item
from deployments.ingress.spoken import Spoken
from deployments.ingress.sse import EventStream

T = TypeVar("T")


class OffLoop(Protocol):
    """Runs work in a thread, beside the event loop."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


@dataclass(frozen=True)
class Reply:
    """An admitted turn, told to its client whole or as a stream. items ends with Finished, or raises."""

    request: ChatRequest
    turn: Turn
    items: AsyncIterator[Item]
    spoken: Spoken
    envelope: Envelope
    remember: Callable[[str, str], int]  # audio id, transcript -> Unix second of its expiry
    attest: Attest
    off_loop: OffLoop

    def _chroma(self, provenance: Json) -> Json:
        report = self.spoken.report(self.turn.sampling.seed, self.request.chroma.codes)
        return {"chroma": {**report, "provenance": provenance}}

    @property
    def _finished(self) -> Finished:
        assert self.spoken.finished is not None  # watch ends with it or raises
        return self.spoken.finished

    @property
    def _finish_reason(self) -> str:
        return FINISH[self._finished.reason]

    @property
    def _usage(self) -> Json:
        return usage(self._finished, self.spoken.frames, audio_tokens(self.turn.messages))

    async def whole(self, scope: Scope, send: Send) -> None:
        """One JSON object, audio as a file in the format asked for."""
        spoken, request, envelope = self.spoken, self.request, self.envelope
        pcm: list[bytes] = []
        async for item in self.items:
            if isinstance(item, AudioChunk):
                samples = spoken.add(item)[1]
                if request.speaks:
                    pcm.append(samples)
            elif isinstance(item, Finished):
                spoken.finish(item)
        message: Json = {"role": "assistant", "content": None if request.speaks else spoken.text, "refusal": None}
        if request.speaks:
            expires = self.remember(envelope.audio_id, spoken.text)
            data, provenance = await self.off_loop(lambda: self._file(b"".join(pcm)))
            message["audio"] = {
                "id": envelope.audio_id,
                "data": data,
                "expires_at": expires,
                "transcript": spoken.text,
            }
        else:
            provenance = self.attest(None)
        whole = envelope.completion(message, self._finish_reason, self._usage) | self._chroma(provenance)
        body = await self.off_loop(partial(pydantic_core.to_json, whole))
        await Response(body, media_type="application/json")(scope, _nothing_more, send)

    def _file(self, pcm: bytes) -> tuple[str, Json]:
        """In base64, and what is said of it. For a worker thread."""
        file, provenance = sealed(pcm, self.request.format, self.attest)
        return encode_base64(file), provenance

    async def stream(self, events: EventStream) -> None:
        """Server-sent events, the audio as pcm16."""
        spoken, request, envelope = self.spoken, self.request, self.envelope
        heard = Hasher("pcm16", SAMPLE_RATE_HZ)
        await events.start()
        await events.event(
            envelope.chunk({"role": "assistant", "content": None if request.speaks else "", "refusal": None})
        )
        if request.speaks:
            await events.event(envelope.chunk({"audio": {"id": envelope.audio_id}}))
        async for item in self.items:
            if isinstance(item, Finished):
                spoken.finish(item)
            elif isinstance(item, AudioChunk) and item.frames:
                words, samples = spoken.add(item)
                if words:
                    delta: Json = {"audio": {"transcript": words}} if request.speaks else {"content": words}
                    await events.event(envelope.chunk(delta))
                if samples and request.speaks:
                    steps = to_pcm16(samples)
                    heard.add(steps)
                    await events.event(envelope.chunk({"audio": {"data": encode_base64(steps)}}))
            else:
                await events.comment("keep-alive")
        if request.speaks:
            expires = self.remember(envelope.audio_id, spoken.text)
            await events.event(envelope.chunk({"audio": {"expires_at": expires}}))
        chroma = self._chroma(self.attest(heard.done() if request.speaks else None))
        await events.event(envelope.chunk({}, self._finish_reason) | chroma)
        if request.wants_usage:
            await events.event(envelope.usage_chunk(self._usage) | chroma)
        await events.done()


async def _nothing_more() -> Json:
    return {"type": "http.disconnect"}
