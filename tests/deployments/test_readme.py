"""What the README says is so: its commands, its tree, its settings, its examples."""

import ast
import re
import shlex
import subprocess
import sys
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import typer.main
import yaml

from deployments.cli.main import app
from deployments.settings import Settings
from tests.clients.examples import EXAMPLES
from tests.clients.examples import QUESTION as QUESTION_24K
from tests.conftest import ROOT
from tests.deployments.graph import QUESTION, Graph
from tests.readme import LOCAL, blocks

VOICE = ROOT / "deployments" / "ingress" / "voices" / "default.flac"
LOCAL_GRPC = "127.0.0.1:8001"


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(("make ", "chroma "))]


@pytest.mark.parametrize("line", commands())
def test_every_command_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        variables = re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        assert all(word.split("=")[0] in variables for word in words[2:])
        return
    group = typer.main.get_command(app)
    command, at = group.commands[words[1]], 2  # type: ignore[attr-defined]
    while hasattr(command, "commands"):
        command, at = command.commands[words[at]], at + 1
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words[at:] if word.startswith("--")} <= options


def test_the_tree_is_the_tree() -> None:
    tree = next(block for block in blocks("") if "what crosses from stage to stage" in block)
    folder = Path()
    named: set[str] = set()
    for line in tree.splitlines():
        entry = line.strip().split("  ")[0]
        for name in entry.split():
            path = folder / name if line.startswith("  ") else Path(name)
            assert (ROOT / path).exists(), path
            named.add(str(path))
        if not line.startswith(" "):
            folder = Path(entry)
    for part in ("chroma_models", "deployments"):
        for path in (ROOT / part).iterdir():
            if path.name not in ("__init__.py", "__pycache__"):
                assert str(path.relative_to(ROOT)) in named, path


def test_the_settings_shown_are_settings(tmp_path: Path) -> None:
    shown = next(block for block in blocks("yaml"))
    file = tmp_path / "settings.yaml"
    file.write_text(shown)
    loaded = Settings.load(file).model_dump()
    defaults = Settings.load().model_dump()
    tree = yaml.safe_load(shown)
    for part in ("models", "serving"):  # shown with their defaults; scale is an example
        for stage, fields in tree[part].items():
            assert loaded[part][stage] == defaults[part][stage], (part, stage, fields)


@pytest.mark.serve
def test_the_python_example_hears_a_reply(graph: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "question.wav").write_bytes(QUESTION.read_bytes())
    hears_four_seconds(next(block for block in blocks("python")).replace(LOCAL, graph.url), tmp_path)


@pytest.mark.serve
def test_the_grpc_example_hears_a_reply(graph: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "question.wav").write_bytes(QUESTION.read_bytes())
    example = next(block for block in blocks("python") if "import grpc" in block)
    hears_four_seconds(example.replace(LOCAL_GRPC, graph.grpc), tmp_path)


def hears_four_seconds(example: str, folder: Path) -> None:
    """Runs an example that leaves its reply in pcm."""
    script = folder / "example.py"
    script.write_text(example + "\nopen('reply.pcm', 'wb').write(pcm)\n")
    subprocess.run([sys.executable, script], check=True, timeout=120)
    samples = np.frombuffer((folder / "reply.pcm").read_bytes(), np.int16)
    assert len(samples) == 4 * 24_000
    assert samples.std() > 0


@pytest.mark.serve
def test_the_realtime_example_hears_a_reply(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "question.wav").write_bytes(QUESTION_24K.read_bytes())
    (example,) = (block for block in blocks("python") if "client.realtime.connect" in block)
    script = tmp_path / "example.py"
    script.write_text(example.replace(LOCAL, graph.url))
    done = subprocess.run(
        [sys.executable, script], check=True, timeout=240, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip()
    with wave.open(str(tmp_path / "reply.wav")) as reply:
        samples = np.frombuffer(reply.readframes(reply.getnframes()), np.int16)
    assert len(samples) >= 24_000
    assert samples.std() > 0


def test_examples_that_need_another_environment_are_run_by_make_test_clients() -> None:
    def runs_here(block: str) -> bool:
        imports = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names] for node in imports
        ]
        return all(find_spec(str(name).partition(".")[0]) for each in names for name in each)

    assert {block for block in blocks("python") if not runs_here(block)} == {example.code() for example in EXAMPLES}


@pytest.mark.serve
def test_the_curl_example_brings_a_wav(graph: Graph) -> None:
    line = next(block for block in blocks("bash") if block.startswith("curl")).replace(LOCAL, graph.url)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True)
    message = httpx.Response(200, text=done.stdout).json()["choices"][0]["message"]
    assert message["audio"]["transcript"]
    assert message["audio"]["data"].startswith("UklGR")  # RIFF


def record(folder: Path) -> None:
    """The recordings that the examples about voices name."""
    clip, rate = soundfile.read(VOICE)
    for name in ("consent.wav", "ada.wav"):
        soundfile.write(folder / name, clip, rate)


@pytest.mark.serve
def test_the_python_example_of_voices_answers_in_one(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path)
    example = next(block for block in blocks("python") if "voice_consents" in block).replace(LOCAL, graph.url)
    script = tmp_path / "example.py"
    script.write_text(example + "\nprint(voice.id, len(reply.choices[0].message.audio.data))\n")
    done = subprocess.run([sys.executable, script], check=True, timeout=120, capture_output=True, text=True)
    voice_id, size = done.stdout.split()
    assert voice_id in {voice["id"] for voice in httpx.get(f"{graph.url}/v1/audio/voices").json()["data"]}
    assert int(size) > 2 * 2 * 24_000


@pytest.mark.serve
def test_the_curl_examples_of_voices_make_one(graph: Graph, tmp_path: Path) -> None:
    record(tmp_path)
    block = next(block for block in blocks("bash") if "voice_consents" in block).replace(LOCAL, graph.url)
    consent, voice, listed = block.replace("\\\n", " ").splitlines()

    def run(line: str) -> dict[str, Any]:
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path
        )
        return httpx.Response(200, text=done.stdout).json()

    made = run(voice.replace("cons_...", run(consent)["id"]))
    assert made["object"] == "audio.voice"
    assert made["id"] in {voice["id"] for voice in run(listed)["data"]}


@pytest.mark.serve
def test_ask_writes_a_reply_in_the_voice_of_a_clip(graph: Graph, tmp_path: Path) -> None:
    out = tmp_path / "reply.wav"
    chroma = Path(sys.executable).parent / "chroma"
    voice = ["--voice", str(QUESTION), "--transcript", "What is the weather like?"]
    arguments = [chroma, "ask", str(QUESTION), *voice, "--out", str(out), "--url", graph.url, "--max-reply-s", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert "first audio" in done.stdout
    assert "RTF" in done.stdout
    assert "codec.decode" in done.stdout
    samples, rate_hz = soundfile.read(out, dtype="int16")
    assert rate_hz == 24_000
    assert samples.shape == (12 * 1920,)  # whole frames, no longer than asked
    assert samples.std() > 0
    verify = [chroma, "verify", str(out), "--keys", f"{graph.url}/v1/provenance/keys"]
    told = subprocess.run(verify, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
