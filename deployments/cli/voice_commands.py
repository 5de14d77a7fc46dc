"""`chroma voices ...`, and its options."""

from pathlib import Path
from typing import Annotated

import typer

voices = typer.Typer(no_args_is_help=True, help="Cloned voices, whoever they belong to.")


@voices.callback()
def _group() -> None:
    """Or the one command would be the group itself."""


@voices.command()
def audit(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    voice: Annotated[str | None, typer.Option(help="Of this voice alone.")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", help="A YAML file; see README, Settings.")] = None,
    database: Annotated[str | None, typer.Option(help="The database's URL. Overrides the settings.")] = None,
) -> None:
    """Who recorded consents, made, first used and deleted voices: a JSON object a line, oldest first."""
    from deployments.cli.voices import audit as run

    run(settings, database, tenant, voice)
