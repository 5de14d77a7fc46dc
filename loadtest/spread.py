"""Many measurements in a few numbers."""

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of all values do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -int(-share * len(ranked) // 1) - 1))]


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """min, p50, p95, p99, max and how many; empty where nothing was measured."""
    if not values:
        return {}
    shares = {"min": 0.0, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(percentile(values, share), digits) for name, share in shares.items()} | {"n": len(values)}
