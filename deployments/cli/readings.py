"""Metrics pages read by hand: sums, rates and quantiles between two readings, as Prometheus would have them."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from chroma_models.errors import InvalidRequest, StageUnavailable

PREFIX = "ray_chroma_"
TIMEOUT_S = 5.0

Labels = dict[str, str]


@dataclass(frozen=True)
class Reading:
    """All pages of a cluster at one moment: our own series, without Ray's prefix."""

    at: float = 0.0  # monotonic seconds
    series: dict[str, list[tuple[Labels, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, pages: Sequence[str]) -> "Reading":
        """Raises ValueError where a page is no metrics page."""
        series = defaultdict[str, list[tuple[Labels, float]]](list)
        for page in pages:
            ours = "\n".join(line for line in page.splitlines() if PREFIX in line)
            for family in text_string_to_metric_families(ours + "\n"):
                for sample in family.samples:
                    series[sample.name.removeprefix(PREFIX)].append((sample.labels, sample.value))
        return cls(time.monotonic(), dict(series))

    def sum(self, name: str, **labels: str) -> float:
        """Over all series with these labels; 0 where there is none."""
        return sum(value for has, value in self.series.get(name, ()) if labels.items() <= has.items())

    def values(self, name: str, label: str, **labels: str) -> set[str]:
        """What a label says in the series with these labels."""
        return {has[label] for has, _ in self.series.get(name, ()) if label in has and labels.items() <= has.items()}


@dataclass(frozen=True)
class Change:
    before: Reading
    after: Reading

    def grown(self, name: str, **labels: str) -> float:
        """A replica that went in between takes its counts along: never below 0."""
        return max(0.0, self.after.sum(name, **labels) - self.before.sum(name, **labels))

    def rate(self, name: str, **labels: str) -> float:
        """In a second."""
        return self.grown(name, **labels) / max(1e-9, self.after.at - self.before.at)

    def ratio(self, name: str, of: str, **labels: str) -> float | None:
        """None where nothing happened."""
        base = self.grown(of, **labels)
        return self.grown(name, **labels) / base if base else None

    def quantile(self, q: float, name: str, **labels: str) -> float | None:
        """Of a histogram, by lines between its bounds; its last bound for what lies beyond. None where it is empty."""
        bounds = sorted(self.after.values(f"{name}_bucket", "le", **labels), key=float)
        counts = [self.grown(f"{name}_bucket", le=bound, **labels) for bound in bounds]
        if not counts or not counts[-1]:
            return None
        wanted, below, lower = q * counts[-1], 0.0, 0.0
        for bound, count in zip(bounds, counts, strict=True):
            if count >= wanted and float(bound) != float("inf"):
                return lower + (float(bound) - lower) * (wanted - below) / max(1e-9, count - below)
            if float(bound) != float("inf"):
                below, lower = count, float(bound)
        return lower


async def read(urls: Sequence[str]) -> Reading:
    """Every page at once. Raises InvalidRequest for what is no address, StageUnavailable where nobody answers."""
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
        pages = await asyncio.gather(*(_page(client, url) for url in urls))
    try:
        return Reading.of(pages)
    except ValueError as error:
        raise InvalidRequest(f"{' or '.join(urls)} is no page of metrics: {error}.") from error


async def _page(client: httpx.AsyncClient, url: str) -> str:
    try:
        answer = await client.get(url)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, ValueError):
        raise InvalidRequest(f"{url} is no address: write http://HOST:PORT/metrics.") from None
    except httpx.TransportError:
        raise StageUnavailable(
            f"No metrics at {url}: `chroma serve` prints its address; of a pod, forward port 8080."
        ) from None
    if answer.status_code != 200:
        raise StageUnavailable(f"{url} answers with {answer.status_code} instead of metrics.")
    return answer.text
