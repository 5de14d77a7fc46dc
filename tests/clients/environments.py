"""An environment for each client under build/clients, made once for each version of its lock."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = Path(__file__).with_name("environments")
BUILT = ROOT / "build" / "clients"


class NoEnvironment(Exception):
    """An environment could not be made; the message ends with the last of what the installer said."""


def python(name: str) -> Path:
    """The interpreter of a virtual environment that holds environments/NAME.txt. Raises NoEnvironment."""
    lock = LOCKS / f"{name}.txt"
    folder = BUILT / name
    if not _is_made(folder, lock):
        _run(name, [sys.executable, "-m", "venv", str(folder)])
        # The lock is whole: resolving it again could only disagree with it.
        quiet = ["--disable-pip-version-check", "--progress-bar", "off"]
        _run(name, [str(folder / "bin" / "pip"), "install", *quiet, "--no-deps", "-r", str(lock)])
        _say_made(folder, lock)
    return folder / "bin" / "python"


def node() -> Path:
    """A folder with the npm packages of environments/package-lock.json. Raises NoEnvironment."""
    lock = LOCKS / "package-lock.json"
    folder = BUILT / "npm"
    if shutil.which("npm") is None:
        raise NoEnvironment("npm is not installed (Debian: apt install nodejs npm).")
    if not _is_made(folder, lock):
        folder.mkdir(parents=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(LOCKS / file, folder)
        _run("npm", ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)])
        _say_made(folder, lock)
    return folder


def _is_made(folder: Path, lock: Path) -> bool:
    """What is there for another lock or interpreter, or was cut short, is removed."""
    stamp = folder / ".made"
    if stamp.exists() and stamp.read_text() == _content(lock):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _say_made(folder: Path, lock: Path) -> None:
    (folder / ".made").write_text(_content(lock))


def _content(lock: Path) -> str:
    return f"{sys.version_info[:2]} {BUILT} {hashlib.sha256(lock.read_bytes()).hexdigest()}"


def _run(name: str, command: list[str]) -> None:
    print(f"making the environment of {name} ...", flush=True)
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise NoEnvironment(f"The environment of {name} could not be made:\n{tail}")
