"""Triton's kernels, where they can run: elsewhere the same is done by torch's operators."""

import importlib
import logging
from functools import lru_cache
from types import ModuleType

import torch

log = logging.getLogger(__name__)


@lru_cache
def triton_kernels(module: str, device: torch.device) -> ModuleType | None:
    """A module of kernels by its name in this package; None without CUDA, or where Triton does not work."""
    if device.type != "cuda" or not _triton_works(device):
        return None
    return importlib.import_module(f"chroma_models.{module}")


@lru_cache
def _triton_works(device: torch.device) -> bool:
    try:
        from chroma_models import token_kernels

        x = torch.ones((1, 16), dtype=torch.bfloat16, device=device)
        token_kernels.rms_norm(x, x[0], 1e-6, torch.empty_like(x))  # Triton needs a C compiler, and may not find one
    except Exception as error:
        log.error("Triton cannot be used; steps go on with torch's operators, at half the speed", exc_info=error)
        return False
    return True
