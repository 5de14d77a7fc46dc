"""What stands for Kubernetes: the Service that knows which pods are ready, the kubelet, and the operator."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.multihost.hosts import Host

PROBE_S = 1.0


@dataclass
class Service:
    """Sends each new connection to a ready pod, at random; one that is to go gets none any more."""

    port: int
    rng: random.Random
    pods: dict[str, str] = field(default_factory=dict)  # address by name, of those that are to stay
    ready: set[str] = field(default_factory=set)

    async def probe(self) -> None:
        """Asks as the operator's readiness probe does, until it is cancelled."""
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as http:
            while True:
                await asyncio.gather(*(self._ask(http, name, address) for name, address in list(self.pods.items())))
                await asyncio.sleep(PROBE_S)

    async def _ask(self, http: httpx.AsyncClient, name: str, address: str) -> None:
        try:
            answer = await http.get(f"http://{address}:{self.port}/-/healthz")
            good = answer.status_code == 200 and "success" in answer.text
        except httpx.HTTPError:
            good = False
        if good and name in self.pods:
            self.ready.add(name)
        else:
            self.ready.discard(name)

    def add(self, host: Host) -> None:
        self.pods[host.name] = host.address

    def forget(self, host: Host) -> None:
        """The pod is terminating: its endpoint is gone at once."""
        self.pods.pop(host.name, None)
        self.ready.discard(host.name)

    async def pod(self) -> tuple[str, str]:
        """Name and URL of one for a new connection; waits while none is ready."""
        while not self.ready:
            await asyncio.sleep(0.05)
        name = self.rng.choice(sorted(self.ready))
        return name, f"http://{self.pods[name]}:{self.port}"

    async def whole(self, count: int, within_s: float = 240.0) -> None:
        """Returns when so many pods are ready. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while len(self.ready) < count:
                await asyncio.sleep(0.2)


class Operator:
    """The head's dashboard, as KubeRay speaks to it."""

    def __init__(self, head: str, token: str) -> None:
        self._url = f"http://{head}:8265"
        self._http = httpx.AsyncClient(timeout=30.0, trust_env=False, headers={"authorization": f"Bearer {token}"})

    async def answers(self, within_s: float = 120.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    if (await self._http.get(f"{self._url}/api/serve/applications/")).status_code == 200:
                        return
                except httpx.HTTPError:
                    await asyncio.sleep(0.2)
                await asyncio.sleep(0.2)

    async def put(self, config: dict[str, Any]) -> None:
        answer = await self._http.put(f"{self._url}/api/serve/applications/", json=config)
        assert answer.status_code == 200, answer.text

    async def replicas(self) -> Counter[str]:
        """Running ones by deployment."""
        answer = (await self._http.get(f"{self._url}/api/serve/applications/")).json()
        return Counter(
            name
            for application in answer["applications"].values()
            for name, deployment in application["deployments"].items()
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING"
        )

    async def close(self) -> None:
        await self._http.aclose()
