"""What tenants use, as Prometheus sees it: a bounded number of them by name."""

from ray.serve import metrics

from deployments.ingress.usage import Record

OTHER = "other"


class Names:
    """The first so many names are told apart; all further ones are one."""

    def __init__(self, most: int) -> None:
        self._most, self._known = most, set[str]()

    def of(self, tenant: str) -> str:
        if tenant not in self._known and len(self._known) < self._most:
            self._known.add(tenant)
        return tenant if tenant in self._known else OTHER


class TenantMetrics:
    """Counts responses as they end."""

    def __init__(self, most: int) -> None:
        self._names = Names(most)
        self._responses = metrics.Counter("chroma_tenant_responses_total", tag_keys=("tenant", "protocol", "outcome"))
        self._spoken = metrics.Counter("chroma_tenant_spoken_seconds_total", tag_keys=("tenant",))
        self._heard = metrics.Counter("chroma_tenant_heard_seconds_total", tag_keys=("tenant",))

    def count(self, record: Record) -> None:
        tenant = self._names.of(record.caller.tenant)
        self._responses.inc(1, {"tenant": tenant, "protocol": record.protocol, "outcome": record.outcome})
        for counter, seconds in ((self._spoken, record.spoken_s), (self._heard, record.heard_s)):
            if seconds > 0:
                counter.inc(seconds, {"tenant": tenant})
