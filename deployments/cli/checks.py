"""What can be told before anything starts: an operator's mistake is one line that says how to mend it, at once."""

import asyncio
import ipaddress
import socket
from pathlib import Path
from typing import Any

from chroma_models.errors import InvalidRequest
from deployments.ingress.config import IngressSizes
from deployments.settings import Settings

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # and where this machine itself is then reached
DESCRIPTIONS = ("tokenizer.json", "preprocessor_config.json")  # read by the Reasoner, long after the weights


def checked(settings: Settings) -> Settings:
    """Look at ports, files, database, checkpoint and GPUs, the quickest first; fetch the checkpoint.

    Returns settings with paths that replicas find, and with a share of the GPU for each stage where none was asked
    for. Raises a ChromaError for the first thing that is wrong.
    """
    _check_ports(settings.models.ingress)
    settings = _with_files(settings)
    from chroma_models.checkpoint.architecture import read_json
    from chroma_models.checkpoint.fetch import resolve
    from chroma_models.checkpoint.weights import Checkpoint
    from deployments.app import fit_to_gpu
    from deployments.cli.devices import check_devices

    folder = resolve(settings.models.checkpoint, lambda line: print(line, flush=True))
    checkpoint = Checkpoint.open(folder)
    for name in DESCRIPTIONS:
        read_json(folder / name)
    if Path(settings.models.checkpoint).exists():  # replicas run in folders of their own
        models = settings.models.model_copy(update={"checkpoint": str(folder.resolve())})
        settings = settings.model_copy(update={"models": models})
    check_devices(settings, checkpoint.architecture)
    return fit_to_gpu(settings)


def reachable_host(ingress: IngressSizes) -> str:
    """Where this machine reaches the ingress, as it stands in a URL."""
    host = EVERYWHERE.get(ingress.host, ingress.host)
    return f"[{host}]" if ":" in host else host


def _with_files(settings: Settings) -> Settings:
    """Keys, certificate and database looked at once, and named so that replicas find them."""
    from deployments.ingress.api_key import pepper
    from deployments.ingress.provenance.keys import check
    from deployments.ingress.store.address import database_url
    from deployments.ingress.store.schema import has_keys, prepare
    from deployments.ingress.tls import Certificate
    from deployments.ingress.watermark import factory_of

    ingress = settings.models.ingress
    if not ingress.auth and not is_loopback(ingress.host):
        raise InvalidRequest(
            f"Without authentication anybody could call: --no-auth is for the loopback, and {ingress.host} is not. "
            "Leave it out, or choose --host 127.0.0.1."
        )
    Certificate.of(ingress)
    check(ingress)
    if ingress.watermark is not None:
        factory_of(ingress.watermark)
    database = database_url(ingress.database_url)
    prepare(database)
    if ingress.auth:
        pepper(ingress.key_secret, database)
        if not has_keys(database):
            print(
                "No API keys exist yet, so nobody may call: `chroma tenants add NAME`, then `chroma keys add NAME`; "
                "or start with --no-auth on the loopback.",
                flush=True,
            )
    named = ("tls_cert_file", "tls_key_file", "signing_key_file", "retired_keys_file")
    found: dict[str, Any] = {name: path.resolve() for name in named if (path := getattr(ingress, name)) is not None}
    found["database_url"] = database.render_as_string(hide_password=False)
    ingress = ingress.model_copy(update=found)
    return settings.model_copy(update={"models": settings.models.model_copy(update={"ingress": ingress})})


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name that may lead anywhere


def _check_ports(ingress: IngressSizes) -> None:
    if not ingress.http_port:
        raise InvalidRequest("Port 0 is any free port, and nobody would know which: choose one with --port.")
    if ingress.http_port == ingress.grpc_port:
        raise InvalidRequest(f"Port {ingress.http_port} is named for HTTP and for gRPC: choose another --grpc-port.")
    _check_port(ingress, ingress.http_port, "--port")
    if ingress.grpc_port:
        _check_port(ingress, ingress.grpc_port, "--grpc-port")


def _check_port(ingress: IngressSizes, port: int, option: str) -> None:
    """Replicas share their ports with SO_REUSEPORT, so another server on one would silently take half the calls."""
    from deployments.ingress.sockets import bound

    try:
        socket.create_connection((reachable_host(ingress).strip("[]"), port), timeout=2.0).close()
    except socket.gaierror:
        raise InvalidRequest(f"{ingress.host} is no address of this machine; choose another with --host.") from None
    except OSError:  # nobody answers there, but perhaps it cannot be had either
        asyncio.run(bound(ingress.host, port, option)).close()
        return
    raise InvalidRequest(f"Port {port} is taken; choose another with {option}, or stop what listens there.")
