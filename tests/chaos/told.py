"""What runs were like, as a table."""

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("seed", "streams", "reasoner", "turns", "failed", "other_codes", "resumed", "underruns", "longest_pause_s")


def show(results: list[dict[str, Any]]) -> None:
    table = Table(*COLUMNS, "blows", title="what listeners noticed")
    for result in results:
        blows = ", ".join(f"{name} {count}" for name, count in result["blows"].items())
        table.add_row(*(str(result[name]) for name in COLUMNS), blows)
    Console(width=160).print(table)
    for result in results:
        for fault in result["faults"][:20]:
            print(f"seed {result['seed']}: {fault}")
