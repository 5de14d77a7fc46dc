"""Where a checkpoint is: a folder, or a Hugging Face repository of which only the needed files are downloaded."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.checkpoint.weights import INDEX, SINGLE, shards_of
from chroma_models.errors import CheckpointError

# Named one by one: no code, no second copy of the weights in another format, no pictures.
DESCRIPTIONS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    INDEX,
)


def resolve(checkpoint: str, progress: Callable[[str], None] | None = None) -> Path:
    """The folder of a checkpoint named by path or by Hugging Face id ("FlashLabs/Chroma-4B").

    A folder wins over an id of the same spelling. Downloads go to the hub's own cache, which resumes and checks them;
    shards that hold nothing but the unused vision tower are left out.
    progress  is told in words what is being fetched; the hub draws its own bars on stderr
    Raises CheckpointError, saying what to do, when nothing can be had under that name.
    """
    folder = Path(checkpoint).expanduser()
    if checkpoint and folder.is_dir():
        return folder
    if folder.exists() or checkpoint.startswith(("/", ".", "~")) or checkpoint.count("/") != 1:
        raise CheckpointError(f"{checkpoint} is no folder, and no Hugging Face id of the form owner/name.")
    tell = progress or (lambda _: None)
    tell(f"{checkpoint}: looking up the description on Hugging Face")
    found = _download(checkpoint, None, DESCRIPTIONS)
    Architecture.read(found)  # before gigabytes of some other model arrive
    weights = shards_of(found / INDEX) if (found / INDEX).exists() else [SINGLE]
    tell(f"{checkpoint}: fetching {len(weights)} weight file{'s' if len(weights) > 1 else ''}")
    # The snapshot's folder is named by its commit, so both steps see the same one.
    return _download(checkpoint, found.name, weights)


def _download(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the transport's own exceptions change with the hub's version
        raise CheckpointError(_advice(repo, error)) from error


def _advice(repo: str, error: Exception) -> str:
    """What a person can do about it. The hub wraps some errors, so their causes count too."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    statuses = {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"{repo} is gated: accept its licence at https://huggingface.co/{repo}, then set HF_TOKEN to a token of "
            "that account (or run `hf auth login`)."
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes) or 401 in statuses:
        return (
            f"Hugging Face knows no {repo}, or it is private: check the spelling, and set HF_TOKEN to a token that may "
            "read it. A checkpoint on disk is named by its folder."
        )
    if 403 in statuses:
        return f"Your Hugging Face token may not read {repo}: set HF_TOKEN to one that has read access to it."
    if isinstance(error, HFValidationError):
        return f"{repo} is no folder, and no Hugging Face id: {error}"
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        return (
            f"The disk is full while fetching {repo}: make room, or set HF_HOME to a larger disk. "
            "What is already fetched will be used."
        )
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return f"{repo} is not complete in the local cache and HF_HUB_OFFLINE is set: unset it once to fetch the rest."
    if any(isinstance(cause, LocalEntryNotFoundError) for cause in causes):
        return (
            f"Hugging Face cannot be reached and {repo} is not complete in the local cache: check the network "
            "(HF_ENDPOINT names a mirror) and run this again, or name a folder that holds the checkpoint."
        )
    said = f"{type(error).__name__}: {error}"
    return f"{repo} could not be fetched ({said}). Run this again; what is already fetched will be used."
