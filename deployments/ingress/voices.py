"""Voices to answer in: the built-in one, stored ones, and clips that come with a request."""

import asyncio
import json
from concurrent.futures import Executor
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path

from chroma_models.errors import Forbidden, InvalidAudio, InvalidVoice, TooLarge, TurnTimeout, UnknownVoice
from chroma_models.types import CODEBOOKS, SAMPLE_RATE_HZ, EncodedVoice
from deployments.ingress.audio_in import decode_base64, voice_pcm
from deployments.ingress.callers import Caller
from deployments.ingress.clip_codes import ClipCodes
from deployments.ingress.config import IngressConfig
from deployments.ingress.openai_chat import ReferenceVoice
from deployments.ingress.speaker import Speaker
from deployments.ingress.store.voice_store import VoiceStore

BUILT_IN = Path(__file__).parent / "voices" / "default.json"  # its licence is stated in the file
BUILT_IN_NAME = "default"
REFERENCE = "reference"  # the name of a voice that came as a clip
PARAM = "audio.voice"


class VoiceBook:
    """Voices to answer in. Clips that come with requests are encoded once while they are used.

    A stored voice is read with every reply, one look-up by its id: one that is deleted is gone everywhere at once.
    """

    def __init__(self, speaker: Speaker, config: IngressConfig, pool: Executor, store: VoiceStore) -> None:
        self._speaker, self.config, self._pool, self._store = speaker, config, pool, store
        self._clips, self._own = ClipCodes(config.voice_cache, config.voice_cache_idle_s), ClipCodes(1)

    async def resolve(self, wanted: str | ReferenceVoice | None, caller: Caller, param: str = PARAM) -> EncodedVoice:
        """A voice of the caller's by its id, the built-in one ("default", None), or a clip's.

        param: what the request calls it. Raises UnknownVoice, InvalidVoice, InvalidAudio, TooLarge, StageUnavailable,
        or what encoding raises.
        """
        if isinstance(wanted, ReferenceVoice):
            return await self._reference(wanted, caller)
        if wanted is None or wanted == BUILT_IN_NAME:
            return await self.built_in()
        try:
            return await self._stored(wanted, caller)
        except UnknownVoice:
            raise UnknownVoice(
                f"The voice '{wanted[:64]}' does not exist; use '{BUILT_IN_NAME}' or the id of a voice of "
                "yours, or send a reference clip with its transcript.",
                param,
            ) from None

    async def again(self, name: str, voice: EncodedVoice | None, caller: Caller) -> EncodedVoice:
        """What a session's voice is now: a stored one may have been deleted since the session was told it.

        name, voice: as voice_name() and resolve() gave them, None for the built-in one. Raises UnknownVoice.
        """
        if voice is None:
            return await self.built_in()
        return voice if name == REFERENCE else await self.resolve(name, caller, "voice")

    async def built_in(self) -> EncodedVoice:
        transcript, clip, key = _built_in()
        return _voice(transcript, await self._own.get(key, partial(self._decode_and_encode, clip)))

    async def encode(self, clip: bytes) -> tuple[bytes, str]:
        """The codes of a FLAC clip, and the name of the codec that made them."""
        key = blake2b(clip).digest()
        return await self._clips.get(key, partial(self._decode_and_encode, clip)), await self._codec()

    def close(self) -> None:
        self._clips.close()
        self._own.close()

    async def _codec(self) -> str:
        """The codec is named by what it makes of the built-in clip: other weights have another name."""
        return (await self.built_in()).digest

    async def _stored(self, voice_id: str, caller: Caller) -> EncodedVoice:
        """Codes that another codec left behind are made anew, once."""
        voice = await self._store.voice(caller.tenant, voice_id)
        if voice.first_used_at is None:
            await self._store.first_used(caller, voice)
        codes, codec = voice.codes, await self._codec()
        if voice.codec != codec:
            codes, _ = await self.encode(await self._store.clip(caller.tenant, voice_id))
            await self._store.set_codes(voice_id, codes, codec)
        return _voice(voice.transcript, codes)

    async def _reference(self, wanted: ReferenceVoice, caller: Caller) -> EncodedVoice:
        limits = self.config.audio
        if not self.config.reference_voices:
            raise Forbidden(
                "This server speaks only in voices whose owners' consent is recorded: POST /v1/audio/voices makes one."
            )
        transcript = wanted.transcript.strip()
        if not transcript:
            raise InvalidVoice("The voice needs the transcript of its clip: send the words spoken in it.", PARAM)
        if len(transcript) > limits.max_transcript_chars:
            raise InvalidVoice(
                f"The voice's transcript is longer than {limits.max_transcript_chars} characters; send a shorter clip.",
                PARAM,
            )
        try:
            pcm = await self._off_loop(partial(self._decode, wanted))
        except (InvalidAudio, TooLarge) as error:
            raise type(error)(error.message, f"{PARAM}.reference.data") from None
        seconds = len(pcm) / 4 / SAMPLE_RATE_HZ
        if seconds > limits.max_voice_s:
            raise InvalidVoice(
                f"The voice's clip lasts {seconds:.1f} s; send at most {limits.max_voice_s:g} s, and the words in it.",
                PARAM,
            )
        key = blake2b(pcm, person=blake2b(caller.tenant.encode(), digest_size=16).digest()).digest()
        return _voice(transcript, await self._clips.get(key, partial(self._encode_reference, pcm, caller)))

    async def _encode_reference(self, pcm: bytes, caller: Caller) -> bytes:
        """And written down: whose voice it is, nobody here knows."""
        codes = await self._encode(pcm)
        await self._store.reference_used(caller, pcm)
        return codes

    def _decode(self, wanted: ReferenceVoice) -> bytes:
        return voice_pcm(decode_base64(wanted.reference.data), wanted.reference.format, self.config.audio)

    async def _off_loop(self, work: partial[bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _decode_and_encode(self, clip: bytes) -> bytes:
        return await self._encode(await self._off_loop(partial(voice_pcm, clip, "flac", self.config.audio)))

    async def _encode(self, pcm: bytes) -> bytes:
        try:
            async with asyncio.timeout(self.config.first_audio_timeout_s) as limit:
                codes = await self._speaker.encode_voice(pcm)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TurnTimeout("The voice was not encoded in time; please try again.", 1.0) from None
        if not codes or len(codes) % (2 * CODEBOOKS):
            raise InvalidVoice("The voice's clip is too short to hold a frame (80 ms); send a longer one.", PARAM)
        return codes


def voice_name(wanted: str | ReferenceVoice | None) -> str:
    """What is written down of it: a stored voice's id, or one of two words."""
    if isinstance(wanted, ReferenceVoice):
        return REFERENCE
    return wanted or BUILT_IN_NAME


@cache
def _built_in() -> tuple[str, bytes, bytes]:
    """The built-in voice's transcript, its clip, and the key of its codes: asked for with every turn, read once."""
    about = json.loads(BUILT_IN.read_text("utf-8"))
    clip = (BUILT_IN.parent / about["clip"]).read_bytes()
    return about["transcript"], clip, blake2b(clip).digest()


def _voice(transcript: str, codes: bytes) -> EncodedVoice:
    words = transcript.encode()
    digest = blake2b(len(words).to_bytes(8, "little") + words + codes, digest_size=16).hexdigest()
    return EncodedVoice(transcript, codes, digest)
