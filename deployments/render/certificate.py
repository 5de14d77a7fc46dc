"""A node's certificate for Ray's TLS, made when its pod starts: python -m deployments.render.certificate CA OUT."""

import datetime
import ipaddress
import os
import shutil
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

DAYS = 365  # pods live shorter
CLOCK_S = 300  # of other nodes may be behind


def make(authority: Path, out: Path, address: str) -> None:
    """authority: tls.crt and tls.key of the CA, PEM. Writes tls.crt, tls.key and ca.crt; address: an IP."""
    ca = x509.load_pem_x509_certificate((authority / "tls.crt").read_bytes())
    ca_key = load_pem_private_key((authority / "tls.key").read_bytes(), password=None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address(address)), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=CLOCK_S))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([*names, x509.DNSName("localhost")]), critical=False)
        .sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    )
    secret = out / "tls.key"
    secret.touch(mode=0o600)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (out / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    shutil.copyfile(authority / "tls.crt", out / "ca.crt")


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]), os.environ["POD_IP"])
