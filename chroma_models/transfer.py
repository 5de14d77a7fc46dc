"""Small values on their way to a device."""

import torch
from torch import Tensor


def send(x: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, without waiting for the device: through pinned memory, which the allocator keeps
    until the copy is done."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)
