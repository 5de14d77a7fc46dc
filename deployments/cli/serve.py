"""Run the graph on this machine."""

import contextlib
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from chroma_models.errors import StageUnavailable
from deployments.cli.checks import checked, reachable_host
from deployments.settings import Settings

READY_TIMEOUT_S = 1800.0
METRICS_PORT = 8080  # where `chroma top` looks, and Prometheus in a pod


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
    return f"{scheme}://{reachable_host(ingress)}:{ingress.http_port}"


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
    from deployments.cluster import deploy, drain, local_ray, metrics_url

    with local_ray(quiet=False, metrics_port=free_port(METRICS_PORT)):
        for name in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with SIGINT ignored
            signal.signal(name, signal.default_int_handler)
        print(f"starting the graph on {settings.models.checkpoint} ...", flush=True)
        started = time.monotonic()
        deploy(settings)
        wait_ready(base_url(settings))
        print(f"ready after {time.monotonic() - started:.0f} s: {base_url(settings)}/v1/chat/completions", flush=True)
        if settings.models.ingress.grpc_port:
            ingress = settings.models.ingress
            print(f"gRPC on {reachable_host(ingress)}:{ingress.grpc_port}", flush=True)
        print(f"metrics on {metrics_url()}; `chroma top` shows them", flush=True)
        print("Ctrl-C drains and stops.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        print("draining; Ctrl-C again stops at once ...", flush=True)
        drain()


def free_port(wanted: int) -> int:
    """The port, or 0 where somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", wanted))
        except OSError:
            return 0
    return wanted


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
