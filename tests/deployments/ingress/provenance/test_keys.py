"""Where the signing key comes from, and what is published of it."""

import json
import logging
from pathlib import Path

import pytest

from chroma_models.errors import InvalidRequest
from deployments.app import with_secrets
from deployments.ingress.config import IngressConfig
from deployments.ingress.provenance.keys import SigningKey, checked, draw, published
from deployments.ingress.provenance.statement import Provenance
from deployments.settings import Models
from tests.deployments.ingress.provenance.replies import Signer

RSA = """-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf
9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==
-----END PUBLIC KEY-----"""


def test_every_replica_of_a_deployment_signs_with_one_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        models = with_secrets(Models())
        replicas = [SigningKey.of(models.ingress) for _ in range(3)]
    assert len({key.id for key in replicas}) == 1
    assert len(caplog.records) == 1  # that it was drawn, once
    assert "PRIVATE" not in caplog.text


def test_a_key_of_the_operators_is_used_from_either_place(tmp_path: Path) -> None:
    pem = draw()
    file = tmp_path / "key.pem"
    file.write_text(pem)
    ids = {SigningKey.of(IngressConfig(signing_key=pem)).id, SigningKey.of(IngressConfig(signing_key_file=file)).id}
    assert len(ids) == 1
    drawn = with_secrets(Models.model_validate({"ingress": {"signing_key_file": file}}))
    assert drawn.ingress.signing_key is None


def test_what_an_earlier_key_signed_still_holds(tmp_path: Path) -> None:
    earlier = Signer(tmp_path)
    _, statement = earlier.sealed("pcm16")
    config = IngressConfig(signing_key=draw(), retired_keys_file=earlier.keys)
    keys = published(config, SigningKey.of(config))["keys"]
    assert len(keys) == 2
    assert checked(statement["jws"], keys)[0]["response"] == "chatcmpl-1"


@pytest.mark.parametrize("pem", ["", "not a key", RSA, draw()[:60]])
def test_what_is_no_key_is_refused_in_one_line_that_does_not_show_it(pem: str, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(pem)
    with pytest.raises(InvalidRequest, match="openssl genpkey") as refused:
        Provenance(IngressConfig(signing_key_file=file))
    assert "\n" not in refused.value.message
    assert not pem or pem not in refused.value.message


def test_a_key_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"missing\.pem cannot be read"):
        Provenance(IngressConfig(signing_key_file=tmp_path / "missing.pem"))


def test_a_private_key_among_the_retired_ones_is_refused_rather_than_published(tmp_path: Path) -> None:
    key = SigningKey.of(IngressConfig(signing_key=draw()))
    file = tmp_path / "retired.json"
    file.write_text(json.dumps({"keys": [{**key.public, "d": key.public["x"]}]}))
    with pytest.raises(InvalidRequest, match="no set of public keys"):
        Provenance(IngressConfig(retired_keys_file=file))
