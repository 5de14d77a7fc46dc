"""What benchmarks have measured on a device, out of their JSON files."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.plan.curve import Curve, Point

RESULTS = Path(__file__).resolve().parents[1] / "results"
ENGINE = {"Backbone": "backbone_ms", "Decoder": "decoder_ms", "Codec": "codec_ms", "Reasoner": "reasoner_ms"}
SIDES = 2  # of a hop: who sends and who receives
LISTS_HZ = 4.0  # that a stream sends once it plays


class BadMeasurements(ValueError):
    """A file that is none of a benchmark's; the message says which."""


@dataclass(frozen=True)
class FirstAudio:
    """One stream alone. seconds: by share of turns, as {"p95": 0.06}, and n, how many there were."""

    question_s: float
    seconds: dict[str, float]
    source: str

    def at(self, share: float) -> tuple[float, str]:
        """Seconds that a share of turns did not exceed, and where from; their median where they were too few."""
        turns = int(self.seconds["n"])
        if turns * (1 - share) >= 1:
            return self.seconds[f"p{100 * share:g}"], self.source
        return self.seconds["p50"], f"{self.source}, p50 of {turns} turns, too few for p{100 * share:g}"


@dataclass(frozen=True)
class Crowd:
    """Streams that came at random within a while, as they were heard: what a model may be held against."""

    streams: int
    first_audio_s: dict[str, float]
    source: str


@dataclass
class Measured:
    """curves by stage. hop_s: one way between two stages. host_us: of an interpreter, per stream and second."""

    curves: dict[str, Curve] = field(default_factory=dict)
    first_audio: list[FirstAudio] = field(default_factory=list)
    crowds: list[Crowd] = field(default_factory=list)
    hop_s: tuple[float, str] | None = None
    host_us: tuple[float, str] | None = None
    ingress_cores: tuple[float, str] | None = None  # of one live conversation
    files: list[str] = field(default_factory=list)


def read(paths: Iterable[Path], gpu: str, size: str = "full") -> Measured:
    """Files, or folders of them; simulations measure nothing and are left out.

    Curves and first audio are those of this GPU and size. Raises BadMeasurements.
    """
    found = Measured()
    points: dict[str, list[Point]] = {}
    for path in _files(paths):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if "simulation" in result:
                continue
            on_gpu = gpu.lower() in str(result["machine"]["gpu"] or "cpu").lower()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadMeasurements(f"{path} is not a result of a benchmark ({type(error).__name__}).") from error
        source = f"measured: {path.name}"
        engine = result.get("results")
        if (
            on_gpu
            and isinstance(engine, dict)
            and engine.get("size") == size
            and "--no-graphs" not in result["command"]
        ):
            _engine(engine["batches"], source, points)
            found.files.append(path.name)
        elif on_gpu and result.get("benchmark") == "pipeline" and size in result["checkpoint"]:
            found.first_audio += _first_audio(result, source)
            found.crowds += [
                Crowd(entry["streams"], entry["first_audio_s"], source)
                for entry in result["by_streams"]
                if entry.get("streams", 1) > 1 and entry["first_audio_s"]
            ]
            found.files.append(path.name)
        elif result.get("benchmark") == "graph":
            _graph(result, source, found)
        elif result.get("benchmark") == "echo":
            _echo(result, source, found)
    found.curves = {name: Curve.of(each) for name, each in points.items()}
    return found


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        files += sorted(path.rglob("*.json")) if path.is_dir() else [path]
    return files


def _engine(batches: list[dict[str, Any]], source: str, points: dict[str, list[Point]]) -> None:
    """Of the fused placement: where the planner lets a Decoder run."""
    for batch in (each for each in batches if each.get("placement", "fused") == "fused"):
        for stage, key in ENGINE.items():
            if batch.get(key) is not None:
                points.setdefault(stage, []).append(Point(batch["batch"], batch[key], source))


def _first_audio(result: dict[str, Any], source: str) -> list[FirstAudio]:
    """In one process, so without hops."""
    alone = [
        FirstAudio(entry.get("question_s", result.get("question_s", 3.0)), entry["first_audio_s"], source)
        for entry in result["by_streams"]
        if entry.get("streams", 1) == 1 and entry["first_audio_s"]
    ]
    return alone


def _graph(result: dict[str, Any], source: str, found: Measured) -> None:
    hops = max((entry for entry in result["hops"] if "hop_ms_p50" in entry), key=lambda entry: int(entry["streams"]))
    found.hop_s = (hops["hop_ms_p50"] / 1e3, source)
    cpu = max(hops["cpu_us_per_item_and_side"].values())
    found.host_us = (cpu * SIDES * LISTS_HZ, source)


def _echo(result: dict[str, Any], source: str, found: Measured) -> None:
    runs = [run for run in result["by_run"] if run["turn_detection"]]
    known = "" if runs else ", without turn detection"
    dearest = max(run["cores"] / run["streams"] for run in runs or result["by_run"])
    found.ingress_cores = (dearest, source + known)
