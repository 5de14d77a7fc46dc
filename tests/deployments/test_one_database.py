"""Replicas of the ingress share a database, wherever they run."""

import pytest

from chroma_models.errors import InvalidRequest
from deployments.app import check_database
from deployments.settings import Settings
from deployments.tenant_metrics import OTHER, Names

POSTGRES = {"models": {"ingress": {"database_url": "postgresql://host/name"}}}
THREE = {"scale": {"ingress": {"replicas": 3}}}
GROWING = {"scale": {"ingress": {"autoscaling": {"max_replicas": 3}}}}


@pytest.mark.parametrize("scale", [THREE, GROWING])
def test_sqlite_is_refused_for_the_replicas_of_several_machines(scale: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=r"SQLite is for one machine, and 3 ingress replicas may run on 2"):
        check_database(Settings.load(None, **scale), 2)
    check_database(Settings.load(None, **scale), 1)
    check_database(Settings.load(None, **scale, **POSTGRES), 2)
    check_database(Settings.load(None), 2)


def test_metrics_name_a_bounded_number_of_tenants() -> None:
    names = Names(2)
    assert [names.of(tenant) for tenant in ("a", "b", "a", "c", "b", "d")] == ["a", "b", "a", OTHER, "b", OTHER]
