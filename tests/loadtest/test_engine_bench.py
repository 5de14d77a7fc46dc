"""The engine benchmark measures what it says: the baseline speaks the engine's codes, and needs nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from chroma_models.checkpoint.in_memory import RandomWeights
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.eager_reference import EagerReference
from loadtest import engine_bench
from loadtest.engine_streams import Baseline, Model, Streams
from tests.conftest import ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("tiny", 0, CPU, torch.float32)


def test_weights_in_memory_are_those_of_a_checkpoint(tiny: Path) -> None:
    drawn, stored = RandomWeights("tiny", seed=0), Checkpoint.open(tiny)
    for name in drawn.names("backbone") + drawn.names("decoder") + drawn.names("thinker"):
        assert torch.equal(drawn.tensor(name, CPU, torch.float32), stored.tensor(name, CPU, torch.float32)), name


@pytest.mark.parametrize("graphs", ["--graphs", "--no-graphs"])
@pytest.mark.parametrize("placement", ["fused", "split"])
def test_baseline_and_engine_speak_the_same_codes(model: Model, graphs: str, placement: str) -> None:
    args = engine_bench.parse([graphs, "--placement", placement, "--context", "40"])
    streams = Streams(model, args, 1, 12)
    baseline = Baseline(model, EagerReference(model.weights, CPU, torch.float32), 40)
    baseline.advance()  # Streams has made its first frame
    for _ in range(8):
        np.testing.assert_array_equal(streams.advance(), baseline.advance())


def test_a_run_writes_what_it_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    out = tmp_path / "run.json"
    argv = ["--size", "tiny", "--batch", "1,3", "--frames", "2", "--repeat", "1", "--baseline", "--codec"]
    try:
        assert engine_bench.main([*argv, "--reasoner", "--device", "cpu", "--json", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    written = json.loads(out.read_text())
    assert [batch["batch"] for batch in written["results"]["batches"]] == [1, 3]
    assert all(batch["speedup"] > 0 and batch["codec_ms"] > 0 for batch in written["results"]["batches"])
    assert written["machine"]["versions"]["torch"] in capsys.readouterr().out


def test_a_frame_of_the_tiny_shape_is_at_most_a_thousand_operators(model: Model) -> None:
    streams = Streams(model, engine_bench.parse(["--no-graphs"]), 1, 12)
    streams.advance()
    streams.advance()
    assert engine_bench.launches(streams.advance, CPU) <= 1000


def test_a_bare_machine_can_run_it() -> None:
    barred = ("ray", "vllm", "pydantic", "fastapi", "soundfile", "soxr", "av")
    code = f"import sys; sys.modules.update(dict.fromkeys({barred!r})); import loadtest.engine_bench"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
