"""The load client: wrk, inside lab's network namespace.

wrk is closed-loop: each connection sends its next request when the last one is answered. So a slow instance is
asked less, and its latencies leave out the queue that an open-loop client would have built ("coordinated
omission"). Compare latencies only together with requests per second.
"""

from __future__ import annotations

import http.client
import json
import math
import resource
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from lab.errors import LabError
from lab.host.command import run, tail
from lab.host.placement.threads import keep_this_thread_to
from lab.model import Completed, Load
from lab.network.network import Network

SCRIPT = Path(__file__).with_name("wrk.lua")
THREADS = 1
REQUEST_TIMEOUT_SECONDS = 10
SPARE_SECONDS = 30.0
PERCENTILES = ("p50", "p75", "p90", "p95", "p99")
ERRORS = ("connect", "read", "write", "status", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What the client saw. ``errors`` counts by kind: connect, read, write, status (above 399), timeout."""

    requests: int
    duration_seconds: float
    latency_seconds: Mapping[str, float]  # p50 … p99, max
    errors: Mapping[str, int]
    client_cpu_seconds: float = 0.0  # the client's own, no part of the instance's

    @property
    def requests_per_second(self) -> float:
        """Answered requests by the duration that wrk itself measured."""
        return self.requests / self.duration_seconds

    @property
    def failed(self) -> int:
        """Requests, or attempts to connect, that got no correct answer."""
        return sum(self.errors.values())


def offer(network: Network, address: IPv4Address, port: int, load: Load) -> LoadResult:
    """Offer ``load`` to an instance and wait for its end. Raises CommandError or LabError."""
    argv = [
        "wrk",
        f"--threads={THREADS}",
        f"--connections={max(load.connections, THREADS)}",
        f"--duration={math.ceil(load.duration_seconds)}s",
        f"--timeout={REQUEST_TIMEOUT_SECONDS}s",
        f"--script={SCRIPT}",
        f"http://{address}:{port}{load.path}",
    ]
    before = _children_cpu_seconds()

    def ask() -> Completed:
        keep_this_thread_to(network.clients)
        return run(argv, timeout_seconds=load.duration_seconds + SPARE_SECONDS, hint="apt-get install wrk")

    done = network.run_in(ask)
    result = parse(done.stdout, client_cpu_seconds=_children_cpu_seconds() - before)
    if result.errors["read"] and result.requests and ends_by_closing(network, address, port, load.path):
        result = forgiven(result)
    return result


def forgiven(result: LoadResult) -> LoadResult:
    """Of answers that end with their connection, wrk counts each as answered and its end as an error of reading."""
    return replace(result, errors={**result.errors, "read": max(0, result.errors["read"] - result.requests)})


def ends_by_closing(network: Network, address: IPv4Address, port: int, path: str) -> bool:
    """Whether the answer says no length, so that it ends when its connection does (RFC 9112, section 6.3)."""
    try:
        with network.run_in(socket.socket) as connected:
            connected.settimeout(REQUEST_TIMEOUT_SECONDS)
            connected.connect((str(address), port))
            connected.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\n\r\n".encode())
            with closing(http.client.HTTPResponse(connected, method="GET")) as response:
                response.begin()
                return response.length is None and not response.chunked
    except (OSError, http.client.HTTPException):
        return False


def parse(output: bytes, *, client_cpu_seconds: float = 0.0) -> LoadResult:
    """What wrk.lua printed last. Raises LabError when it isn't there, or no time passed."""
    try:
        said = json.loads(output.decode().strip().splitlines()[-1])
        result = LoadResult(
            requests=int(said["requests"]),
            duration_seconds=said["duration"] / 1e6,
            latency_seconds={name: said[name] / 1e6 for name in (*PERCENTILES, "max")},
            errors={name: int(said[name]) for name in ERRORS},
            client_cpu_seconds=client_cpu_seconds,
        )
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise LabError("wrk's result can't be read", detail=tail(output)) from error
    if result.duration_seconds <= 0:
        raise LabError("wrk measured for no time at all", detail=tail(output))
    return result


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
