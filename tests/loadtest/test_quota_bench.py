"""The quota benchmark's tenants are held to their quotas by replicas that share a database."""

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest

from loadtest.echo_bench import echoing
from loadtest.quota_bench import flood, tenants_of
from loadtest.server import CHROMA


@pytest.mark.slow
def test_no_tenant_speaks_more_than_its_quota(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'voices.db'}"
    subprocess.run([CHROMA, "migrate", "--database", database], check=True, capture_output=True)
    tenants = tenants_of(database, [1, 4])
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(echoing(4, "--database", database))["http"] for _ in range(2)]
        told = asyncio.run(flood(ports, tenants, 200, 24))
    for tenant in told["tenants"]:
        assert 1 <= tenant["most_at_once"] <= tenant["quota"]
        assert set(tenant["answers"]) == {"200", "429"}
    assert sum(count for tenant in told["tenants"] for count in tenant["answers"].values()) == 200
