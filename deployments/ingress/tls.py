"""The certificate that HTTP, WebSocket and gRPC show, where an operator gave one."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from chroma_models.errors import InvalidRequest
from deployments.ingress.config import IngressSizes


@dataclass(frozen=True)
class Certificate:
    """A certificate chain and its private key, as PEM files that belong together."""

    cert_file: Path
    key_file: Path

    @classmethod
    def of(cls, config: IngressSizes) -> "Certificate | None":
        """None where the settings name none. Raises InvalidRequest, which says what to mend."""
        cert, key = config.tls_cert_file, config.tls_key_file
        if cert is None and key is None:
            return None
        if cert is None or key is None:
            raise InvalidRequest("tls_cert_file and tls_key_file belong together; set both, or neither.")
        for name, path in (("tls_cert_file", cert), ("tls_key_file", key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise InvalidRequest(f"The {name} {path} cannot be read: {error.strerror}.") from None
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_ask_nobody)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise InvalidRequest(f"The key in {key} is not that of the certificate in {cert}.") from None
            raise InvalidRequest(
                f"{cert} and {key} hold no certificate with its unencrypted key in PEM form ({error.reason})."
            ) from None
        return cls(cert, key)

    def pem(self) -> tuple[bytes, bytes]:
        """Key and chain."""
        return self.key_file.read_bytes(), self.cert_file.read_bytes()


def _ask_nobody() -> str:
    """Else OpenSSL asks for the password of an encrypted key on the terminal."""
    return ""
