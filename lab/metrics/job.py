"""How long a batch job takes: what an application is measured by that ends by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from lab.errors import GroupGone
from lab.metrics.base import Metric, Observation, Subject
from lab.model import Phase


class Job(Metric):
    """Seconds on the host's CLOCK_MONOTONIC; no guest timestamp enters.

    ``job.total`` starts when lab decides to launch and stops when the host has seen that the application has ended
    by itself with exit code 0. ``job.seconds`` is its part from the application's execve on, as the host saw it: a
    busy host sees the execve milliseconds late, and the part is that much shorter. ``job.cpu`` is what the host spent
    on all of the instance until then, a VMM included, and ``job.memory`` the most that the host's kernel charged to
    its cgroup at once, in bytes; an ordinary user without a cgroup has neither.

    A job that ends with any other exit code has failed, and has no time. Left out: the teardown.
    """

    name = "job"
    order = 15

    def done(self, subject: Subject) -> Iterator[Observation]:
        timeline = subject.instance.timeline
        done, requested, running = timeline.at(Phase.DONE), timeline.at(Phase.REQUESTED), timeline.running()
        if done is None or requested is None or running is None:
            return
        yield Observation(quantity="job.seconds", value=max(0.0, done - running), unit="seconds")
        yield Observation(quantity="job.total", value=done - requested, unit="seconds")
        with suppress(OSError, GroupGone):
            used = subject.instance.cgroup.cpu()
            yield Observation(quantity="job.cpu", value=used.total_seconds, unit="seconds")
        with suppress(OSError, GroupGone):
            charged = subject.instance.cgroup.memory()
            if charged is not None and charged.peak_bytes is not None:
                yield Observation(quantity="job.memory", value=charged.peak_bytes, unit="bytes")
