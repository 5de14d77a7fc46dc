"""The settings between replicas are in force, whichever module of ours is imported first."""

import subprocess
import sys

import pytest

IN_FORCE = """
import {module}
from ray.serve._private import constants
from ray.serve._private.handle_options import DynamicHandleOptions
print(constants.RAY_SERVE_USE_GRPC_BY_DEFAULT, constants.RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD,
      constants.RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP, constants.RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH,
      DynamicHandleOptions()._by_reference)
"""


@pytest.mark.parametrize("module", ["deployments.cluster", "deployments.app", "deployments.handles"])
def test_serve_reads_our_settings(module: str) -> None:
    script = IN_FORCE.format(module=module)
    told = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert told.stdout.split() == ["True", "False", "False", str(64 << 20), "False"], told.stderr
