"""POST /v1/chat/completions: from a request to a turn. How it is answered is in chat_reply.py."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from chroma_models.errors import ChromaError, Overloaded, TooLarge
from chroma_models.interleave import FRAMES_PER_PAIR
from chroma_models.types import Admitted, Limits, Message, Sampling
from deployments.ingress.chat_reply import Reply
from deployments.ingress.config import IngressConfig
from deployments.ingress.conversation import listen, resolve_replies
from deployments.ingress.hangup import until_hangup
from deployments.ingress.health import Health
from deployments.ingress.json_body import BodyReader, parse_object
from deployments.ingress.openai_chat import AudioPart, ChatRequest, TextPart, UserMessage
from deployments.ingress.openai_parse import parse_chat
from deployments.ingress.openai_reply import Envelope
from deployments.ingress.replies import ReplyStore
from deployments.ingress.speaker import Speaker
from deployments.ingress.spoken import Spoken
from deployments.ingress.sse import EventStream
from deployments.ingress.turns import Pace, TurnBuilder, watch
from deployments.ingress.voices import VoiceBook

T = TypeVar("T")

TENANT = "public"  # one tenant until requests are authenticated
SMALL_BODY = 1 << 16  # parsed at once; a larger one is parsed beside the event loop
SESSION_CHARS = 4096  # of a clip's base64 tell sessions apart; hashing all of it would hold the event loop
SEEDS = (1 << 63) - 1


class ChatCompletions:
    """The endpoint, as an ASGI application: it watches for a hang-up while it answers."""

    def __init__(
        self, speaker: Speaker, config: IngressConfig, sampling: Sampling, health: Health, pool: Executor
    ) -> None:
        self._speaker, self._config, self._sampling = speaker, config, sampling
        self._health, self._pool = health, pool
        self._reader = BodyReader(config)
        self._turns = TurnBuilder(config)
        self._replies = ReplyStore(config.replies, config.reply_ttl_s)
        self._running = 0
        self.voices = VoiceBook(speaker, config, pool)

    def reconfigure(self, config: IngressConfig) -> None:
        """Turns that begin from now on live by these limits."""
        self._config = self.voices.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        spoken = Spoken(clock, clock())
        self._check_room()
        async with self._reader.body(scope, receive) as body:
            request = await self._parse(body)
            session = _session(request)
            said = resolve_replies(request, self._replies, TENANT)
            messages = await self._off_loop(partial(listen, request.messages, said, self._config.audio))
        del body
        request = request.model_copy(update={"messages": []})  # heard: a long turn need not hold the upload
        with self._place():
            await until_hangup(receive, self._answer(scope, send, request, session, messages, spoken))

    async def _parse(self, body: bytes) -> ChatRequest:
        parse = partial(parse_object, body, self._config)
        parsed = parse() if len(body) < SMALL_BODY else await self._off_loop(parse)
        messages = parsed.get("messages")
        if isinstance(messages, list) and len(messages) > self._config.max_messages:
            raise TooLarge(f"The conversation has more than {self._config.max_messages} messages.", "messages")
        return parse_chat(parsed, self._config.model_id)

    def _check_room(self) -> None:
        if self._running >= self._config.max_concurrent:
            raise Overloaded("Too many replies are being spoken; please try again.", 1.0)

    @contextmanager
    def _place(self) -> Iterator[None]:
        self._check_room()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _answer(
        self,
        scope: Scope,
        send: Send,
        request: ChatRequest,
        session: str,
        messages: tuple[Message, ...],
        spoken: Spoken,
    ) -> None:
        voice = await self.voices.resolve(request.voice)
        pace: Pace = "realtime" if request.stream and request.speaks else "fast"
        turn = self._turns.build(
            TENANT,
            session,
            messages,
            voice,
            self._sampling_of(request),
            self._limits_of(request),
            pace,
            self._config.max_turn_s,
        )
        spoken.open()
        async with aclosing(watch(self._speaker, turn, self._config)) as items:
            admitted = await anext(items)
            if not isinstance(admitted, Admitted):
                raise ChromaError(f"The stream of turn {turn.id} began with {type(admitted).__name__}.")
            self._health.fingerprint = admitted.fingerprint
            envelope = Envelope(request.model, self._health.system_fingerprint)
            remember = partial(self._replies.add, TENANT)
            reply = Reply(request, turn, items, spoken, envelope, remember, self._off_loop)
            if request.stream:
                await reply.stream(EventStream(send, self._config.max_send_s))
            else:
                await reply.whole(scope, send)

    def _sampling_of(self, request: ChatRequest) -> Sampling:
        """The checkpoint's defaults but for what the request says; a seed is drawn where it names none."""
        default = self._sampling
        return Sampling(
            seed=secrets.randbits(63) if request.seed is None else request.seed & SEEDS,
            temperature=default.temperature if request.temperature is None else request.temperature,
            top_k=default.top_k if request.top_k is None else request.top_k,
            text_temperature=_or(request.chroma.text_temperature, default.text_temperature),
        )

    def _limits_of(self, request: ChatRequest) -> Limits:
        config = self._config
        tokens = request.max_completion_tokens or request.max_tokens or config.max_text_tokens
        limits = Limits(min(_or(request.chroma.max_reply_s, config.max_reply_s), config.max_reply_s))
        spoken = -(-limits.max_frames // FRAMES_PER_PAIR)  # the Reasoner need not think what nobody will hear
        return replace(limits, max_text_tokens=min(tokens, config.max_text_tokens, spoken))


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _session(request: ChatRequest) -> str:
    """What keeps a conversation on one Reasoner: the name it was given, else its first user message."""
    named = request.prompt_cache_key or request.user
    if named:
        return f"name:{named}"
    first = next(message for message in request.messages if isinstance(message, UserMessage))
    digest = blake2b(digest_size=16)
    for part in [first.content] if isinstance(first.content, str) else first.content:
        if isinstance(part, AudioPart):
            data = part.input_audio.data
            digest.update(f"{len(data)}:{data[:SESSION_CHARS]}".encode())
        else:
            digest.update((part.text if isinstance(part, TextPart) else part).encode())
    return f"first:{digest.hexdigest()}"
