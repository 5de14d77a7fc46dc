"""chroma top shows what a running graph does, and says in one line what it cannot show."""

import asyncio
import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from deployments.cli.main import main
from deployments.cli.readings import Change, Reading
from deployments.cli.top import view
from tests.deployments.graph import Graph
from tests.deployments.observed import metrics_url
from tests.deployments.test_graph import client

PAGE = """\
# TYPE ray_chroma_step_seconds histogram
ray_chroma_step_seconds_bucket{{stage="backbone",replica="a",le="0.01"}} {fast}
ray_chroma_step_seconds_bucket{{stage="backbone",replica="a",le="0.08"}} {slow}
ray_chroma_step_seconds_bucket{{stage="backbone",replica="a",le="+Inf"}} {all}
# TYPE ray_chroma_steps_total counter
ray_chroma_steps_total{{stage="backbone",replica="a"}} {all}
ray_node_cpu_utilization{{ip="10.0.0.1"}} 3.0
"""


def reading(at: float, fast: int, slow: int, everything: int) -> Reading:
    page = PAGE.format(fast=fast, slow=slow, all=everything)
    return Reading(at, Reading.of([page, page.replace('"a"', '"b"')]).series)


def test_quantiles_are_those_of_the_time_in_between() -> None:
    change = Change(reading(10.0, 1000, 1000, 1000), reading(12.0, 1050, 1090, 1100))
    assert change.rate("steps_total", stage="backbone") == 100.0  # two replicas, 100 steps each, in 2 s
    assert change.quantile(0.25, "step_seconds", stage="backbone") == pytest.approx(0.005)
    assert change.quantile(0.5, "step_seconds", replica="a") == pytest.approx(0.01)
    assert change.quantile(0.7, "step_seconds") == pytest.approx(0.01 + 0.07 * 20 / 40)
    assert change.quantile(0.99, "step_seconds") == 0.08  # beyond the last bound nothing is known
    assert change.quantile(0.5, "step_seconds", stage="codec") is None
    assert change.ratio("steps_total", "steps_total", stage="codec") is None
    assert change.after.values("steps_total", "replica") == {"a", "b"}
    assert "node_cpu_utilization" not in change.after.series
    went = Change(reading(10.0, 9, 9, 9), reading(12.0, 1, 1, 1))
    assert went.grown("steps_total") == 0.0


def test_a_view_of_nothing_is_a_view() -> None:
    console = Console(width=120, file=io.StringIO())
    console.print(view(Change(Reading(), Reading(2.0)), {"status": "not answering"}, "chroma"))
    assert "chroma is not answering" in console.file.getvalue()  # type: ignore[attr-defined]


@contextmanager
def busy(graph: Graph) -> Iterator[None]:
    """Two people talk to it all the while."""
    over = threading.Event()

    async def talk() -> None:
        async with client() as http:
            while not over.is_set():
                await asyncio.gather(*(graph.ask(http) for _ in range(2)))

    talking = threading.Thread(target=lambda: asyncio.run(talk()))
    talking.start()
    try:
        yield
    finally:
        over.set()
        talking.join()


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code, and what stands on the terminal."""
    monkeypatch.setattr(sys, "argv", ["chroma", "top", "--once", *arguments])
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out + told.err


@pytest.mark.serve
def test_once_shows_every_stage_at_work(
    watched: Graph, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of = ["--metrics", metrics_url(), "--url", watched.url, "--application", watched.name]
    with busy(watched):
        code, text = shown(monkeypatch, capsys, *of, "--interval-s", "10")
    assert code == 0, text
    assert "watched is ready, probe ok" in text
    assert "first audio p50 " in text
    assert "first audio p50 -" not in text
    table = text[text.index("stage ") :].splitlines()[1:]
    rows = {words[0]: words[1:] for line in table if (words := line.split())}
    assert list(rows) == ["ingress", "codec", "backbone", "decoder", "reasoner"]
    for stage in ("codec", "backbone", "reasoner"):
        assert rows[stage][0] == "1"  # replica
        assert rows[stage][2].endswith("/16")  # slots
    for stage in ("codec", "backbone", "decoder", "reasoner"):
        rtf, rows_a_step = float(rows[stage][-1]), float(rows[stage][-2])
        assert rtf > 0
        assert 1 <= rows_a_step <= 6
        assert float(rows[stage][-4]) > 0  # the p95 of its steps
    assert rows["ingress"][2].endswith("/6")


@pytest.mark.serve
def test_what_cannot_be_shown_is_one_line(
    watched: Graph, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [
        (["--metrics", metrics_url(), "--application", "elsewhere"], "There is no application elsewhere"),
        (["--metrics", "http://127.0.0.1:9/metrics"], "No metrics at http://127.0.0.1:9/metrics"),
        (["--metrics", "nowhere"], "nowhere is no address"),
        (["--metrics", f"{watched.url}/healthz"], "There is no application chroma"),
        (["--metrics", f"{watched.url}/v1/nothing"], "answers with 404"),
    ]
    for arguments, sentence in wrong:
        code, text = shown(monkeypatch, capsys, *arguments)
        assert code == 2, text
        assert sentence in text
        assert len(text.strip().splitlines()) == 1
