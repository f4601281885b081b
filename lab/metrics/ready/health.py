"""An image's HEALTHCHECK, run inside an instance: whether it is healthy now, and how that changes.

The rules are Docker's (Dockerfile reference, HEALTHCHECK). A probe runs as the application's user, in its directory
and with its environment, behind the same boundary; it is healthy when it exits with 0. Probes follow each other, the
interval counted from the end of one. In the start period failures don't count; after it, so many in a row as
``retries`` says make the instance unhealthy, and one success makes it healthy again.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

from lab.errors import LaunchError
from lab.host.clock import now
from lab.host.execution.relay import Beginning
from lab.instance import Instance
from lab.model import Healthcheck, HealthReadiness, ImageConfig

INTERVAL_SECONDS = 30.0
TIMEOUT_SECONDS = 30.0
START_INTERVAL_SECONDS = 5.0
RETRIES = 3
SHELL = ("/bin/sh", "-c")
OUTPUT_BYTES = 4096  # of a probe are kept, as Docker does
KILLED = 128 + signal.SIGKILL


class State(StrEnum):
    """What Docker calls ``Health.Status``."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One run of the check. ``exit_code`` is 137 for one that took too long and was killed."""

    exit_code: int
    output: bytes
    seconds: float


def readiness_of(config: ImageConfig) -> HealthReadiness | None:
    """How an image itself says that it is ready; None when it has no HEALTHCHECK, or HEALTHCHECK NONE."""
    if config.health is None or config.health.test[:1] == ("NONE",):
        return None
    return HealthReadiness(check=config.health, shell=config.shell)


class Health:
    """One instance's check.

        for state in Health(instance, check).states(stop): …

    ``stop`` is an Event that ends it from another thread.
    """

    def __init__(self, instance: Instance, readiness: HealthReadiness) -> None:
        self.instance = instance
        self.check = readiness.check
        self.last: Probe | None = None
        self._argv = _argv(readiness.check, readiness.shell or SHELL)

    def probe(self, timeout_seconds: float | None = None) -> Probe:
        """Run the check once, for its own timeout or a shorter one. Raises LabError when the instance has gone."""
        limit = self.check.timeout_seconds or TIMEOUT_SECONDS
        limit = limit if timeout_seconds is None else min(limit, timeout_seconds)
        began = now()
        with ExitStack() as opened:
            output = opened.enter_context(Beginning(OUTPUT_BYTES))
            try:
                running = opened.enter_context(
                    self.instance.begin(self._argv, stdin=None, stdout=output.descriptor, stderr=output.descriptor)
                )
                code = running.wait(limit)
                if code is None:
                    running.signal(signal.SIGKILL)
            except LaunchError as error:  # no such program: a check that fails, as long as the instance lives
                os.write(output.descriptor, error.message.encode()[:OUTPUT_BYTES])
                code = error.exit_code
        self.last = Probe(exit_code=KILLED if code is None else code, output=output.text, seconds=now() - began)
        return self.last

    def states(self, stop: threading.Event) -> Iterator[State]:
        """STARTING, then every change, until ``stop`` is set. Raises LabError when the instance has gone."""
        state = State.STARTING
        yield state
        began, failures = now(), 0
        while not stop.wait(self._pause_seconds(state, began)):
            if self.probe().exit_code == 0:
                found, failures = State.HEALTHY, 0
            elif state is State.STARTING and now() - began < (self.check.start_period_seconds or 0.0):
                continue
            else:
                failures += 1
                found = State.UNHEALTHY if failures >= (self.check.retries or RETRIES) else state
            if found is not state and not stop.is_set():
                state = found
                yield state

    def _pause_seconds(self, state: State, began: float) -> float:
        interval = self.check.interval_seconds or INTERVAL_SECONDS
        start_period = self.check.start_period_seconds or 0.0
        if state is State.STARTING and now() - began < start_period:
            return min(interval, self.check.start_interval_seconds or START_INTERVAL_SECONDS)
        return interval


def _argv(check: Healthcheck, shell: tuple[str, ...]) -> tuple[str, ...]:
    kind, *words = check.test
    return (*shell, *words) if kind == "CMD-SHELL" else tuple(words)
