"""dask.distributed, as far as a sweep uses it: its classes, which are typed in part, and its settings."""

from __future__ import annotations

import logging
from typing import Any

import distributed
import distributed.security

Client: Any = distributed.Client
LocalCluster: Any = distributed.LocalCluster
Security: Any = distributed.security.Security
Worker: Any = distributed.Worker
get_worker: Any = distributed.get_worker

SETTINGS: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.allowed-failures": 1_000_000,  # of a worker; the driver counts them by task
    "distributed.comm.timeouts.connect": "20s",
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.worker.profile.enabled": False,
}
"""For both ends: no pages over HTTP, nothing that moves tasks between hosts."""


def hush() -> None:
    """What dask.distributed logs of a connection that is gone, with its tracebacks, is told by lab in a line."""
    for name in ("distributed", "distributed.client", "distributed.utils", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
