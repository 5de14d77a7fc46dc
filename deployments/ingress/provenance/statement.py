"""What is said about a reply, and who says it."""

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.ingress.config import IngressConfig
from deployments.ingress.provenance.keys import SigningKey, published

Json = dict[str, Any]

KEYS_PATH = "/v1/provenance/keys"
KEYS_AGE_S = 300  # a client may keep them


@dataclass(frozen=True, slots=True)
class AudioHash:
    """SHA-256, in hex, of all audio of a reply. of: what was hashed, in order - `pcm16`, int16 little-endian samples;
    `mulaw`, `alaw`, bytes; `mp3`, `opus`, the packets of the file, without what surrounds them."""

    sha256: str
    of: str
    rate_hz: int


class Hasher:
    """Takes a reply's audio as it is sent."""

    def __init__(self, of: str, rate_hz: int) -> None:
        self._of, self._rate_hz = of, rate_hz
        self._digest = sha256()

    def add(self, audio: bytes) -> None:
        self._digest.update(audio)

    def done(self) -> AudioHash:
        return AudioHash(self._digest.hexdigest(), self._of, self._rate_hz)


Attest = Callable[[AudioHash | None], Json]


class Provenance:
    """Makes statements. Any thread may ask: files are encoded in several."""

    def __init__(self, config: IngressConfig, watermark: str | None = None) -> None:
        """watermark: the name of the one in every reply. Raises InvalidRequest where a key cannot be used."""
        self._model, self._watermark = config.model_id, watermark
        self._key = SigningKey.of(config)
        self._tenant_key = blake2b((config.affinity_key or secrets.token_hex()).encode(), person=b"provenance").digest()
        self._published = published(config, self._key)

    def statement(self, tenant: str, voice: str, response_id: str, audio: AudioHash | None) -> Json:
        """What is claimed, and `jws`, the same signed: that alone counts.

        tenant is told as a keyed hash: the same for all replies to a tenant, and nobody's name. audio: None where not
        all of it was sent, or none was.
        """
        claims: Json = {
            "model": self._model,
            "voice": voice,
            "created_at": int(time.time()),
            "tenant": blake2b(tenant.encode(), key=self._tenant_key, digest_size=16).hexdigest(),
            "response": response_id,
            "audio": None if audio is None else asdict(audio),
            "watermark": self._watermark,
        }
        return {**claims, "jws": self._key.sign(claims)}

    async def keys(self, request: Request) -> Response:
        """GET KEYS_PATH. For everybody: whoever is played a reply may ask who made it."""
        return JSONResponse(self._published, headers={"cache-control": f"public, max-age={KEYS_AGE_S}"})
