"""The shape of an API key, and the hash that is kept of it: ck_live_<id>_<secret>, told once."""

import hmac
import os
import re
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from sqlalchemy import URL

from chroma_models.errors import InvalidRequest
from deployments.ingress.store.address import is_sqlite

PREFIX = "ck_live_"
SHAPE = re.compile(r"ck_live_([0-9a-f]{16})_([A-Za-z0-9]{43})")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SECRET_CHARS = 43  # 256 bits
PEPPER_BYTES = 32


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """What a caller showed, in the shape of a key. key_id names it and may be logged; secret may not."""

    key_id: str
    secret: str

    @property
    def whole(self) -> str:
        return f"{PREFIX}{self.key_id}_{self.secret}"


def new_key() -> ParsedKey:
    return ParsedKey(secrets.token_hex(8), "".join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARS)))


def parse_key(shown: str) -> ParsedKey | None:
    """None for what is no key of this server's."""
    found = SHAPE.fullmatch(shown)
    return ParsedKey(*found.groups()) if found else None


class KeyHash:
    """Hashes under a key that is not in the database, so that its contents open nothing."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = blake2b(pepper, person=b"api keys").digest()

    def of(self, key: ParsedKey) -> bytes:
        return blake2b(key.whole.encode(), key=self._pepper, digest_size=32).digest()

    def matches(self, key: ParsedKey, kept: bytes) -> bool:
        """Takes as long whatever differs."""
        return hmac.compare_digest(self.of(key), kept)


def pepper(told: str | None, url: URL) -> bytes:
    """The operator's key_secret; for SQLite else a secret beside its file, made the first time, for its owner alone.

    Raises InvalidRequest where there is none, or the file cannot be used.
    """
    if told:
        return told.encode()
    if not is_sqlite(url):
        raise InvalidRequest(
            "API keys in PostgreSQL are hashed under a secret of yours: set models.ingress.key_secret "
            "(CHROMA_MODELS__INGRESS__KEY_SECRET), the same wherever this database is used."
        )
    file = Path(f"{url.database}.key")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(PEPPER_BYTES))
        try:
            os.link(draft, file)  # whole or not at all, whoever else tries
        except FileExistsError:
            pass  # the one that was there is the one
        finally:
            draft.unlink()
        return file.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"The secret of API keys {file} cannot be used: {error.strerror}.") from None
