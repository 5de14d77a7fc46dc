"""Do quotas hold when everybody asks at once, of several replicas? No graph: a speaker that echoes in real time.

Ingress replicas over one database (`chroma bench-ingress`), tenants with a quota of streams each, and connections that
ask for one spoken reply after another, without rest. Counted at the client: how many replies of a tenant are being
spoken at once. Then one replica is killed in the middle of its streams: how long its permits count is measured.

python -m loadtest.quota_bench --requests 10000 --connections 200 --replicas 3 --json FILE
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import uvloop

from loadtest import machine
from loadtest.echo_bench import echoing
from loadtest.server import CHROMA, NoServer
from loadtest.spread import spread

TTL_S = 15.0  # of a permit: the server's default
REPLY_S = 0.4  # of a spoken reply
LONG_S = 50.0


@dataclass
class Tenant:
    """A customer as its client sees it."""

    name: str
    quota: int
    key: str
    speaking: int = 0
    most: int = 0
    answers: Counter[int] = field(default_factory=Counter)


def tenants_of(database: str, quotas: list[int]) -> list[Tenant]:
    """Made by the commands an operator has."""

    def chroma(*words: str) -> str:
        command = [str(CHROMA), *words, "--database", database]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    made = []
    for number, quota in enumerate(quotas):
        chroma("tenants", "add", f"tenant{number}", "--streams", str(quota))
        key = re.search(r"ck_live_\w+", chroma("keys", "add", f"tenant{number}"))
        assert key is not None
        made.append(Tenant(f"tenant{number}", quota, key[0]))
    return made


async def flood(ports: list[int], tenants: list[Tenant], requests: int, connections: int) -> dict[str, Any]:
    """All requests, over connections that never rest."""
    left = iter(range(requests))
    waits: list[float] = []
    began = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        await asyncio.gather(
            *(
                _ask_on(client, ports[number % len(ports)], tenants[number % len(tenants)], left, waits)
                for number in range(connections)
            )
        )
    return {
        "requests": requests,
        "connections": connections,
        "replicas": len(ports),
        "took_s": round(time.monotonic() - began, 1),
        "tenants": [
            {"quota": t.quota, "most_at_once": t.most, "answers": {str(k): n for k, n in sorted(t.answers.items())}}
            for t in tenants
        ],
        "answer_ms": spread([1000 * wait for wait in waits], 1),
    }


async def _ask_on(client: aiohttp.ClientSession, port: int, tenant: Tenant, left: "Any", waits: list[float]) -> None:
    for _ in left:
        asked = time.monotonic()
        async with client.post(f"http://127.0.0.1:{port}/v1/chat/completions", **_request(tenant, REPLY_S)) as answer:
            tenant.answers[answer.status] += 1
            waits.append(time.monotonic() - asked)
            if answer.status == 200:
                tenant.speaking += 1
                tenant.most = max(tenant.most, tenant.speaking)
            try:
                async for _ in answer.content.iter_any():
                    pass
            finally:
                tenant.speaking -= answer.status == 200


async def lapse(victim: dict[str, int], port: int, tenant: Tenant) -> float:
    """Seconds from the death of a replica that holds all of a tenant's permits until another lets the tenant in."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        url = f"http://127.0.0.1:{victim['http']}/v1/chat/completions"
        held: list[aiohttp.ClientResponse] = []
        while len(held) < tenant.quota:  # those of the flood are just being given back
            answer = await client.post(url, **_request(tenant, LONG_S))
            if answer.status == 200:
                held.append(answer)
            else:
                answer.release()
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)
        os.kill(victim["pid"], signal.SIGKILL)
        died = time.monotonic()
        for answer in held:
            answer.close()
        while True:
            other = f"http://127.0.0.1:{port}/v1/chat/completions"
            async with client.post(other, **_request(tenant, REPLY_S)) as answer:
                if answer.status == 200:
                    return time.monotonic() - died
            await asyncio.sleep(0.1)
            assert time.monotonic() - died < 10 * TTL_S, "the permits of a dead replica do not lapse"


def _request(tenant: Tenant, reply_s: float) -> dict[str, Any]:
    body = {
        "model": "chroma",
        "messages": [{"role": "user", "content": "Hello."}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "default", "format": "pcm16"},
        "stream": True,
        "chroma": {"max_reply_s": reply_s},
    }
    return {"json": body, "headers": {"authorization": f"Bearer {tenant.key}"}}


def main() -> int:
    options = _options()
    result: dict[str, Any] = {"benchmark": "quota", "machine": machine.machine()}
    print(machine.line(result["machine"]), flush=True)
    try:
        with TemporaryDirectory(prefix="quota-bench-") as folder, contextlib.ExitStack() as stack:
            database = options.database or f"sqlite:///{folder}/voices.db"
            result["database"] = database.split(":")[0]
            subprocess.run([str(CHROMA), "migrate", "--database", database], check=True, capture_output=True)
            tenants = tenants_of(database, [int(quota) for quota in options.quotas.split(",")])
            replicas = [stack.enter_context(echoing(4, "--database", database)) for _ in range(options.replicas)]
            ports = [replica["http"] for replica in replicas]
            result |= uvloop.run(flood(ports, tenants, options.requests, options.connections))
            if options.replicas > 1:
                result["lapse_s"] = round(uvloop.run(lapse(replicas[-1], ports[0], tenants[0])), 1)
    except NoServer as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{result['requests']} requests in {result['took_s']} s, answered within ms: {result['answer_ms']}")
    for told in result["tenants"]:
        print(f"quota {told['quota']:3d}: at most {told['most_at_once']} at once; answers {told['answers']}")
    if "lapse_s" in result:
        print(f"a killed replica's permits came back after {result['lapse_s']} s (TTL {TTL_S:g} s)")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if any(told["most_at_once"] > told["quota"] + 1 for told in result["tenants"]) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.quota_bench", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=3, help="of the ingress, each a process")
    parser.add_argument("--quotas", default="2,5,10", help="streams of each tenant, with commas")
    parser.add_argument("--database", help="postgresql://...; by default a SQLite file of its own")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
