"""The README's examples that need a client's own environment: each listens to question.wav and writes reply.wav."""

import shutil
import time
import wave
from dataclasses import dataclass
from pathlib import Path

from tests.clients import environments
from tests.clients.clients import SCRIPTS, Outcome, run
from tests.readme import LOCAL, blocks

QUESTION = SCRIPTS / "speech" / "question.wav"


@dataclass(frozen=True)
class Example:
    client: str
    environment: str
    imports: str  # tells its block from the others

    def code(self) -> str:
        """Its block of the README, whole."""
        (block,) = (block for block in blocks("python") if self.imports in block)
        return block

    def run(self, url: str, folder: Path) -> Outcome:
        """As the README has it, but for the address. It fails unless speech was written."""
        place = folder / self.environment
        place.mkdir()
        shutil.copy(QUESTION, place / "question.wav")
        here = url.removeprefix("http://")
        (place / "example.py").write_text(self.code().replace(LOCAL.removeprefix("http://"), here))
        began_at = time.monotonic()
        _, failure = run([str(environments.python(self.environment)), "example.py"], {}, place)
        steps = {} if failure else {"turn_1": f"{_speech_s(place / 'reply.wav'):.1f} s"}
        if steps == {"turn_1": "0.0 s"}:
            failure = "reply.wav is empty"
        return Outcome(f"README: {self.client}", time.monotonic() - began_at, steps, failure)


def _speech_s(file: Path) -> float:
    with wave.open(str(file)) as clip:
        return clip.getnframes() / clip.getframerate()


EXAMPLES = (
    Example("pipecat-ai", "pipecat", "from pipecat"),
    Example("livekit-agents", "livekit", "from livekit"),
)
