"""The open-loop client: wrk, paced by a script, so that requests are due at fixed times.

A closed-loop client asks a slow instance less, and so leaves out the waits that its clients would have had
("coordinated omission"). Here each request has a time at which it is due, whatever became of those before, and its
latency runs from then. Where all connections wait, further requests wait for one of them, and that is in theirs.

wrk waits between two requests in whole milliseconds, by its script's ``delay``; schedule and correction are the
script's. Which generators were considered instead, and why none was taken, is in docs/reading-a-report.md, "Why no
other client".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from lab.errors import LabError
from lab.host.command import run, tail
from lab.host.placement.threads import keep_this_thread_to
from lab.metrics.clients.wrk import ERRORS, REQUEST_TIMEOUT_SECONDS, SPARE_SECONDS, ends_by_closing
from lab.model import Completed
from lab.network.network import Network

SCRIPT = Path(__file__).with_name("paced.lua")
CONNECTIONS = 16
"""So many requests can be under way; wrk has a thread for each, since its script knows threads alone."""

END_SECONDS = 1
"""What is under way when the last request was due is waited for so long."""

TIMER_SECONDS = 1e-3
PERCENTILES = ("p50", "p95", "p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """What a client saw whose requests were due ``rate`` times a second, from when each was due. ``unanswered`` of
    them had no answer at the end: they count as having taken until then. ``late_seconds`` is p99 of how late the
    client itself was.
    """

    rate: float
    due: int
    unanswered: int
    latency_seconds: Mapping[str, float]  # p50, p95, p99, max
    late_seconds: float
    errors: Mapping[str, int]

    @property
    def failed(self) -> int:
        """Attempts to connect, and requests, that got no correct answer."""
        return sum(self.errors.values())


def pace(network: Network, address: IPv4Address, port: int, path: str, *, rate: float, seconds: float) -> Paced:
    """Ask for ``path`` so many times a second for so long. Raises CommandError or LabError."""
    whole = math.ceil(seconds) + END_SECONDS
    argv = [
        "wrk",
        f"--threads={CONNECTIONS}",
        f"--connections={CONNECTIONS}",
        f"--duration={whole}s",
        f"--timeout={REQUEST_TIMEOUT_SECONDS}s",
        f"--script={SCRIPT}",
        f"http://{address}:{port}{path}",
        *("--", f"{rate:.6g}", f"{CONNECTIONS}", f"{seconds:g}"),
    ]

    def ask() -> Completed:
        keep_this_thread_to(network.clients)
        return run(argv, timeout_seconds=whole + SPARE_SECONDS, hint="apt-get install wrk")

    return parse(network.run_in(ask).stdout, rate, forgive=lambda: ends_by_closing(network, address, port, path))


def parse(output: bytes, rate: float, forgive: Callable[[], bool] = lambda: False) -> Paced:
    """What paced.lua printed last; ``forgive`` says whether an answer that ends with its connection is none of wrk's
    errors of reading. Raises LabError when it isn't there.
    """
    try:
        said = json.loads(output.decode().strip().splitlines()[-1])
        found = Paced(
            rate=rate,
            due=int(said["due"]),
            unanswered=int(said["unanswered"]),
            latency_seconds={name: said[name] / 1e6 for name in (*PERCENTILES, "max")},
            late_seconds=said["late"] / 1e6,
            errors={name: int(said[name]) for name in ERRORS},
        )
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise LabError("what wrk said when it was paced can't be read", detail=tail(output)) from error
    if found.errors["read"] and found.due > found.unanswered and forgive():
        answered = found.due - found.unanswered
        found = replace(found, errors={**found.errors, "read": max(0, found.errors["read"] - answered)})
    return found
