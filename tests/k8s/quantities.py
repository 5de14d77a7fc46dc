"""Amounts as Kubernetes writes them."""

import re
from typing import Any

UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
UNITS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def amount(told: Any) -> float:
    """ "1500m" is 1.5, "2Gi" is 2147483648. Raises ValueError."""
    found = re.fullmatch(r"([0-9.]+)(m|[kMGT]|[KMGT]i)?", str(told))
    if found is None:
        raise ValueError(f"{told!r} is no quantity")
    return float(found[1]) * UNITS[found[2] or ""]
