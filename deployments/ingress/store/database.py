"""The connections of one replica to the database."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from chroma_models.errors import StageUnavailable
from deployments.ingress.store.address import async_url, database_url, is_sqlite
from deployments.ingress.store.schema import prepare

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECTIONS = 5  # of a replica; a look-up holds one for about a millisecond


class Database:
    """Open from open() to close(). Several processes share it, and each sees at once what another committed."""

    def __init__(self, url: str | None, timeout_s: float) -> None:
        """timeout_s: for a connection, a lock and the statements of a session together."""
        self._url, self._timeout_s = url, timeout_s
        self._engine: AsyncEngine | None = None
        self._sessions: async_sessionmaker[AsyncSession] | None = None
        self._running = 0  # sessions
        self._idle = asyncio.Event()
        self._idle.set()

    async def open(self) -> None:
        """Raises UnusableDatabase, or InvalidRequest for a URL that is none. Does nothing the second time."""
        if self._engine is not None:
            return
        url = database_url(self._url)
        await asyncio.to_thread(prepare, url)
        connect = {"timeout" if is_sqlite(url) else "connect_timeout": max(1, round(self._timeout_s))}
        self._engine = create_async_engine(
            async_url(url),
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=self._timeout_s,
            pool_pre_ping=not is_sqlite(url),
            connect_args=connect,
        )
        if is_sqlite(url):
            event.listen(self._engine.sync_engine, "connect", _on_connect)
        session = _WholeStatements if is_sqlite(url) else AsyncSession
        self._sessions = async_sessionmaker(self._engine, class_=session, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self._engine is not None and self._engine.dialect.name == "sqlite"

    async def close(self) -> None:
        """From now on nothing is begun; what runs is waited for, within timeout_s: a connection that is taken away in
        the middle of a transaction never answers."""
        self._sessions = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._idle.wait()
        if self._engine is not None:
            await self._engine.dispose()
        self._engine = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One transaction, committed where the block ends well.

        Raises StageUnavailable where the database does not answer in time; IntegrityError is the block's to explain.
        """
        lost = StageUnavailable("The database does not answer; please try again.", 1.0)
        if self._sessions is None:
            raise lost
        self._running += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(self._timeout_s) as limit, self._sessions.begin() as session:
                yield session
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout) as error:
            log.error("the database failed", exc_info=error)
            raise lost from error
        except TimeoutError as error:
            if not limit.expired():
                raise
            log.error("the database took longer than %g s", self._timeout_s)
            raise lost from error
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()


class _WholeStatements(AsyncSession):
    """Who is cancelled learns it when his statement has ended.

    SQLAlchemy gives a connection up in the middle of whose statement somebody is cancelled, and SQLite closes one only
    once its last cursor is gone. That hangs in a ring of exceptions until the garbage collector comes by, which is
    seldom, and holds the lock to write: everybody else would wait in vain. SQLite's statements end by themselves, at
    the latest when they have waited for the lock as long as they may.
    """

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await _whole(super().execute(*args, **kwargs))

    async def scalar(self, *args: Any, **kwargs: Any) -> Any:
        return await _whole(super().scalar(*args, **kwargs))

    async def scalars(self, *args: Any, **kwargs: Any) -> Any:
        return await _whole(super().scalars(*args, **kwargs))

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        return await _whole(super().get(*args, **kwargs))

    async def flush(self, *args: Any, **kwargs: Any) -> None:
        await _whole(super().flush(*args, **kwargs))


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # once is enough: it is raised below
                await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("a statement that nobody waited for any more failed: %s", error)
        raise


def _on_connect(connection: Any, _: object) -> None:
    """foreign_keys is off by default; with WAL, NORMAL loses no commit but to a power cut."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
