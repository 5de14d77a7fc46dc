"""Starting and stopping the graph on this machine."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import ray
from ray import serve
from ray.serve.schema import LoggingConfig

from chroma_models.errors import StageUnavailable
from deployments.app import build, check_database
from deployments.settings import Settings

APP = "chroma"
QUIET = LoggingConfig(log_level="WARNING")


@contextlib.contextmanager
def local_ray(*, quiet: bool = True, metrics_port: int = 0) -> Iterator[None]:
    """A Ray of this process alone, without dashboard. Never joins another cluster. metrics_port: 0 takes a free one."""
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=not quiet,
        logging_level="ERROR",
        object_store_memory=256 << 20,
        _metrics_export_port=metrics_port or None,
    )
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            serve.delete(APP)
        ray.shutdown()


def metrics_url() -> str:
    """Where this machine's Ray tells its metrics."""
    (node,) = ray.nodes()
    return f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"


def deploy(settings: Settings, name: str = APP) -> None:
    """Run the graph; returns when every stage is ready, or raises with what went wrong."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    check_database(settings, sum(node["Alive"] for node in ray.nodes()))
    encoding = "JSON" if settings.models.logs.format == "json" else "TEXT"
    logs = LoggingConfig(log_level="WARNING", encoding=encoding)  # of Serve itself; ours are deployments/logs.py's
    serve.start(proxy_location="Disabled", logging_config=logs)
    try:
        serve.run(build(settings), name=name, route_prefix=None, logging_config=logs)
    except RuntimeError as error:
        raise StageUnavailable(f"The graph did not start: {why(name)}") from error


def drain(name: str = APP) -> None:
    """Returns when every live turn has ended, or was cut at the ingress' drain_wait_s. New ones are no longer taken.

    To be called before the graph is deleted: Serve takes all its deployments away at once, and a turn that still speaks
    would find no Decoder to ask.
    """
    asyncio.run(_drain(name))


async def _drain(name: str) -> None:
    ingress = serve.get_deployment_handle("Ingress", name)
    await ingress.state.remote()  # a new handle knows its replicas once one has answered
    await ingress.broadcast("drain").results_async()


def why(name: str) -> str:
    """The last line of what each stage that failed says of itself."""
    application = serve.status().applications[name]
    failed = {name: d.message for name, d in application.deployments.items() if d.status.name.endswith("FAILED")}
    lines = [f"{name}: {message.strip().splitlines()[-1]}" for name, message in failed.items() if message.strip()]
    return "; ".join(lines) or application.message
