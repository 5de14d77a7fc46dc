"""Voices to answer in: the built-in one and reference clips, each encoded once."""

import asyncio
import json
from collections import OrderedDict
from concurrent.futures import Executor
from functools import partial
from hashlib import blake2b
from pathlib import Path

from chroma_models.errors import InvalidAudio, InvalidVoice, TooLarge, TurnTimeout, UnknownVoice
from chroma_models.types import CODEBOOKS, SAMPLE_RATE_HZ, EncodedVoice
from deployments.ingress.audio_in import decode_base64, voice_pcm
from deployments.ingress.callers import Caller
from deployments.ingress.config import IngressConfig
from deployments.ingress.openai_chat import ReferenceVoice
from deployments.ingress.speaker import Speaker

BUILT_IN = Path(__file__).parent / "voices" / "default.json"  # its licence is stated in the file
BUILT_IN_NAME = "default"
PARAM = "audio.voice"


class VoiceBook:
    """Encoded voices by the content of their clips: the most recent are kept; none is encoded twice at once."""

    def __init__(self, speaker: Speaker, config: IngressConfig, pool: Executor) -> None:
        self._speaker, self.config, self._pool = speaker, config, pool
        self._codes: OrderedDict[bytes, asyncio.Task[bytes]] = OrderedDict()

    async def resolve(self, wanted: str | ReferenceVoice | None, caller: Caller, param: str = PARAM) -> EncodedVoice:
        """A voice of the caller's by its id, the built-in one ("default", None), or a clip's.

        param: what the request calls it. Raises UnknownVoice, InvalidVoice, InvalidAudio, TooLarge, or what encoding
        raises.
        """
        if isinstance(wanted, ReferenceVoice):
            return await self._reference(wanted)
        if wanted is None or wanted == BUILT_IN_NAME:
            return await self.built_in()
        raise UnknownVoice(
            f"The voice '{wanted[:64]}' does not exist; use '{BUILT_IN_NAME}', or send a reference clip with its "
            "transcript.",
            param,
        )

    async def built_in(self) -> EncodedVoice:
        about = json.loads(BUILT_IN.read_text("utf-8"))
        clip = (BUILT_IN.parent / about["clip"]).read_bytes()
        key = blake2b(clip).digest()
        if key not in self._codes:
            self._encode_soon(key, await self._off_loop(partial(voice_pcm, clip, "flac", self.config.audio)))
        return _voice(about["transcript"], await self._encoded(key))

    async def _reference(self, wanted: ReferenceVoice) -> EncodedVoice:
        limits = self.config.audio
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
        key = blake2b(pcm).digest()
        if key not in self._codes:
            self._encode_soon(key, pcm)
        return _voice(transcript, await self._encoded(key))

    def _decode(self, wanted: ReferenceVoice) -> bytes:
        return voice_pcm(decode_base64(wanted.reference.data), wanted.reference.format, self.config.audio)

    async def _off_loop(self, work: partial[bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _encode_soon(self, key: bytes, pcm: bytes) -> None:
        """In a task of its own, so that a client that hangs up takes nobody's voice away."""
        task = asyncio.create_task(self._encode(pcm))
        self._codes[key] = task
        task.add_done_callback(partial(self._forget_failure, key))
        while len(self._codes) > self.config.voice_cache:
            self._codes.popitem(last=False)

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

    def _forget_failure(self, key: bytes, task: asyncio.Task[bytes]) -> None:
        if (task.cancelled() or task.exception()) and self._codes.get(key) is task:
            del self._codes[key]

    async def _encoded(self, key: bytes) -> bytes:
        self._codes.move_to_end(key)
        return await asyncio.shield(self._codes[key])


def _voice(transcript: str, codes: bytes) -> EncodedVoice:
    words = transcript.encode()
    digest = blake2b(len(words).to_bytes(8, "little") + words + codes, digest_size=16).hexdigest()
    return EncodedVoice(transcript, codes, digest)
