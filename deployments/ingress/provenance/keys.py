"""The Ed25519 key that statements are signed with, and the public keys they are checked with.

A statement is a JSON Web Signature (RFC 7515, EdDSA of RFC 8037), keys are a JWK set (RFC 7517) named by their
thumbprints (RFC 7638): any library for these can check what was said here.
"""

import json
import logging
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from chroma_models.errors import InvalidRequest
from deployments.ingress.config import IngressSizes

log = logging.getLogger(__name__)

Json = dict[str, Any]

ALGORITHM = "EdDSA"
TYPE = "chroma-provenance+jwt"
MAKE_ONE = "make one with `openssl genpkey -algorithm ed25519`"


class BadSignature(InvalidRequest):
    """A statement that none of the keys has signed as it stands."""

    code = "bad_signature"


class SigningKey:
    """Signs; the private half never leaves it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        named = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public)}
        digest = sha256(json.dumps(named, sort_keys=True, separators=(",", ":")).encode())
        self.id = _base64url(digest.digest())
        self.public: Json = {**named, "kid": self.id, "alg": ALGORITHM, "use": "sig"}
        self._private = private

    @classmethod
    def of(cls, config: IngressSizes) -> "SigningKey":
        """The operator's, or a fresh one. Raises InvalidRequest, which never shows the key."""
        file = config.signing_key_file
        if file is None:
            return cls(_private(config.signing_key or draw(), "signing_key"))
        try:
            return cls(_private(file.read_text("utf-8"), f"The file {file}"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"The signing key {file} cannot be read: {error}; {MAKE_ONE}.") from None

    def sign(self, claims: Mapping[str, Any]) -> str:
        return jwt.encode(dict(claims), self._private, ALGORITHM, {"kid": self.id, "typ": TYPE})


def draw() -> str:
    """A new private key, PEM."""
    log.warning(
        "No signing key is set: one was drawn. Once its public half is gone, with this server, nobody can check what "
        "it signed; set models.ingress.signing_key_file."
    )
    private = Ed25519PrivateKey.generate()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def check(config: IngressSizes) -> None:
    """Look at the files before anything starts. Raises InvalidRequest."""
    if config.signing_key or config.signing_key_file is not None:
        SigningKey.of(config)
    if config.retired_keys_file is not None:
        read_keys(config.retired_keys_file)


def published(config: IngressSizes, key: SigningKey) -> Json:
    """The JWK set of what this server signs with and signed with. Raises InvalidRequest."""
    keys = {key.id: key.public}
    if config.retired_keys_file is not None:
        keys |= {old["kid"]: old for old in read_keys(config.retired_keys_file)}
    return {"keys": list(keys.values())}


def read_keys(file: Path) -> list[Json]:
    """A JWK set, as the server publishes it. Raises InvalidRequest."""
    try:
        return keys_of(file.read_text("utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The keys {file} cannot be read: {error}.") from None


def keys_of(text: str, name: str) -> list[Json]:
    """The public Ed25519 keys of a JWK set. Raises InvalidRequest, with the name of what holds them."""
    try:
        keys = json.loads(text)["keys"]
        for key in keys:
            jwt.PyJWK(key, ALGORITHM)
            if key["crv"] != "Ed25519" or "d" in key:
                raise ValueError
        return [{field: str(key[field]) for field in ("crv", "kty", "x", "kid", "alg", "use")} for key in keys]
    except (ValueError, KeyError, TypeError, jwt.PyJWTError):
        raise InvalidRequest(
            f"{name} is no set of public keys; save what GET /v1/provenance/keys of the server answers."
        ) from None


def checked(token: str, keys: list[Json]) -> tuple[Json, str]:
    """What a statement claims, and the id of the key that signed it. Raises BadSignature with the reason."""
    try:
        header = jwt.get_unverified_header(token)
        if header.get("typ") != TYPE:
            raise BadSignature("what is signed is no statement of provenance")
        key = next((key for key in keys if key["kid"] == header.get("kid")), None)
        if key is None:
            raise BadSignature(f"key {str(header.get('kid'))[:64]} is not among those it was checked with")
        return jwt.decode(token, jwt.PyJWK(key, ALGORITHM), [ALGORITHM], {"verify_iat": False}), key["kid"]
    except jwt.InvalidTokenError:
        raise BadSignature("the statement was altered after it was signed") from None


def claims_of(token: str) -> Json:
    """What a statement claims, whoever made it. Raises BadSignature where it is none."""
    try:
        claims: Json = jwt.decode(token, options={"verify_signature": False})
        return claims
    except jwt.InvalidTokenError:
        raise BadSignature("the statement cannot be read") from None


def _private(pem: str, name: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        raise InvalidRequest(f"{name} is no private key in PEM without a password; {MAKE_ONE}.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidRequest(f"{name} is a key of another kind than Ed25519; {MAKE_ONE}.")
    return key


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
