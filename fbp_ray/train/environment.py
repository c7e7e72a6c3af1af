"""Settings of Ray that processes of a cluster are to have in their environment before they import it."""

from __future__ import annotations

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would call out, and wait where there is no network
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # how soon a lost worker is noticed; the default is 2 s
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
