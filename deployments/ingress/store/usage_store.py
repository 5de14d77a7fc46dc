"""What tenants used: rows of responses, and the seconds of their windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from deployments.ingress.store.database import Database
from deployments.ingress.store.tenant_tables import LOST, RUNNING, Spent, UsageRow

MINUTE_S, DAY_S = 60, 86_400
KEPT_MINUTES, KEPT_DAYS = 60, 62  # of spent windows; quotas ask for the newest alone
GROWS = ("touched_at", "ended_at", "outcome", "spoken_s", "prompt_tokens", "text_tokens", "first_audio_s", "rtf")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DayOfKey:
    """What a key used in a day. begins_at: Unix second, UTC."""

    begins_at: int
    key_id: str
    responses: int
    completed: int
    heard_s: float
    spoken_s: float
    prompt_tokens: int
    text_tokens: int


class UsageStore:
    """Every method is one short transaction. Raises StageUnavailable where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, rows: Sequence[Row], spent: Mapping[tuple[str, int, int], float]) -> None:
        """Rows by response id, made or brought up to date; seconds added to windows (tenant, window_s, begins_at).

        A row that was closed as lost and lives after all is its response's again.
        """
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        async with self._database.session() as session:
            if rows:
                new = insert(UsageRow)
                values = {name: new.excluded[name] for name in GROWS}
                await session.execute(new.on_conflict_do_update(index_elements=["id"], set_=values), list(rows))
            if spent:
                more = insert(Spent)
                total = {"audio_s": Spent.audio_s + more.excluded.audio_s}
                keys = ["tenant", "window_s", "begins_at"]
                windows = [dict(zip((*keys, "audio_s"), (*key, s), strict=True)) for key, s in sorted(spent.items())]
                await session.execute(more.on_conflict_do_update(index_elements=keys, set_=total), windows)

    async def spent(self, tenant: str, now: float) -> tuple[float, float]:
        """Seconds of audio delivered in this minute, and in this day."""
        begins = {window_s: window_begin(now, window_s) for window_s in (MINUTE_S, DAY_S)}
        wanted = select(Spent.window_s, Spent.audio_s).where(
            Spent.tenant == tenant,
            Spent.window_s.in_(list(begins)),
            Spent.begins_at.in_(list(begins.values())),
        )
        async with self._database.session() as session:
            found = {row[0]: float(row[1]) for row in await session.execute(wanted)}
        return found.get(MINUTE_S, 0.0), found.get(DAY_S, 0.0)

    async def close_lost(self, now: float, lost_s: float) -> int:
        """Ends rows nobody touched for lost_s, at their last touch, and forgets old windows. Returns how many rows."""
        silent = (UsageRow.outcome == RUNNING, UsageRow.touched_at < now - lost_s)
        minutes = (Spent.window_s == MINUTE_S, Spent.begins_at < now - KEPT_MINUTES * MINUTE_S)
        days = (Spent.window_s == DAY_S, Spent.begins_at < now - KEPT_DAYS * DAY_S)
        async with self._database.session() as session:
            done = await session.execute(
                update(UsageRow).where(*silent).values(outcome=LOST, ended_at=UsageRow.touched_at)
            )
            for old in (minutes, days):
                await session.execute(delete(Spent).where(*old))
        return int(getattr(done, "rowcount", 0))

    async def by_day(self, tenant: str, begin: float, end: float) -> list[DayOfKey]:
        """Responses that began in [begin, end), by day and key, oldest first."""
        day = cast(func.floor(UsageRow.started_at / DAY_S), Integer) * DAY_S
        wanted = (
            select(
                day.label("day"),
                UsageRow.key_id,
                func.count(),
                func.count().filter(UsageRow.outcome == "completed"),
                func.sum(UsageRow.heard_s),
                func.sum(UsageRow.spoken_s),
                func.sum(UsageRow.prompt_tokens),
                func.sum(UsageRow.text_tokens),
            )
            .where(UsageRow.tenant == tenant, UsageRow.started_at >= begin, UsageRow.started_at < end)
            .group_by("day", UsageRow.key_id)
            .order_by("day", UsageRow.key_id)
        )
        async with self._database.session() as session:
            rows = (await session.execute(wanted)).all()
        return [
            DayOfKey(int(r[0]), r[1], int(r[2]), int(r[3]), float(r[4]), float(r[5]), int(r[6]), int(r[7]))
            for r in rows
        ]


def window_begin(now: float, window_s: int) -> int:
    return int(now // window_s) * window_s
