"""Hosts that are network namespaces: each with an address, processes, /dev/shm and Ray folder of its own.

All of it is inside one set of namespaces that ends with the command, so that nothing is left on the machine.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT

PREFIX = "10.77.0"
OUTSIDE = f"{PREFIX}.1"  # where the clients are, and what stands for Kubernetes
SPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
NEEDED = ("ip", "unshare", "mount", "chroot")

# A root of its own, made of the machine's folders, with what a pod mounts; then the command, as process 1.
CONTAINER = """
set -e
shm=$1 ray=$2 weights=$3; shift 3
mount --make-rprivate /
root=/mnt
mount -t tmpfs none $root
for folder in /*; do
  if [ -L "$folder" ]; then cp -P "$folder" "$root$folder"
  elif [ -d "$folder" ] && [ "$folder" != $root ]; then mkdir "$root$folder"; mount --rbind "$folder" "$root$folder"
  fi
done
mount -t proc proc $root/proc
mount -t tmpfs -o size="$shm" tmpfs $root/dev/shm
mkdir -p $root/tmp/ray $root/weights
mount --bind "$ray" $root/tmp/ray
mount --bind "$weights" $root/weights
exec chroot $root "$@"
"""


class NoHosts(Exception):
    """This machine lets nobody make hosts; the message says why."""


def command_inside(command: Sequence[str]) -> list[str]:
    """A command in namespaces of its own. Raises NoHosts."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise NoHosts(f"Hosts are made with {' and '.join(missing)}, which is not here (Debian: iproute2, util-linux).")
    spaces = list(SPACES) if os.geteuid() == 0 else [*SPACES, "--user", "--map-root-user"]
    tried = subprocess.run([*spaces, "true"], capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode:
        raise NoHosts(f"This machine makes no network namespaces: {tried.stderr.strip()}.")
    return [*spaces, *command]


def make_network() -> None:
    """The bridge that every host is on. Called once, inside."""
    _ip("link", "set", "lo", "up")
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    _ip("link", "add", "hosts", "type", "bridge")
    _ip("addr", "add", f"{OUTSIDE}/24", "dev", "hosts")
    _ip("link", "set", "hosts", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@dataclass
class Host:
    """One machine: what runs on it is a container at a time."""

    name: str
    number: int
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"{PREFIX}.{self.number}"

    @classmethod
    def make(cls, name: str, number: int, folder: Path) -> "Host":
        host = cls(name, number, folder / name)
        (host.folder / "ray").mkdir(parents=True)
        (host.folder / "ray").chmod(0o1777)
        _ip("netns", "add", name)
        _ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"v{number}", "master", "hosts", "up")
        for words in (
            ("addr", "add", f"{host.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", OUTSIDE),
        ):
            _ip("-n", name, *words)
        return host

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self, command: Sequence[str], environment: Mapping[str, str], weights: Path, shm: str = "64m") -> None:
        """Runs a container; what it says goes to the log."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs something"
        inside = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", CONTAINER, self.name)
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": os.environ.get("HOME", "/tmp"),
            "HOSTNAME": self.name,
        }
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *inside, shm, str(self.folder / "ray"), str(weights), *command],
                env={**own, **environment},
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def run(self, command: Sequence[str], environment: Mapping[str, str], weights: Path) -> None:
        """A container that ends by itself, as a Job's. Raises RuntimeError with what it said."""
        self.start(command, environment, weights)
        assert self.process is not None
        if self.process.wait(timeout=300):
            raise RuntimeError(f"{' '.join(command)} failed on {self.name}: {self.log.read_text()[-2000:]}")

    def terminate(self) -> None:
        """SIGTERM to process 1 of the container, and to no other."""
        assert self.process is not None
        first = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(first[0]), signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to everything on the host at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(timeout=30)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ends_within(self, seconds: float) -> float | None:
        """Seconds until the container has ended by itself; None where it has not."""
        assert self.process is not None
        began = time.monotonic()
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - began
