"""A mistake on the command line is one line that says how to mend it, and exit code 2."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployments.graph import QUESTION

CHROMA = Path(sys.executable).parent / "chroma"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CHROMA, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def refused(*arguments: object, saying: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert saying in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    """test_start.py has every other case of `chroma serve`, in one process."""
    refused("serve", "--checkpoint", tmp_path, saying="config.json")


def test_a_broken_checkpoint_is_refused_before_anything_starts(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused("serve", "--checkpoint", tmp_path, saying="model.safetensors")


def test_a_port_that_is_taken(tiny: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused("serve", "--checkpoint", tiny, "--port", port, saying=f"Port {port} is taken")


def test_an_address_that_is_none(tiny: Path) -> None:
    refused("serve", "--checkpoint", tiny, "--host", "nowhere.invalid", saying="--host")
    refused("serve", "--checkpoint", tiny, "--port", 0, saying="--port")


def test_a_port_that_is_taken_on_ipv6(tiny: Path) -> None:
    with socket.socket(socket.AF_INET6) as other:
        try:
            other.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        other.listen()
        port = other.getsockname()[1]
        refused("serve", "--checkpoint", tiny, "--host", "::1", "--port", port, saying=f"Port {port} is taken")


def test_asking_nobody_and_asking_with_nothing(tmp_path: Path) -> None:
    earlier = tmp_path / "r.wav"
    earlier.write_bytes(b"an earlier reply")
    refused("ask", QUESTION, "--url", "http://127.0.0.1:9", "--out", earlier, saying="chroma serve")
    assert earlier.read_bytes() == b"an earlier reply"
    refused("ask", QUESTION, "--out", tmp_path / "nowhere" / "r.wav", saying="cannot be written")
    refused("ask", tmp_path / "none.wav", saying="cannot be read")
    refused("ask", tmp_path / "notes.txt", saying="wav, mp3, flac")
    refused("ask", QUESTION, "--voice", QUESTION, saying="--transcript")


def test_parity_needs_goldens_and_tells_a_difference(tmp_path: Path, golden: Path) -> None:
    refused("parity", tmp_path, saying="meta.json")
    copy = tmp_path / "golden"
    copy.mkdir()
    for file in golden.iterdir():
        (copy / file.name).symlink_to(file)
    meta = json.loads((golden / "meta.json").read_text())
    meta["prompt_texts"] = ["Other words."] * 2
    (copy / "meta.json").unlink()
    (copy / "meta.json").write_text(json.dumps(meta))
    done = run("parity", copy, "--reasoner", "torch", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "DIFFERS" in done.stdout
    written = {"b1_row0", "b1_row1", "b2", "teacher_forced", "codec", "alt_positions_0to7"}
    assert {path.stem for path in (tmp_path / "out").iterdir()} == written


def test_parity_is_exact_on_the_torch_reasoner(golden: Path) -> None:
    done = run("parity", golden, "--reasoner", "torch")
    assert done.returncode == 0, done.stdout
    assert "19 of 19 tensors agree" in done.stdout


def test_without_authentication_only_the_loopback_is_served(tiny: Path) -> None:
    for host in ("0.0.0.0", "::"):
        refused("serve", "--checkpoint", tiny, "--no-auth", "--host", host, saying="--no-auth is for the loopback")
