"""What a run showed: a table, and a plot of every series."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: dict[str, Any]) -> None:
    table = Table("", "level", "grew by", "beyond noise", "allowed", "of a day", "", title="after the warm-up")
    for name, one in result["trends"].items():
        figures = (one[key] for key in ("level", "growth", "surely", "allowed", "per_day"))
        table.add_row(name, *(f"{figure:.2f}" for figure in figures), "flat" if one["flat"] else "GROWS")
    Console(width=140).print(table)
    plan = result["plan"]
    print(f"{plan['duration_s'] / 60:g} minutes, {plan['callers']} callers; turns: {result['turns']}")
    print(f"first audio after the warm-up, s: {result['first_audio_s']}")
    for fault in result["faults"][:20]:
        print(fault)
    print("flat" if result["flat"] else "not flat")


def plot(result: dict[str, Any], path: Path) -> None:
    """A panel for each quantity, a line for each that has it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_quantity: dict[str, list[str]] = {}
    for name in sorted(result["series"]):
        by_quantity.setdefault(name.partition(": ")[2], []).append(name)
    figure, panels = pyplot.subplots(len(by_quantity), 1, figsize=(9, 2.2 * len(by_quantity)), sharex=True)
    for panel, (quantity, names) in zip(panels, by_quantity.items(), strict=True):
        for name in names:
            one = result["series"][name]
            minutes = [t / 60 for t in one["t_s"]]
            style = {"marker": ".", "linestyle": "none"} if quantity == "first audio s" else {}
            panel.plot(minutes, one["values"], label=name.partition(": ")[0], **style)
        panel.axvline(result["plan"]["warm_up_s"] / 60, color="grey", linestyle=":")
        panel.set(ylabel=quantity, ylim=(0, None))
        panel.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    panels[-1].set(xlabel="minutes")
    figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
