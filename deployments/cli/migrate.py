"""Bring the database of voices up to this version."""

from pathlib import Path

from deployments.ingress.store.address import database_url, shown
from deployments.ingress.store.schema import migrate as run
from deployments.settings import Settings


def migrate(settings_file: Path | None, database: str | None) -> None:
    """Raises UnusableDatabase, or InvalidRequest where the URL is none."""
    told = database if database is not None else Settings.load(settings_file).models.ingress.database_url
    url = database_url(told)
    print(f"{shown(url)} has schema {run(url)}.")
