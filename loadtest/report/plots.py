"""First audio against the number of streams."""

from collections.abc import Iterator
from pathlib import Path

from loadtest.report.cells import Result


def plots(results: dict[str, Result], folder: Path) -> Iterator[Path]:
    """For every result that has several numbers; gives the files written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name, result in results.items():
        lines = {"": [e for e in result.get("by_streams", []) if "streams" in e]}
        lines |= {f"{r['reasoner']}, {r['placement']}": r["by_listeners"] for r in result.get("real_time", [])}
        lines = {label: entries for label, entries in lines.items() if len(entries) > 1}
        if not lines:
            continue
        figure, axes = pyplot.subplots(figsize=(6, 4))
        for label, entries in lines.items():
            x = [e.get("streams", e.get("listeners")) for e in entries]
            for share, style in (("p50", "-"), ("p95", "--")):
                y = [1000 * e["first_audio_s"].get(share, float("nan")) for e in entries]
                axes.plot(x, y, style, marker="o", label=f"{label} {share}".strip())
        axes.set(xlabel="streams", ylabel="first audio, ms", xscale="log", ylim=(0, None), title=name)
        axes.legend()
        figure.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(figure)
        yield folder / f"{name}.png"
