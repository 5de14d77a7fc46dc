"""A server of our own to measure: a checkpoint of random weights, and `chroma serve` on a free port."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

CHROMA = Path(sys.executable).with_name("chroma")
READY_TIMEOUT_S = 300.0
DRAIN_TIMEOUT_S = 60.0


class NoServer(Exception):
    """The server did not start; the message ends with the last of what it said."""


@dataclass(frozen=True)
class Server:
    url: str
    grpc: str  # HOST:PORT
    pid: int  # of `chroma serve`; its descendants are the stages


def random_checkpoint(folder: Path, size: str = "tiny") -> Path:
    """Made once, with random weights in the real layout."""
    if not (folder / "config.json").exists():
        subprocess.run([CHROMA, "make-checkpoint", str(folder), "--size", size], check=True)
    return folder


def room(listeners: int, reasoner: str, placement: str) -> dict[str, str]:
    """Settings of a server with room for so many listeners on every stage: it is late rather than refuse one."""
    requests = {
        f"CHROMA_SCALE__{s}__MAX_ONGOING_REQUESTS": str(4 * listeners + 64) for s in ("CODEC", "BACKBONE", "REASONER")
    }
    slots = {f"CHROMA_MODELS__{s}__SLOTS": str(listeners + 8) for s in ("CODEC", "BACKBONE", "REASONER")}
    return {
        **requests,
        **slots,
        "CHROMA_MODELS__INGRESS__MAX_CONCURRENT": str(4 * listeners + 64),
        "CHROMA_SERVING__LIMITS__MAX_LOAD": "100",
        "CHROMA_SERVING__LIMITS__ADMIT_TIMEOUT_S": "10",
        "CHROMA_MODELS__REASONER__ENGINE": reasoner,
        "CHROMA_MODELS__REASONER__MAX_MODEL_LEN": "2048",
        "CHROMA_MODELS__PLACEMENT": placement,
    }


@contextlib.contextmanager
def serving(
    checkpoint: Path, log: Path, ca: Path | None = None, nice: int = 0, /, **environment: str
) -> Iterator[Server]:
    """A graph that is ready, and open to all. environment holds settings, as CHROMA_MODELS__PLACEMENT="fused".

    ca: who signed the certificate that environment gives the server; it speaks TLS then. nice: added to its priority.
    """
    port, grpc_port = _free_port(), _free_port()
    url = f"http{'s' if ca else ''}://127.0.0.1:{port}"
    command = [
        str(CHROMA),
        "serve",
        "--checkpoint",
        str(checkpoint),
        "--port",
        str(port),
        "--grpc-port",
        str(grpc_port),
    ]
    settings = {**os.environ, "CHROMA_MODELS__INGRESS__AUTH": "false", **environment}
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=settings)
    try:
        _wait_ready(url, ca, process, log)
        yield Server(url, f"127.0.0.1:{grpc_port}", process.pid)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(DRAIN_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(url: str, ca: Path | None, process: "subprocess.Popen[bytes]", log: Path) -> None:
    trust = ssl.create_default_context(cafile=ca)
    ends_at = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < ends_at and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=2.0, verify=trust).status_code == 200:
                return
        time.sleep(0.3)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise NoServer(f"`chroma serve` did not become ready within {READY_TIMEOUT_S:g} s:\n{tail}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
