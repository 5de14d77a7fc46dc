"""A pod's own certificate is one that others of the same authority believe."""

import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from deployments.render.certificate import make


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::7"])
def test_it_is_believed_for_its_address_alone(tmp_path: Path, address: str) -> None:
    ca, out = trustme.CA(), tmp_path / "out"
    out.mkdir()
    ca.cert_pem.write_to_path(str(tmp_path / "tls.crt"))
    ca.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    make(tmp_path, out, address)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(out / "tls.crt", out / "tls.key")
    assert (out / "tls.key").stat().st_mode & 0o077 == 0
    check = ["openssl", "verify", "-CAfile", str(out / "ca.crt"), "-verify_ip"]
    for asked, right in ((address, True), ("127.0.0.1", True), ("10.9.9.9", False)):
        done = subprocess.run([*check, asked, str(out / "tls.crt")], capture_output=True, timeout=30, check=False)
        assert (done.returncode == 0) is right, done.stderr
