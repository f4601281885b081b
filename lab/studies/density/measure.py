"""The story of density: how many copies fit, and what the next one costs.

    for each backend, one after the other, since they would share the host:
    1. prepare      disks, guest kernel, one copy started and stopped as a warm-up
    2. bursts       k copies requested at once: until the last of them has answered
    3. stack        one more copy, until it has answered correctly; then what all of them hold by now, with KSM
                    once it has looked twice at all that is offered
       … until there are as many as asked for, the host's floor of free memory is reached, the time is up,
         or a copy does not come up: that is what broke first
    4. clear        every copy is stopped, and the host looked at again

Before each start what it reads is brought into the host's page cache, or out of it for a cold one: all of it for a
burst and the first copy; for a later one what the others have mapped stays, and is told.

The host is protected by a declared floor: no copy is started that is expected to leave less memory free.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace

from lab.backends.site import Site
from lab.errors import LabError
from lab.experiment.hostfactors.caches import WARM, Caches
from lab.experiment.hostfactors.ksm import Ksm
from lab.experiment.measurement import Measurement
from lab.experiment.setup import Setup
from lab.experiment.stamp import failure
from lab.experiment.watch import Watch
from lab.host import ksm
from lab.host.clock import now
from lab.host.survey import facts
from lab.instance import Backend, Instance, LaunchRequest
from lab.metrics.base import Observation
from lab.metrics.boot import fetched_by
from lab.metrics.memory import PAGE_BYTES, read_processes
from lab.model import Phase
from lab.results.store import RunFolder

RECENT = 5
"""The next copy is expected to cost as much as the median of so many before it."""

START, BURST = "density.start", "density.burst"
SUMMED = "summed"
"""In the detail of what is charged: it is the sum of the copies' PSS instead."""
CHARGED, PSS, AVAILABLE = "density.charged", "density.pss", "density.available_change"
READ = "density.read"
"""Bytes that the copy's processes fetched from disks until it was ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """How far to go: copies of each backend, bytes that stay free, seconds for each backend."""

    copies: int
    floor_bytes: int
    seconds: float
    bursts: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Stack:
    """One backend's copies while they stand."""

    backend: Backend
    began: float
    available_before: int
    merging: bool  # by KSM
    instances: list[Instance] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)


