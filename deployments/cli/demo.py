"""The whole path once: checkpoint, graph, question, reply."""

import socket
from importlib.resources import as_file, files
from pathlib import Path

from deployments.cli.ask import ask
from deployments.cli.checks import checked
from deployments.cli.serve import base_url, load_settings, wait_ready

RANDOM_CHECKPOINT = Path("checkpoints/tiny")
LONGEST_S = 8.0  # random weights never come to an end by themselves
QUESTION = files("deployments.ingress") / "voices" / "question.wav"


def demo(question: Path | None, checkpoint: str | None, out: Path, settings_file: Path | None) -> None:
    """Write a spoken reply to `out` and print the words, the times, and a line per stage."""
    random = checkpoint is None and settings_file is None
    named = str(_random()) if random else checkpoint
    settings = checked(load_settings(settings_file, named, "127.0.0.1", _free_port(), 0, no_auth=True))
    from deployments.cluster import deploy, local_ray

    with local_ray(quiet=False), as_file(QUESTION) as built_in:
        deploy(settings)
        wait_ready(base_url(settings))
        if random:
            print("No checkpoint was named: the weights are random, so the words are nonsense and the voice is noise.")
        ask(
            question or built_in,
            out,
            base_url(settings),
            voice=None,
            transcript=None,
            max_reply_s=LONGEST_S if random else None,
        )


def _random() -> Path:
    """A tiny checkpoint of random weights, made once."""
    if not (RANDOM_CHECKPOINT / "config.json").exists():
        from chroma_models.checkpoint.random import make_checkpoint

        make_checkpoint(RANDOM_CHECKPOINT, "tiny", 0, print)
    return RANDOM_CHECKPOINT


def _free_port() -> int:
    """So that a server already running on the usual port is not in the way."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
