"""What results are read as, and how figures are written in a table."""

from collections.abc import Iterable, Iterator
from typing import Any

Result = dict[str, Any]


def of(results: dict[str, Result], benchmark: str) -> list[Result]:
    return [result for result in results.values() if result.get("benchmark") == benchmark]


def engines(results: dict[str, Result]) -> Iterator[tuple[Result, list[Result]]]:
    """Runs of the engine benchmark at full size, and their batches."""
    for result in results.values():
        found = result.get("results")
        if isinstance(found, dict) and found.get("size") == "full":
            yield result, found["batches"]


def where(result: Result) -> str:
    on = result["machine"]
    return f"{on['gpu'] or '{} CPU cores'.format(on['cores'])}, {on['date']}"


def ms(values: dict[str, float]) -> str:
    return f"{1000 * values['p50']:.0f} / {1000 * values['p95']:.0f}" if values else "-"


def number(values: dict[str, float]) -> str:
    return f"{values['p50']:.3f} / {values['p95']:.3f}" if values else "-"


def markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    body = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body]).replace("|  |", "| |")
