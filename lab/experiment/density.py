"""The story of density: how many copies fit, and what the next one costs.

    for each backend, one after the other, since they would share the host:
    1. prepare      disks, guest kernel, one copy started and stopped as a warm-up
    2. bursts       k copies requested at once: until the last of them has answered
    3. stack        one more copy, until it has answered correctly; then what all of them hold by now, with KSM
                    once it has looked twice at all that is offered
       … until there are as many as asked for, the host's floor of free memory is reached, the time is up,
         or a copy does not come up: that is what broke first
    4. clear        every copy is stopped, and the host looked at again

The host is protected by a declared floor: no copy is started that is expected to leave less memory free.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

from lab.backends.site import Site
from lab.errors import LabError
from lab.experiment.hostfactors.ksm import Ksm
from lab.experiment.setup import Setup
from lab.experiment.watch import Watch
from lab.host import facts, ksm
from lab.host.clock import now
from lab.instance import Backend, Instance, LaunchRequest
from lab.metrics.base import Observation, Subject
from lab.metrics.memory import PAGE_BYTES, ProcessMemory, read_process
from lab.metrics.readiness import wait_ready
from lab.model import Accelerator, Phase
from lab.results.record import Sample, Status
from lab.results.store import RunFolder

RECENT = 5
"""The next copy is expected to cost as much as the median of so many before it."""

START, BURST = "density.start", "density.burst"
CHARGED, PSS, AVAILABLE = "density.charged", "density.pss", "density.available_change"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
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


class Density:
    """One measurement of density, appended to ``folder`` as it is made."""

    def __init__(self, site: Site, setup: Setup, limits: Limits, folder: RunFolder, watch: Watch) -> None:
        self.site = site
        self.setup = setup
        self.limits = limits
        self.folder = folder
        self.watch = watch

    def run(self, backends: Sequence[str]) -> None:
        """All backends, the thinnest boundary first. Whatever ends it, the folder says why."""
        because = "error"
        try:
            ended = {}
            for backend in sorted((self.site.backend(name) for name in backends), key=lambda each: each.order):
                ended[backend.name] = self._fill(backend)
                self.folder.update(settings={**self.folder.run.settings, "stopped_by": dict(ended)})
            because = "done"
        except KeyboardInterrupt:
            because = "interrupted"
            raise
        except LabError as error:
            because = f"error: {error.message}"
            raise
        finally:
            self.folder.finish(because)

    def _fill(self, backend: Backend) -> str:
        """Bursts, then one copy more and more; returns what ended it."""
        self.watch.doing(f"preparing {backend.name}")
        backend.prepare(self.setup.image)
        merging = self.setup.host.get("ksm") == "on" and Ksm.applies_to(type(backend))
        with ksm.on(self.site.session) if merging else nullcontext():
            return self._pile_up(backend, merging=merging)

    def _pile_up(self, backend: Backend, *, merging: bool) -> str:
        """The bursts and the stack of one backend that is prepared; returns what ended it."""
        self._burst(backend, 1, record=False)  # caches fill
        for size in self.limits.bursts:
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
        if len(stack.instances) >= self.limits.copies:
            return "the number asked for"
        if now() - stack.began > self.limits.seconds:
            return "the time for one backend"
        available = int(facts.memory()["available_bytes"])
        expected = int(statistics.median(stack.costs[-RECENT:])) if stack.costs else 0
        if available - expected < self.limits.floor_bytes:
            return "the floor of free memory"
        return ""

    def _one_more(self, stack: _Stack, standing: ExitStack) -> str:
        """Start one, wait for its answer, look at what all of them hold; returns what broke, or ""."""
        number = len(stack.instances) + 1
        self.watch.progress(number - 1, self.limits.copies)
        self.watch.doing(f"{stack.backend.name}: copy {number}")
        name = f"{stack.backend.name}-{number}"
        before = int(facts.memory()["available_bytes"])
        try:
            subject = self._start(stack.backend, name, standing)
        except LabError as error:
            self._record(stack.backend, name, number, self._failure(START, error))
            return f"copy {number} did not come up: {error.message}"
        instance = subject.instance
        stack.instances.append(instance)
        stack.costs.append(before - int(facts.memory()["available_bytes"]))
        stamps = instance.timeline.stamps()
        self._record(
            stack.backend,
            name,
            number,
            Observation(
                quantity=START, value=stamps[Phase.RESPONDED] - stamps[Phase.REQUESTED], unit="seconds",
                resolution=instance.timeline.resolution_seconds(Phase.RESPONDED),
            ),
            *self._held(stack),
        )  # fmt: skip
        return ""

    def _start(self, backend: Backend, name: str, standing: ExitStack) -> Subject:
        """One copy that has answered. Raises LabError, and then nothing of it is left."""
        subject = Subject.before_launch(scenario=self.setup.scenario, network=self.site.network, idle_seconds=0.0)
        with ExitStack() as undo:
            instance = undo.enter_context(backend.launch(self._request(name)))
            subject.launched(instance)
            wait_ready(subject)
            standing.push(undo.pop_all())
        return subject

    def _held(self, stack: _Stack) -> list[Observation]:
        """What all copies of the stack hold by now, in bytes."""
        merged = self._merged(stack) if stack.merging else {}
        charged = sum(instance.cgroup.memory().usage_bytes for instance in stack.instances)
        newest = stack.instances[-1]
        pss = sum((read_process(pid) for pid in newest.cgroup.processes()), start=ProcessMemory()).pss
        change = stack.available_before - int(facts.memory()["available_bytes"])
        return [
            Observation(quantity=CHARGED, value=charged, unit="bytes", detail=merged),
            Observation(quantity=PSS, value=pss, unit="bytes", detail={"of": "the newest copy"}),
            Observation(quantity=AVAILABLE, value=change, unit="bytes"),
        ]

    def _merged(self, stack: _Stack) -> dict[str, object]:
        """What KSM made of all copies, once it has looked at each page twice or the time for that is over."""
        self.watch.doing(f"{stack.backend.name}: waiting for KSM")
        passes = ksm.settle()
        pids = [pid for instance in stack.instances for pid in instance.cgroup.processes()]
        pages = sum(ksm.of_process(pid).merged_pages or 0 for pid in pids)
        return {"ksm_merged_bytes": pages * PAGE_BYTES, "ksm_passes": passes}

    def _burst(self, backend: Backend, size: int, *, record: bool = True) -> None:
        """``size`` copies requested at once: seconds until the last of them has answered, failed if one has not."""
        names = [f"{backend.name}-burst{size}-{number}" for number in range(1, size + 1)]
        failures: list[LabError] = []
        began = now()

        with ExitStack() as standing, ThreadPoolExecutor(size, "lab-burst") as threads:
            # each has a stack of its own: one is not safe to use from several threads
            stacks = [standing.enter_context(ExitStack()) for _ in names]

            def start(index: int) -> float:
                self._start(backend, names[index], stacks[index])
                return now() - began

            seconds = []
            for future in [threads.submit(start, index) for index in range(size)]:
                try:
                    seconds.append(future.result())
                except LabError as error:
                    failures.append(error)
        if record:
            if failures:
                self.watch.note(f"{backend.name}, {size} at once: {len(failures)} failed: {failures[0].message}")
            found = (
                self._failure(BURST, failures[0])
                if failures
                else Observation(quantity=BURST, value=max(seconds), unit="seconds", detail={"each": sorted(seconds)})
            )
            self._record(backend, names[0], size, found)
        elif failures:
            raise failures[0]

    def _request(self, name: str) -> LaunchRequest:
        return LaunchRequest(
            name=name,
            image=self.setup.image,
            process=self.setup.process,
            limits=self.setup.limits,
            log_directory=self.folder.log_directory(name),
            mergeable=self.setup.host.get("ksm") == "on" and ksm.can_be_asked_for(),
        )

    def _failure(self, quantity: str, error: LabError) -> Observation:
        return Observation(
            quantity=quantity, value=None, unit="seconds", status=Status.FAILED, text=error.message,
            detail={"hint": error.hint, "tail": error.detail},
        )  # fmt: skip

    def _record(self, backend: Backend, instance: str, copies: int, *seen: Observation) -> None:
        """``block`` is the number of copies: the n of every density curve."""
        arm = next(arm for arm in self.folder.run.arms if arm.label == backend.name)
        self.folder.append(
            *(
                Sample(
                    metric="density",
                    quantity=each.quantity,
                    value=each.value,
                    unit=each.unit,
                    backend=backend.name,
                    arm=backend.name,
                    block=copies,
                    position=0,
                    instance=instance,
                    status=each.status,
                    accelerator=arm.accelerator or Accelerator.NATIVE,
                    kernel=arm.kernel,
                    image=self.setup.image.digest,
                    at=time.time(),
                    resolution=each.resolution,
                    text=each.text,
                    detail=each.detail,
                )
                for each in seen
            )
        )
