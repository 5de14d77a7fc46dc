"""Run the graph on this machine."""

import contextlib
import ipaddress
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from chroma_models.errors import InvalidRequest, StageUnavailable
from deployments.settings import Settings

READY_TIMEOUT_S = 1800.0


def load_settings(
    path: Path | None,
    checkpoint: str | None,
    host: str | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
    no_auth: bool = False,
) -> Settings:
    """Settings with the command line's words on top."""
    words = (("host", host), ("http_port", port), ("grpc_port", grpc_port), ("auth", False if no_auth else None))
    ingress = {k: v for k, v in words if v is not None}
    models: dict[str, Any] = {
        **({"checkpoint": checkpoint} if checkpoint else {}),
        **({"ingress": ingress} if ingress else {}),
    }
    return Settings.load(path, **({"models": models} if models else {}))


def base_url(settings: Settings) -> str:
    """Where this machine reaches the ingress; what listens everywhere is asked for on the loopback."""
    ingress = settings.models.ingress
    scheme = "https" if ingress.tls_cert_file else "http"
    return f"{scheme}://{_host(settings)}:{ingress.http_port}"


def _host(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.models.ingress.host, settings.models.ingress.host)
    return f"[{host}]" if ":" in host else host


def serve(
    path: Path | None,
    checkpoint: str | None,
    host: str | None,
    port: int | None,
    grpc_port: int | None,
    no_auth: bool = False,
) -> None:
    """Start, say where, wait for Ctrl-C or SIGTERM, drain. While it starts or drains, either stops it at once."""
    settings = checked(load_settings(path, checkpoint, host, port, grpc_port, no_auth))
    from deployments.cluster import deploy, drain, local_ray

    with local_ray(quiet=False):
        for name in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with SIGINT ignored
            signal.signal(name, signal.default_int_handler)
        print(f"starting the graph on {settings.models.checkpoint} ...", flush=True)
        started = time.monotonic()
        deploy(settings)
        wait_ready(base_url(settings))
        print(f"ready after {time.monotonic() - started:.0f} s: {base_url(settings)}/v1/chat/completions", flush=True)
        if settings.models.ingress.grpc_port:
            print(f"gRPC on {_host(settings)}:{settings.models.ingress.grpc_port}", flush=True)
        print("Ctrl-C drains and stops.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        print("draining; Ctrl-C again stops at once ...", flush=True)
        drain()


def checked(settings: Settings) -> Settings:
    """Fetch and validate the checkpoint, look at the port, before anything starts: a mistake is one line, at once."""
    from chroma_models.checkpoint.fetch import resolve
    from chroma_models.checkpoint.weights import Checkpoint
    from deployments.app import fit_to_gpu

    folder = resolve(settings.models.checkpoint, lambda line: print(line, flush=True))
    Checkpoint.open(folder)
    ingress = settings.models.ingress
    if not ingress.http_port:
        raise InvalidRequest("Port 0 is any free port, and nobody would know which: choose one with --port.")
    _check_port(_host(settings), ingress.http_port, "--port")
    if ingress.grpc_port:
        _check_port(_host(settings), ingress.grpc_port, "--grpc-port")
    if Path(settings.models.checkpoint).exists():  # replicas run in folders of their own
        models = settings.models.model_copy(update={"checkpoint": str(folder.resolve())})
        settings = settings.model_copy(update={"models": models})
    return fit_to_gpu(_with_files(settings))


def _with_files(settings: Settings) -> Settings:
    """Keys, certificate and database looked at once, and named so that replicas find them."""
    from deployments.ingress.api_key import pepper
    from deployments.ingress.provenance.keys import check
    from deployments.ingress.store.address import database_url
    from deployments.ingress.store.schema import has_keys, prepare
    from deployments.ingress.tls import Certificate

    ingress = settings.models.ingress
    if not ingress.auth and not is_loopback(ingress.host):
        raise InvalidRequest(
            f"Without authentication anybody could call: --no-auth is for the loopback, and {ingress.host} is not. "
            "Leave it out, or choose --host 127.0.0.1."
        )
    Certificate.of(ingress)
    check(ingress)
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


def _check_port(host: str, port: int, option: str) -> None:
    """Replicas share their ports with SO_REUSEPORT, so another server on one would silently take half the calls."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=2.0).close()
    except socket.gaierror:
        raise InvalidRequest(f"{host} is no address of this machine; choose another with --host.") from None
    except OSError:
        return  # nobody answers there
    raise InvalidRequest(f"Port {port} is taken; choose another with {option}, or stop what listens there.")


def wait_ready(url: str, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Until /readyz says yes. Raises StageUnavailable."""
    ends_at = time.monotonic() + timeout_s
    while time.monotonic() < ends_at:
        try:
            # our own machine is asked, by an address that its certificate need not name
            if httpx.get(f"{url}/readyz", timeout=2.0, verify=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        time.sleep(0.1)
    raise StageUnavailable(f"{url}/readyz did not become ready within {timeout_s:g} s.")
