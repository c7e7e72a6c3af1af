"""How to reach a Ray cluster, and what its processes need in their environment before they import Ray."""

from __future__ import annotations

import re
import socket

from fbp_ray.errors import ConfigError, RunError

CONNECT_SECONDS = 5.0

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would call out, and wait where there is no network
    # How soon a lost worker is noticed, and how long an epoch may wait for its report to be taken; the default is 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # then it looks again at how many machines there are
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # a worker's prints would appear twice
    "THP_MEM_ALLOC_ENABLE": "1",  # a training thread's arrays in huge pages: it takes and gives back many
    "OMP_WAIT_POLICY": "PASSIVE",  # a worker's threads would spin while another program has their processor
}
ALONE = {  # for a cluster of this machine: nobody looks at its figures, which take a tenth of a processor
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15 any other program of the machine would come first
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


def check_address(address: str) -> None:
    """Finds out within seconds that nobody listens at an address: Ray itself would try for more than a minute.

    Raises:
        ConfigError: the address is not HOST:PORT.
        RunError: nobody listens there.
    """
    match = re.fullmatch(r"\[?([^\[\]/\s]+?)\]?:(\d{1,5})", address)
    if match is None:
        raise ConfigError(
            f"{address!r} is no address of a cluster; give HOST:PORT, as `ray start --head` prints it (the port is "
            "6379 by default), or auto"
        )
    try:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"no Ray cluster answers at {address}: {error}. Check --ray.address or RAY_ADDRESS, and that `ray start "
            "--head` runs there and its port is open to this machine"
        ) from None
