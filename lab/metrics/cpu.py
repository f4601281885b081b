"""What it makes the host's processors do."""

from __future__ import annotations

import json
from collections.abc import Iterator

from lab.errors import LabError
from lab.host.clock import now
from lab.metrics.base import Metric, Observation, Subject, Window
from lab.results.record import Status

COMPUTE_ROUNDS = 150_000
"""About 0.2 s on a processor of 2020, some ten times as much under emulation."""

COMPUTE_CHECKSUM = "22858eee862b976e6e2b828f1aac438dfec18e68e779bbcb4ad54f9134f913e5"
"""What the fixed computation must answer: IEEE 754 and FIPS 180-4 leave it no choice."""

COMPUTE_TIMEOUT_SECONDS = 120.0


class Cpu(Metric):
    """CPU seconds charged by the host to everything the instance made it do: its processes, a VMM's vCPU and
    emulator threads, the kernel's work in their context.

    ``cpu.boot``: from the cgroup's making until it is ready. ``cpu.idle``: per second of the idle
    window. ``cpu.per_1000_requests``: the window around the load by its answered requests. ``cpu.compute``: wall
    seconds by the host's clock for the fixed computation, from asking for it inside to its answer, less the way in
    and out, which is an Engine's or an emulator's work: what no rounds take, asked for before and after, and once
    more at first, since the first way is longer. Both are in its detail (``asked_seconds``; ``way_seconds``, a mean
    of two). Of a disk of the user's there is none, since nobody is inside who could compute it.

    ``cpu.engine.boot``, ``cpu.engine.idle`` and ``cpu.engine.per_1000_requests`` are the same of an engine beside it,
    where there is one: the group of its daemons, with the short-lived programs that they start. The first goes on
    until it is asked, some milliseconds after readiness.

    Left out: interrupts and kernel threads (vhost apart, when in the cgroup), which no cgroup is charged for. An
    ordinary user without a cgroup reads the clocks of the processes instead (`lab.host.cgroup.spent`).
    """

    name = "cpu"
    order = 20

    def ready(self, subject: Subject) -> Iterator[Observation]:
        used = subject.cpu_at_response
        if used is not None:
            yield Observation(
                quantity="cpu.boot",
                value=used.total_seconds,
                unit="seconds",
                detail={
                    "user_seconds": used.user_seconds,
                    "system_seconds": used.system_seconds,
                    "throttled_seconds": used.throttled_seconds,
                    "throttled_periods": used.throttled_periods,
                },
            )

        if companion := subject.instance.companion:
            seconds = companion.cgroup.cpu().total_seconds - companion.cpu_before_seconds
            yield Observation(
                quantity="cpu.engine.boot", value=seconds, unit="seconds", detail={"engine": companion.title}
            )

    def idle(self, subject: Subject) -> Iterator[Observation]:
        if subject.idle_seconds > 0:
            window = subject.idle_window()
            yield Observation(
                quantity="cpu.idle",
                value=window.cpu_seconds / window.wall_seconds,
                unit="1",
                state="idle",
                detail=_detail(window),
            )
            if window.companion_seconds is not None:
                per_second = window.companion_seconds / window.wall_seconds
                yield Observation(quantity="cpu.engine.idle", value=per_second, unit="1", state="idle")
        if not subject.instance.opaque:
            yield self._compute(subject)

    def loaded(self, subject: Subject) -> Iterator[Observation]:
        result, window = subject.load(), subject.load_window()
        if result is None or window is None or not result.requests:
            return
        yield Observation(
            quantity="cpu.per_1000_requests",
            value=1000 * window.cpu_seconds / result.requests,
            unit="seconds",
            status=Status.FAILED if result.failed else Status.OK,
            text=f"{result.failed} requests failed" if result.failed else "",
            detail={**_detail(window), "requests": result.requests, "client_cpu_seconds": result.client_cpu_seconds},
        )
        if window.companion_seconds is not None:
            yield Observation(
                quantity="cpu.engine.per_1000_requests",
                value=1000 * window.companion_seconds / result.requests,
                unit="seconds",
                detail={"cpu_seconds": window.companion_seconds},
            )

    def _compute(self, subject: Subject) -> Observation:
        self._timed(subject, 0)
        before, _ = self._timed(subject, 0)
        asked, checksum = self._timed(subject, COMPUTE_ROUNDS)
        after, _ = self._timed(subject, 0)
        way = (before + after) / 2
        wrong = f"computed {checksum}" if checksum != COMPUTE_CHECKSUM else ""
        if asked <= way:
            wrong = "the way in and out took as long as the way and the computation"
        return Observation(
            quantity="cpu.compute",
            value=asked - way,
            unit="seconds",
            status=Status.FAILED if wrong else Status.OK,
            text=wrong,
            detail={"asked_seconds": asked, "way_seconds": way, "rounds": COMPUTE_ROUNDS},
        )

    def _timed(self, subject: Subject, rounds: int) -> tuple[float, str]:
        started = now()
        done = subject.instance.inside("compute", str(rounds), timeout_seconds=COMPUTE_TIMEOUT_SECONDS)
        seconds = now() - started
        try:
            return seconds, str(json.loads(done.stdout)["checksum"])
        except (ValueError, KeyError) as error:
            raise LabError("the fixed computation failed inside", detail=done.stderr.decode()) from error


def _detail(window: Window) -> dict[str, float]:
    return {
        "cpu_seconds": window.cpu_seconds,
        "wall_seconds": window.wall_seconds,
        "user_seconds": window.after.user_seconds - window.before.user_seconds,
        "system_seconds": window.after.system_seconds - window.before.system_seconds,
        "throttled_seconds": window.after.throttled_seconds - window.before.throttled_seconds,
        "throttled_periods": window.after.throttled_periods - window.before.throttled_periods,
    }
