"""Replies, sealed as the server seals them."""

import json
from functools import partial
from pathlib import Path

from deployments.ingress.audio_out import OutputFormat
from deployments.ingress.config import IngressConfig
from deployments.ingress.provenance.files import Json, sealed
from deployments.ingress.provenance.keys import SigningKey, draw, published
from deployments.ingress.provenance.statement import Provenance
from tests.deployments.ingress.scripted import tone

PCM = tone(24_000 + 777, 24_000).astype("<f4").tobytes()


class Signer:
    """A server's half."""

    def __init__(self, folder: Path) -> None:
        self.config = IngressConfig(signing_key=draw())
        self.keys = folder / "keys.json"
        self.keys.write_text(json.dumps(published(self.config, SigningKey.of(self.config))))

    def sealed(self, form: OutputFormat, pcm: bytes = PCM) -> tuple[bytes, Json]:
        return sealed(pcm, form, partial(Provenance(self.config).statement, "acme", "default", "chatcmpl-1"))
