"""What a run was like, as a table."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: dict[str, Any]) -> None:
    table = Table("", *(f"{blow['blow']} of {blow['pod']}" for blow in result["blows"]), title="what callers noticed")
    for name in result["blows"][0] if result["blows"] else ():
        if name not in ("blow", "pod"):
            table.add_row(name.replace("_", " "), *(str(blow[name]) for blow in result["blows"]))
    Console(width=140).print(table)
    for fault in result["faults"][:20]:
        print(fault)
