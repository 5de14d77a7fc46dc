"""Every command of k8s/README.md is one that its program knows, about things that are there."""

import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import typer.main

from deployments.cli.main import app
from tests.conftest import ROOT
from tests.k8s.graph_rules import MADE_ELSEWHERE
from tests.k8s.kustomize import K8S, OVERLAYS, built

TEXT = (K8S / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
KNOWN = ("kubectl", "chroma", "docker", "helm", "curl", "git")
OF_ALL = {"-n", "-o", "-l", "-k", "-c", "--namespace"}  # kubectl's, and options(1) of its commands by one letter


@cache
def options(*command: str) -> str:
    """What kubectl says of a command. Skips where there is none."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; Debian's kubernetes-client has it")
    return subprocess.run(
        ["kubectl", *command, "--help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str) -> None:
    words = shlex.split(re.sub(r"\$\(.*?\)", "TOLD", line))  # what the shell runs first is openssl's
    assert words[0] in KNOWN
    if words[0] == "chroma":
        _chroma(words[1:])
    elif words[0] == "kubectl":
        _kubectl(words[1:])
    for word in words:
        if word.startswith("k8s/"):
            assert (ROOT / word).exists()


def _chroma(words: list[str]) -> None:
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def _kubectl(words: list[str]) -> None:
    if words[0] == "-n":
        words = words[2:]
    if "--" in words:
        inside = words[words.index("--") + 1 :]
        words = words[: words.index("--")]
        if inside[0] == "chroma":
            _chroma(inside[1:])
    deep = 3 if words[0] == "create" and words[1] == "secret" else 2 if words[0] == "create" else 1
    text = options(*words[:deep])
    for word in words[deep:]:
        if word.startswith("--"):
            assert f"{word.split('=')[0]}=" in text, word
        elif word.startswith("-"):
            assert word in OF_ALL or f"{word}," in text or word == "-it", word


def test_what_the_commands_name_is_in_the_manifests() -> None:
    """Jobs that are waited for, the RayService, its Service, and every Secret that pods read."""
    found = [*built(K8S / "overlays" / "dev-cpu"), *built(K8S / "load-test")]
    there = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in found} | {
        "svc/chroma",
        "svc/chroma-load-test",
    }
    named = {word for line in COMMANDS for word in line.split() if re.match(r"(job|rayservice|svc)/", word)}
    assert {"job/chroma-fetch-weights", "rayservice/chroma", "svc/chroma"} <= named <= there
    made = set(re.findall(r"create secret (?:generic|tls) (\S+)", TEXT))
    assert made == MADE_ELSEWHERE


def test_every_overlay_is_told() -> None:
    assert {name for name in OVERLAYS if f"`{name}`" not in TEXT} == set()


def test_every_key_that_pods_read_is_made() -> None:
    keys = set(re.findall(r"--from-literal=(\w+)=", TEXT))
    read = re.findall(r"name: chroma-[a-z-]+\n +key: (\w+)", Path(K8S / "base" / "rayservice.yaml").read_text())
    assert read
    assert set(read) <= keys
