"""What a tenant has left, as response headers: in the manner of OpenAI's x-ratelimit-*, with our own quotas."""

import time

from deployments.ingress.permits import Permit
from deployments.ingress.services import Services
from deployments.ingress.store.usage_store import DAY_S, MINUTE_S, window_begin

Headers = list[tuple[bytes, bytes]]


async def rate_headers(services: Services, permit: Permit) -> Headers:
    """None for a caller without a share. Streams as of when the permit was taken, audio as of some seconds ago."""
    share = permit.caller.share
    if share is None or permit.taken is None:
        return []
    told = {"limit-streams": f"{share.streams}", "remaining-streams": f"{max(0, share.streams - permit.taken)}"}
    quotas = ((MINUTE_S, "minute", share.audio_s_per_minute), (DAY_S, "day", share.audio_s_per_day))
    if any(most is not None for _, _, most in quotas):
        now, spent = time.time(), await services.ledger.spent(permit.caller.tenant)
        for (window_s, name, most), used in zip(quotas, spent, strict=True):
            if most is not None:
                told[f"limit-audio-seconds-{name}"] = f"{most:g}"
                told[f"remaining-audio-seconds-{name}"] = f"{max(0.0, most - used):.1f}"
                told[f"reset-audio-seconds-{name}"] = f"{window_begin(now, window_s) + window_s - now:.0f}s"
    return [(f"x-ratelimit-{name}".encode(), value.encode()) for name, value in told.items()]
