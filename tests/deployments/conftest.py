"""One Ray cluster for the whole run, and graphs on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployments.collector import Collector
from tests.deployments.graph import Graph


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    from deployments.cluster import local_ray

    with local_ray():
        yield


@pytest.fixture(scope="session")
def deployed(cluster: None) -> Iterator[Callable[..., Graph]]:
    """Starts graphs; whatever still runs at the end is stopped with the cluster."""
    graphs: list[Graph] = []

    def start(name: str, checkpoint: Path, **tree: object) -> Graph:
        graphs.append(Graph.start(name, checkpoint, **tree))
        return graphs[-1]

    yield start
    for graph in graphs:
        graph.stop()


@pytest.fixture(scope="session")
def graph(deployed: Callable[..., Graph], tiny: Path) -> Graph:
    """The tiny checkpoint, all five deployments, the torch Reasoner."""
    return deployed("tiny", tiny, models={"reasoner": {"engine": "torch"}})


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Of the watched graph's traces."""
    with Collector() as here:
        yield here


@pytest.fixture(scope="session")
def watched(deployed: Callable[..., Graph], tiny: Path, collector: Collector) -> Graph:
    """As the tiny graph, with all that watches it switched on, and little room at its door."""
    ingress = {"probe_interval_s": 2.0, "max_concurrent": 6}
    models = {"reasoner": {"engine": "torch"}, "ingress": ingress, "traces": {"endpoint": collector.url}}
    return deployed("watched", tiny, models=models)
