"""How Serve's replicas talk to each other: set in one place, before Ray starts, on every node.

The measurements behind each are in the README under "Decisions". Importing this module sets them for this process and
everything it starts; on Kubernetes the same names and values go into the container's environment.
"""

import os

ENVIRONMENT = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # so engines run torch in a thread of their own
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",  # so handles are used inside an event loop only
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 << 20),
    "RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S": "2",  # a replica that hangs is asked, and passed over, after so long
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",  # what listeners feel is known soon, not after 10 s
    "RAY_AUTH_MODE": "disabled",  # a leftover token file in the home directory must not turn token mode on
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_metrics_report_interval_ms": "2000",  # gauges are looked at every 2 s; by default Ray tells them every 10
    "TRANSFORMERS_VERBOSITY": "error",  # it warns of ids in parts of the config that nobody uses
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a replica that asks for no GPU leaves CUDA_VISIBLE_DEVICES alone
}

for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
