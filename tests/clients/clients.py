"""The clients: each a script in an environment of its own, run against one server."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.clients import environments

SCRIPTS = Path(__file__).with_name("scripts")
PATIENCE_S = 240.0  # for a whole conversation; each of its steps has a shorter one


@dataclass(frozen=True)
class Outcome:
    """What became of one client's conversation, as its script told."""

    client: str
    seconds: float
    steps: dict[str, str]  # version, turn_1, barge_in, turn_2; empty where it failed
    failure: str = ""  # the last of what the script said


@dataclass(frozen=True)
class Client:
    name: str  # as its registry knows it
    environment: str  # a lock of tests/clients/environments
    script: str
    tls: bool = False  # it speaks no other way

    def prepare(self) -> None:
        """Make its environment where it is not there yet. Raises NoEnvironment."""
        self._command()

    def talk(self, url: str, ca: Path | None = None) -> Outcome:
        """Hold the conversation with the server at url; ca is whom to trust for it."""
        told = {"CHROMA_URL": f"{url}/v1", **({"NODE_EXTRA_CA_CERTS": str(ca)} if ca else {})}
        began_at = time.monotonic()
        said, failure = run(self._command(), told, environments.BUILT)
        seconds = time.monotonic() - began_at
        return Outcome(self.name, seconds, {} if failure else json.loads(said.splitlines()[-1]), failure)

    def _command(self) -> list[str]:
        if not self.script.endswith(".mjs"):
            return [str(environments.python(self.environment)), str(SCRIPTS / self.script)]
        folder = environments.node()
        for file in SCRIPTS.glob("*.mjs"):  # ES modules find their packages beside themselves alone
            shutil.copy(file, folder)
        shutil.copytree(SCRIPTS / "speech", folder / "speech", dirs_exist_ok=True)
        return ["node", str(folder / self.script)]


def run(command: list[str], told: dict[str, str], folder: Path) -> tuple[str, str]:
    """What a command said, and the last of it where it failed or took too long. told: more environment."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        command, cwd=folder, env={**environment, **told}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
        return said, "" if process.returncode == 0 else _tail(said)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        return said, f"{_tail(said)}\nended after {PATIENCE_S:g} s"


def _tail(said: str) -> str:
    return "\n".join(said.splitlines()[-15:]) or "it said nothing"


CLIENTS = (
    Client("openai", "openai-python", "openai_python.py"),
    Client("openai-agents", "openai-agents", "openai_agents.py"),
    Client("pipecat-ai", "pipecat", "pipecat_ai.py"),
    Client("livekit-agents", "livekit", "livekit_agents.py"),
    Client("@openai/agents-realtime", "npm", "agents_realtime.mjs"),
    Client("openai (npm)", "npm", "openai_npm.mjs", tls=True),
)