class Density(Measurement):
    """One measurement of density."""

    def __init__(self, site: Site, setup: Setup, until: Until, folder: RunFolder, watch: Watch) -> None:
        super().__init__(site, setup, folder, watch)
        self.until = until
        self.caches = Caches(site)

    def run(self, backends: Sequence[str]) -> None:
        """All ``backends`` in the order given. Whatever ends it, the folder says why."""
        self.folder.conclude(lambda: self._fill_each(backends))

    def _fill_each(self, backends: Sequence[str]) -> str:
        ended = {}
        for backend in self.prepared(backends):
            ended[backend.name] = self._fill(backend)
            self.folder.update(settings={**self.folder.run.settings, "stopped_by": dict(ended)})
        return "done"

    def _fill(self, backend: Backend) -> str:
        """Bursts, then one copy more and more; returns what ended it."""
        merging = self.setup.host.get("ksm") == "on" and Ksm.applies_to(type(backend))
        with ksm.on(self.site.session) if merging else nullcontext():
            return self._pile_up(backend, merging=merging)

    def _pile_up(self, backend: Backend, *, merging: bool) -> str:
        """The bursts and the stack of one backend that is prepared; returns what ended it."""
        self._burst(backend, 1, record=False)  # what is made at a first start is there
        for size in self.until.bursts:
            self.watch.doing(f"{backend.name}: {size} at once")
            self._burst(backend, size)
        available = int(facts.memory()["available_bytes"])
        stack = _Stack(backend=backend, began=now(), available_before=available, merging=merging)
        with ExitStack() as standing:
            reason = ""
            while not reason:
                reason = self._why_stop(stack) or self._one_more(stack, standing)
            self.watch.note(f"{backend.name}: {len(stack.instances)} copies; stopped by: {reason}")
            self.watch.doing(f"{backend.name}: stopping {len(stack.instances)}")
        return reason

    def _why_stop(self, stack: _Stack) -> str:
        """Empty while one more copy may be started."""
        if len(stack.instances) >= self.until.copies:
            return "the number asked for"
        if now() - stack.began > self.until.seconds:
            return "the time for one backend"
        available = int(facts.memory()["available_bytes"])
        expected = int(statistics.median(stack.costs[-RECENT:])) if stack.costs else 0
        if available - expected < self.until.floor_bytes:
            return "the floor of free memory"
        return ""

    def _one_more(self, stack: _Stack, standing: ExitStack) -> str:
        """Start one, wait for its answer, look at what all of them hold; returns what broke, or ""."""
        number = len(stack.instances) + 1
        self.watch.progress(number - 1, self.until.copies)
        self.watch.doing(f"{stack.backend.name}: copy {number}")
        name = f"{stack.backend.slug}-{number}"
        before = int(facts.memory()["available_bytes"])
        try:
            wanted = self.request(name)
            with self._at_caches(stack.backend, wanted, shared=number > 1) as resident:
                instance = standing.enter_context(self.serving(stack.backend, wanted)).instance
        except LabError as error:
            self.record(stack.backend.name, number, name, failure(START, "seconds", error))
            return f"copy {number} did not come up: {error.message}"
        fetched = fetched_by(instance)
        stack.instances.append(instance)
        stack.costs.append(before - int(facts.memory()["available_bytes"]))
        stamps = instance.timeline.stamps()
        self.record(
            stack.backend.name,
            number,
            name,
            Observation(
                quantity=START, value=stamps[Phase.RESPONDED] - stamps[Phase.REQUESTED], unit="seconds",
                resolution=instance.timeline.resolution_seconds(Phase.RESPONDED),
            ),
            *self._held(stack),
            *resident,
            *([] if fetched is None else [Observation(quantity=READ, value=fetched, unit="bytes")]),
        )  # fmt: skip
        return ""

    def _at_caches(
        self, backend: Backend, wanted: LaunchRequest, *, shared: bool
    ) -> AbstractContextManager[list[Observation]]:
        return self.caches.at(self.setup.host.get("caches", WARM), backend, wanted, shared=shared)

    def _held(self, stack: _Stack) -> list[Observation]:
        """What all copies of the stack hold by now, in bytes."""
        merged = self._merged(stack) if stack.merging else {}
        charged, pss = self._charged(stack), _pss(stack.instances[-1])
        if charged is None:  # an ordinary user has no group that is charged
            charged, merged = sum(map(_pss, stack.instances)), {**merged, SUMMED: True}
        change = stack.available_before - int(facts.memory()["available_bytes"])
        return [
            Observation(quantity=CHARGED, value=charged, unit="bytes", detail=merged),
            Observation(quantity=PSS, value=pss, unit="bytes", detail={"of": "the newest copy"}),
            Observation(quantity=AVAILABLE, value=change, unit="bytes"),
        ]

    def _charged(self, stack: _Stack) -> int | None:
        """By the kernel to all copies; None where it is not told."""
        each = [instance.cgroup.memory() for instance in stack.instances]
        known = [one.usage_bytes for one in each if one is not None]
        return sum(known) if len(known) == len(each) else None

    def _merged(self, stack: _Stack) -> dict[str, object]:
        """What KSM made of all copies, once it has looked at each page twice or the time for that is over."""
        self.watch.doing(f"{stack.backend.name}: waiting for KSM")
        passes = ksm.settle()
        pids = [pid for instance in stack.instances for pid in instance.cgroup.processes()]
        pages = sum(ksm.of_process(pid).merged_pages or 0 for pid in pids)
        return {"ksm_merged_bytes": pages * PAGE_BYTES, "ksm_passes": passes}

    def _burst(self, backend: Backend, size: int, *, record: bool = True) -> None:
        """``size`` copies requested at once: seconds until the last of them has answered, failed if one has not."""
        names = [f"{backend.slug}-burst{size}-{number}" for number in range(1, size + 1)]
        with self._at_caches(backend, self.request(names[0]), shared=False):
            began = now()
            each = self.together(backend, [*map(self.request, names)], lambda _: now() - began)
        failures = [one for one in each if isinstance(one, LabError)]
        seconds = sorted(one for one in each if not isinstance(one, LabError))
        if record:
            if failures:
                self.watch.note(f"{backend.name}, {size} at once: {len(failures)} failed: {failures[0].message}")
            found = (
                failure(BURST, "seconds", failures[0])
                if failures
                else Observation(quantity=BURST, value=seconds[-1], unit="seconds", detail={"each": seconds})
            )
            self.record(backend.name, size, names[0], found)
        elif failures:
            raise failures[0]

    def request(self, name: str) -> LaunchRequest:
        """A copy whose pages may be merged, where that is asked for."""
        mergeable = self.setup.host.get("ksm") == "on" and ksm.can_be_asked_for()
        return replace(super().request(name), mergeable=mergeable)


def _pss(instance: Instance) -> int:
    return read_processes(instance.cgroup.processes()).pss
