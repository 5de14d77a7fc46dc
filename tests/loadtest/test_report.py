"""The README's table is what the results say, and nothing else."""

import json
from pathlib import Path

import pytest

from loadtest.report import __main__ as report
from loadtest.report.__main__ import END, START, between, read
from loadtest.report.comparison import table

MACHINE = {"date": "2026-01-02", "cpu": "a cpu", "cores": 2, "gpu": None, "python": "3.11", "versions": {}}
H200 = MACHINE | {"gpu": "NVIDIA H200"}
FIGURES = {"min": 0.01, "p50": 0.02, "p95": 0.03, "p99": 0.04, "max": 0.05, "n": 5}


def alone(machine: dict[str, object], checkpoint: str) -> dict[str, object]:
    entry = {"streams": 1, "rtf": FIGURES, "first_audio_s": FIGURES, "turns_with_underrun": 0, "busy_share": {}}
    return {"benchmark": "pipeline", "machine": machine, "checkpoint": checkpoint, "by_streams": [entry]}


def stepped(machine: dict[str, object], size: str = "full") -> dict[str, object]:
    entry = {"batch": 1, "frame_ms": 2.0, "codec_ms": 1.6, "codec_group_ms": 0.8, "reasoner_ms": 1.2, "rtf": 0.06}
    return {"machine": machine, "results": {"size": size, "batches": [entry]}}


def test_what_nobody_measured_says_so() -> None:
    assert table({}).count("not measured yet") == 3
    assert table({"cpu": alone(MACHINE, "checkpoints/full"), "mid": stepped(H200, "mid")}).count("not measured") == 3
    assert table({"tiny": alone(H200, "checkpoints/tiny"), "cpu": stepped(MACHINE)}).count("not measured yet") == 3


def test_a_full_run_on_the_papers_gpu_stands_beside_its_figures() -> None:
    rows = table({"h200": alone(H200, "checkpoints/full"), "h200/fused": stepped(H200)}).splitlines()
    assert rows[2].startswith("| RTF, one stream, H200, step times of all stages added up | 0.43 | 0.060; 0.050 with")
    assert rows[2].endswith("| NVIDIA H200, 2026-01-02 |")
    assert rows[4].startswith("| first audio after commit, H200 | 147 ms (first token) | 20 ms |")


def test_only_what_stands_between_the_markers_changes() -> None:
    assert between(f"a\n{START}\nold\n{END}\nb", "new") == f"a\n{START}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="lacks"):
        between("no markers", "new")


def test_check_notices_a_stale_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results"
    results.mkdir()
    (results / "h200.json").write_text(json.dumps(alone(H200, "full")))
    readme.write_text(f"{START}\n{END}\n")
    asked = ["report", "--results", str(results), "--readme", str(readme)]
    for arguments, code in ((["--check"], 1), ([], 0), (["--check"], 0)):
        monkeypatch.setattr("sys.argv", [*asked, *arguments])
        assert report.main() == code
    assert table(read(results)) in readme.read_text()
    readme.write_text(readme.read_text().replace("20 ms", "10 ms"))
    monkeypatch.setattr("sys.argv", [*asked, "--check"])
    assert report.main() == 1
