"""Have a checkpoint here before anybody waits for it."""

from chroma_models.checkpoint.fetch import resolve


def fetch(checkpoint: str) -> None:
    """Raises CheckpointError."""
    print(resolve(checkpoint, lambda line: print(line, flush=True)))
