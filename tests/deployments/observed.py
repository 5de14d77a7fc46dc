"""What a running graph exports, and the graph that everything about it is watched on."""

import asyncio
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families


def metrics_url() -> str:
    """Of the tests' Ray."""
    import ray

    node = ray.nodes()[0]
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


class Samples:
    """One reading of a metrics page."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self._samples}

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self._samples if sample.name == name]

    def sum(self, name: str, **labels: str) -> float:
        """Over all series that have these labels."""
        return sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())


async def read() -> Samples:
    async with httpx.AsyncClient(timeout=20.0) as http:
        return Samples((await http.get(metrics_url())).text)


async def soon(holds: Callable[[Samples], None], within_s: float = 60.0) -> Samples:
    """A reading of which all that holds() asserts is so: Ray tells what happened some seconds later."""
    ends_at = asyncio.get_running_loop().time() + within_s
    while True:
        samples = await read()
        try:
            holds(samples)
        except AssertionError:
            if asyncio.get_running_loop().time() > ends_at:
                raise
            await asyncio.sleep(0.3)
        else:
            return samples


async def there(*names: str) -> Samples:
    """A reading with all these names in it."""

    def holds(samples: Samples) -> None:
        assert set(names) <= samples.names

    return await soon(holds)
