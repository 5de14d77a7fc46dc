"""No tenant holds more streams than its quota, on however many replicas, and what a dead replica held comes back."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from chroma_models.errors import QuotaExceeded, Unauthenticated
from deployments.ingress.callers import Caller, share_of
from deployments.ingress.permits import Permits
from deployments.ingress.store.address import database_url
from deployments.ingress.store.database import Database
from deployments.ingress.store.permit_store import PermitStore
from deployments.ingress.store.schema import migrate
from deployments.ingress.store.tenant_store import TenantStore

TTL_S = 15.0


@dataclass
class Clock:
    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Cluster:
    """Replicas over one database, with a clock that stands still."""

    tenants: TenantStore
    clock: Clock
    replicas: list[Permits]

    async def caller(self, tenant: str, streams: int) -> Caller:
        share = share_of(await self.tenants.add(tenant, {"streams": streams}))
        await self.tenants.add_key(tenant, f"key-of-{tenant}", b"", "", ["speech"], None)
        return Caller(tenant, f"key-of-{tenant}", share=share)


@pytest.fixture
async def cluster(empty: str) -> AsyncIterator[Cluster]:
    migrate(database_url(empty))
    async with AsyncExitStack() as stack:
        databases = [Database(empty, 30.0) for _ in range(3)]
        for database in databases:
            await database.open()
            stack.push_async_callback(database.close)
        clock = Clock()
        replicas = [Permits(PermitStore(database), TTL_S, 30.0, 0.05, clock) for database in databases]
        for replica in replicas:
            await replica.open()
            stack.push_async_callback(replica.close)
        yield Cluster(TenantStore(databases[0]), clock, replicas)


async def test_a_quota_holds_over_all_replicas_whoever_is_first(cluster: Cluster) -> None:
    caller = await cluster.caller("acme", 5)
    running = most = refused = served = 0
    rng = random.Random(7)

    async def one(number: int) -> None:
        nonlocal running, most, refused, served
        await asyncio.sleep(rng.random() * 0.3)
        try:
            permit = await cluster.replicas[number % 3].take(caller)
        except QuotaExceeded as error:
            refused += 1
            assert (error.quota, error.retry_after_s) == ("streams", 1.0)
            return
        async with permit:
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.2 + rng.random() * 0.5)
            running -= 1
            served += 1

    await asyncio.gather(*(one(number) for number in range(120)))
    assert 1 < most <= 5
    assert served + refused == 120
    assert refused > 0
    while any(replica.held or replica.owing for replica in cluster.replicas):
        await asyncio.sleep(0.01)
    permits = [await cluster.replicas[0].take(caller) for _ in range(5)]  # all of them are there again
    assert [permit.taken for permit in permits] == [1, 2, 3, 4, 5]


async def test_one_tenant_takes_nothing_from_another(cluster: Cluster) -> None:
    greedy, modest = await cluster.caller("greedy", 2), await cluster.caller("modest", 1)
    for replica in cluster.replicas[:2]:
        await replica.take(greedy)
    with pytest.raises(QuotaExceeded, match="All 2 streams"):
        await cluster.replicas[2].take(greedy)
    assert (await cluster.replicas[2].take(modest)).taken == 1


async def test_permits_of_a_dead_replica_lapse_and_those_of_a_live_one_do_not(cluster: Cluster) -> None:
    caller = await cluster.caller("acme", 2)
    dead, alive, other = cluster.replicas
    await (await dead.take(caller)).__aenter__()
    async with await alive.take(caller):
        for task in dead._tasks:
            task.cancel()  # as a killed process would
        for _ in range(4):
            cluster.clock.now_s += TTL_S / 3
            await asyncio.sleep(0.3)
        async with await other.take(caller):
            with pytest.raises(QuotaExceeded):
                await other.take(caller)


async def test_a_smaller_quota_counts_for_the_next_stream(cluster: Cluster) -> None:
    caller = await cluster.caller("acme", 3)
    permits = [await cluster.replicas[0].take(caller) for _ in range(3)]
    await cluster.tenants.change("acme", {"streams": 1})
    permits[2].give_back()
    await asyncio.sleep(0.1)
    with pytest.raises(QuotaExceeded):
        await cluster.replicas[1].take(caller)
    await cluster.tenants.change("acme", {"streams": 4})
    taken = [(await cluster.replicas[1].take(caller)).taken for _ in range(2)]
    assert taken == [3, 4]


async def test_a_revoked_keys_streams_end(cluster: Cluster) -> None:
    caller, other = await cluster.caller("acme", 2), await cluster.caller("zoo", 2)

    async def stream(caller: Caller) -> None:
        async with await cluster.replicas[0].take(caller):
            await asyncio.Event().wait()

    streams = [asyncio.create_task(stream(one)) for one in (caller, caller, other)]
    await asyncio.sleep(0.2)
    await cluster.tenants.revoke("acme", caller.key_id)
    ended = await asyncio.wait_for(asyncio.gather(*streams[:2], return_exceptions=True), 10)
    assert [type(end) for end in ended] == [Unauthenticated, Unauthenticated]
    assert not streams[2].done()
    streams[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await streams[2]


async def test_who_gives_up_while_taking_one_leaves_none_behind(cluster: Cluster) -> None:
    caller = await cluster.caller("acme", 3)
    for _ in range(20):
        taking = asyncio.create_task(cluster.replicas[0].take(caller))
        await asyncio.sleep(random.random() * 0.01)
        taking.cancel()
        ended = await asyncio.gather(taking, return_exceptions=True)
        if not isinstance(ended[0], BaseException):
            ended[0].give_back()
    await asyncio.sleep(0.5)
    assert [(await cluster.replicas[1].take(caller)).taken for _ in range(3)] == [1, 2, 3]


async def test_one_that_is_never_entered_comes_back(cluster: Cluster) -> None:
    caller = await cluster.caller("acme", 1)
    late = await cluster.replicas[0].take(caller)
    cluster.clock.now_s += 31.0
    while cluster.replicas[0].held or cluster.replicas[0].owing:
        await asyncio.sleep(0.01)
    async with late:  # taken anew, for it was free
        with pytest.raises(QuotaExceeded):
            await cluster.replicas[1].take(caller)
