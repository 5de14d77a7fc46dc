"""`chroma tenants ...` and `chroma keys ...`, and their options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deployments.cli.tenants import Office

tenants = typer.Typer(no_args_is_help=True, help="Customers, and the share of the service that is theirs.")
keys = typer.Typer(no_args_is_help=True, help="API keys of tenants.")

Settings = Annotated[Path | None, typer.Option("--settings", help="A YAML file; see README, Settings.")]
Database = Annotated[str | None, typer.Option(help="The database's URL. Overrides the settings.")]
Tenant = Annotated[str, typer.Argument(help="1 to 64 letters, digits, dots, _ and -.")]
Streams = Annotated[int | None, typer.Option(help="Sessions, calls and requests at once.")]
PerMinute = Annotated[float | None, typer.Option(help="Seconds of speech in a minute; 0: without a limit.")]
PerDay = Annotated[float | None, typer.Option(help="Seconds of speech in a day, UTC; 0: without a limit.")]
Voices = Annotated[int | None, typer.Option(help="Stored voices.")]
Priority = Annotated[str | None, typer.Option(help="high, normal or low: who goes first.")]
Weight = Annotated[float | None, typer.Option(help="Of their share, where streams wait for each other.")]
Retention = Annotated[int | None, typer.Option("--retention-s", help="How long words of replies may be kept.")]
Enabled = Annotated[bool | None, typer.Option("--enable/--disable", help="Whether their keys work.")]
Tokens = Annotated[list[str] | None, typer.Option("--scope", help="speech, voices, usage; all by default.")]


def _office(settings: Path | None, database: str | None) -> "Office":
    from deployments.cli.tenants import Office

    return Office(settings, database)


@tenants.command("add")
def add_tenant(
    tenant: Tenant,
    streams: Streams = None,
    audio_s_per_minute: PerMinute = None,
    audio_s_per_day: PerDay = None,
    voices: Voices = None,
    priority: Priority = None,
    weight: Weight = None,
    retention_s: Retention = None,
    settings: Settings = None,
    database: Database = None,
) -> None:
    """A new tenant: 10 streams and 100 voices, where nothing else is said."""
    _office(settings, database).add(
        tenant,
        streams=streams,
        audio_s_per_minute=audio_s_per_minute,
        audio_s_per_day=audio_s_per_day,
        voices=voices,
        priority=priority,
        weight=weight,
        retention_s=retention_s,
    )


@tenants.command("change")
def change_tenant(
    tenant: Tenant,
    streams: Streams = None,
    audio_s_per_minute: PerMinute = None,
    audio_s_per_day: PerDay = None,
    voices: Voices = None,
    priority: Priority = None,
    weight: Weight = None,
    retention_s: Retention = None,
    enabled: Enabled = None,
    settings: Settings = None,
    database: Database = None,
) -> None:
    """What is not named stays. Streams that run go on, but for those of a tenant that is disabled."""
    _office(settings, database).change(
        tenant,
        streams=streams,
        audio_s_per_minute=audio_s_per_minute,
        audio_s_per_day=audio_s_per_day,
        voices=voices,
        priority=priority,
        weight=weight,
        retention_s=retention_s,
        enabled=enabled,
    )


@tenants.command("list")
def list_tenants(settings: Settings = None, database: Database = None) -> None:
    """All of them."""
    _office(settings, database).tenants()


@tenants.command("erase")
def erase_tenant(tenant: Tenant, settings: Settings = None, database: Database = None) -> None:
    """Delete everything that is stored of a tenant: voices, consents, keys and usage. There is no way back."""
    _office(settings, database).erase(tenant)


@keys.command("add")
def add_key(
    tenant: Tenant,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    scopes: Tokens = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="By default it does not.")] = None,
    settings: Settings = None,
    database: Database = None,
) -> None:
    """A new key, shown once."""
    _office(settings, database).add_key(tenant, name, scopes or [], expires_in_days)


@keys.command("list")
def list_keys(tenant: Tenant, settings: Settings = None, database: Database = None) -> None:
    """Of a tenant, newest first."""
    _office(settings, database).keys(tenant)


@keys.command("revoke")
def revoke_key(
    tenant: Tenant,
    key: Annotated[str, typer.Argument(help="Its id, as `chroma keys list` shows it.")],
    settings: Settings = None,
    database: Database = None,
) -> None:
    """For good. Every replica refuses it, and has ended its streams, within 5 s."""
    _office(settings, database).revoke(tenant, key)
