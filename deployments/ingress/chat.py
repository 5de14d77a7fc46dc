"""POST /v1/chat/completions: from a request to a turn. How it is answered is in chat_reply.py."""

import asyncio
from functools import partial
from hashlib import blake2b

from starlette.types import Receive, Scope, Send

from chroma_models.errors import TooLarge
from chroma_models.types import Message
from deployments.ingress.callers import Caller
from deployments.ingress.chat_reply import Reply
from deployments.ingress.conversation import listen, resolve_replies
from deployments.ingress.hangup import until_hangup
from deployments.ingress.json_body import parse_object
from deployments.ingress.openai_chat import AudioPart, ChatRequest, TextPart, UserMessage
from deployments.ingress.openai_parse import parse_chat
from deployments.ingress.openai_reply import Envelope, new_answer_id
from deployments.ingress.rate_headers import rate_headers
from deployments.ingress.replies import retention_s
from deployments.ingress.services import Services
from deployments.ingress.spoken import Spoken
from deployments.ingress.sse import EventStream
from deployments.ingress.turns import Pace
from deployments.ingress.voices import voice_name

SMALL_BODY = 1 << 16  # parsed at once; a larger one is parsed beside the event loop
SESSION_CHARS = 4096  # of a clip's base64 tell sessions apart; hashing all of it would hold the event loop


class ChatCompletions:
    """The endpoint, as an ASGI application: it watches for a hang-up while it answers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        services, caller = self._services, scope["caller"]
        spoken = Spoken(clock, clock(), services.config.sanity)
        with services.refusals.counted("chat"):
            services.check_room()
            permit = await services.permit(caller)
        async with permit:
            scope["answer_headers"] += await rate_headers(services, permit)
            async with services.bodies.body(scope, receive) as body:
                request = await self._parse(body)
                session = _session(request)
                said = resolve_replies(request, services.replies, caller.tenant)
                messages = await services.off_loop(partial(listen, request.messages, said, services.config.audio))
            del body
            request = request.model_copy(update={"messages": []})  # heard: a long turn need not hold the upload
            with services.refusals.counted("chat"):
                services.check_room()
            with services.place():
                await until_hangup(receive, self._answer(scope, send, caller, request, session, messages, spoken))

    async def _parse(self, body: bytes) -> ChatRequest:
        config = self._services.config
        parse = partial(parse_object, body, config)
        parsed = parse() if len(body) < SMALL_BODY else await self._services.off_loop(parse)
        messages = parsed.get("messages")
        if isinstance(messages, list) and len(messages) > config.max_messages:
            raise TooLarge(f"The conversation has more than {config.max_messages} messages.", "messages")
        return parse_chat(parsed, config.model_id)

    async def _answer(
        self,
        scope: Scope,
        send: Send,
        caller: Caller,
        request: ChatRequest,
        session: str,
        messages: tuple[Message, ...],
        spoken: Spoken,
    ) -> None:
        services, more = self._services, request.chroma
        voice = await services.voices.resolve(request.voice, caller)
        pace: Pace = "realtime" if request.stream and request.speaks else "fast"
        turn = services.turns.build(
            caller,
            session,
            messages,
            voice,
            services.sampling(request.seed, request.temperature, request.top_k, more.text_temperature),
            services.limits(more.max_reply_s, request.max_completion_tokens or request.max_tokens),
            pace,
            services.config.max_turn_s,
        )
        spoken.open()
        name = voice_name(request.voice)
        told = services.ledger.response(new_answer_id(), caller, "chat", request.model, name, spoken)
        with told as record:
            record.hears(messages)
            if not request.stream:
                record.delivered_frames = lambda: spoken.frames if spoken.finished else 0
            record.live = pace == "realtime"
            async with services.admitted(record.traced(turn)) as (admitted, items):
                record.prompt_tokens = admitted.prompt_tokens
                envelope = Envelope(record.id, request.model, services.health.system_fingerprint)
                remember = partial(services.replies.add, caller.tenant, retention_s(caller, services.config))
                attest = partial(services.provenance.statement, caller.tenant, name, record.id)
                reply = Reply(request, turn, items, spoken, envelope, remember, attest, services.off_loop)
                if request.stream:
                    await reply.stream(EventStream(send, services.config.max_send_s))
                else:
                    await reply.whole(scope, send)


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
