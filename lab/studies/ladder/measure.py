"""The story of the ladder: mechanisms added one at a time, and what each step costs and stops.

    1. prepare     image, helper, guest kernel and disks
    2. ask         one instance per rung, and every isolation probe from inside it
    3. rounds      every rung once per round, in a random order: its start, its memory, its end

A rung that does not come up is recorded as that. What serves in a round is the application on a network of lab's;
what is asked is lab's idle helper, and until a rung gives it a network of its own it stands in the host's: the
probes find what a program there would, and nobody can find the application.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from lab.backends.site import Site
from lab.backends.support.base import SiteBackend
from lab.backends.support.host import Contained, HostBackend
from lab.backends.support.resources import InstanceResources
from lab.errors import LabError
from lab.experiment.measurement import Measurement, request
from lab.experiment.plan import Plan, PlannedArm
from lab.experiment.setup import Setup
from lab.experiment.stamp import WARM_UP, failure
from lab.experiment.watch import Watch
from lab.host.clock import Timeline, now
from lab.instance import INSIDE, Backend, Instance, LaunchRequest
from lab.isolation.base import Probe
from lab.isolation.battery import ask_all
from lab.metrics.base import Observation
from lab.model import Phase, Process
from lab.network.network import Endpoint
from lab.results.store import RunFolder
from lab.runtime.bundle import HOST
from lab.runtime.config.model import Config, MountConfig
from lab.runtime.launcher.launcher import Spec
from lab.studies.ladder.rungs import Rung, configuration, stay_in_chroot

START = "ladder.start"
"""Seconds from the request to the application's execve: what the boundary takes to be put up, and nothing else."""


class Step(HostBackend):
    """The backend of one instance on one rung: lab's runtime with the configuration that was climbed to.

    ``shared`` is the network it lives in until a rung gives it one of its own: made before its clock starts, or the
    host's.
    """

    name = "ladder"
    title = "a rung of the ladder"
    mechanism = "some of a container's mechanisms"
    order = 0

    def __init__(self, site: Site, climbed: Sequence[Rung], shared: Endpoint | None) -> None:
        super().__init__(site)
        self.climbed = tuple(climbed)
        self.shared = shared

    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        network = HOST if self.shared is None else network_namespace
        return configuration(self.climbed, request, network, mounts)

    @property
    def stays_in_chroot(self) -> bool:
        return stay_in_chroot(self.climbed)

    def _connect(self, resources: InstanceResources) -> Path:
        if self.shared is None:
            return Path()
        resources.address = self.shared.address
        return self.shared.path

    def _contain(self, spec: Spec, stdio: list[int], timeline: Timeline, resources: InstanceResources) -> Contained:
        landlock = tuple(name for rung in self.climbed for name in rung.read_only)
        spec = replace(spec, read_only_by_landlock=landlock)
        makes_one = any(space.type == "network" and not space.path for space in spec.config.linux.namespaces)
        contain = self._contain_and_connect if makes_one else super()._contain
        return contain(spec, stdio, timeline, resources)


class Ladder(Measurement):
    """One ladder climbed. Arms of ``plan`` are the rungs' names.

    ``probes`` are asked on each rung, none if there are none.
    """

    def __init__(
        self,
        site: Site,
        setup: Setup,
        plan: Plan,
        rungs: Sequence[Rung],
        probes: Sequence[Probe],
        folder: RunFolder,
        watch: Watch,
    ) -> None:
        super().__init__(site, setup, folder, watch)
        self.plan = plan
        self.rungs = tuple(rungs)
        self.probes = tuple(probes)

    def run(self) -> None:
        """All three steps. Whatever ends it, the folder says why; KeyboardInterrupt and errors go on up."""
        self.folder.conclude(self._all_steps)

    def _all_steps(self) -> str:
        for _ in self.prepared(dict.fromkeys(rung.backend for rung in self.rungs)):
            pass
        for rung in self.rungs if self.probes else ():
            self.ask(rung)
        return self.measure()

    def ask(self, rung: Rung) -> None:
        """Every probe, from inside one instance on ``rung``."""
        self.watch.doing(f"{rung.title}: isolation probes")
        name = f"ask-{rung.name}"
        try:
            with self._quiet(rung, name) as (backend, instance):
                for seen in ask_all(instance, backend, chosen=self.probes):
                    self.record(rung.name, WARM_UP, name, without_expectation(seen))
        except LabError as error:
            self._failed(rung, WARM_UP, 0, name, error)

    def measure(self) -> str:
        """Rounds until their number or the budget is used up; returns which it was."""
        began, longest = now(), 0.0
        rungs = {rung.name: rung for rung in self.rungs}
        for done in count():
            if not self.plan.another(done, now() - began, longest):
                break
            started = now()
            for position, arm in enumerate(self.plan.order(done + 1)):
                expected = (self.plan.blocks or done + 1) * len(rungs)
                self.watch.progress(done * len(rungs) + position, expected)
                self.climb(rungs[arm.label], done + 1, position)
            longest = max(longest, now() - started)
        return "blocks done" if self.plan.blocks is not None else "budget"

    def climb(self, rung: Rung, block: int, position: int) -> None:
        """One instance on ``rung``: its start, its memory, its end."""
        name = f"b{block}-{rung.name}"
        self.watch.doing(f"round {block}: {rung.title}")
        try:
            for seen in self._live(rung, name):
                self.record(rung.name, block, name, seen, position=position)
        except LabError as error:
            self._failed(rung, block, position, name, error)
        self.folder.complete(block, rung.name)

    def _live(self, rung: Rung, name: str) -> Iterator[Observation]:
        with ExitStack() as undo:
            shared = None if rung.own_kernel else undo.enter_context(self.site.network.endpoint())
            backend = self._backend(rung, shared)
            with self.serving(backend, self.request(name), idle_seconds=self.setup.idle_seconds) as subject:
                yield from started(subject.instance)
                for metric in self.setup.metrics:
                    yield from metric.ready(subject)
                for metric in self.setup.metrics:
                    yield from metric.idle(subject)
            for metric in self.setup.metrics:
                yield from metric.ended(subject)

    @contextmanager
    def _quiet(self, rung: Rung, name: str) -> Iterator[tuple[Backend, Instance]]:
        """An instance that does nothing but hold still, or the application where the kernel is its own."""
        backend = self._backend(rung, None)
        if rung.own_kernel:
            with self.serving(backend, self.request(name)) as subject:
                yield backend, subject.instance
            return
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with ExitStack() as undo:
            undo.callback(os.close, writing)
            undo.callback(os.close, reading)
            process = Process(argv=(INSIDE, "hold", "ladder"))
            wanted = replace(self.request(name), process=process, stdin=reading)
            yield backend, undo.enter_context(backend.launch(wanted))

    def _backend(self, rung: Rung, shared: Endpoint | None) -> SiteBackend:
        if rung.own_kernel:
            return self.site.backend(rung.backend)
        return Step(self.site, self.rungs[: self.rungs.index(rung) + 1], shared)

    def _failed(self, rung: Rung, block: int, position: int, name: str, error: LabError) -> None:
        """A rung that can't be climbed here is a result."""
        self.watch.note(f"{rung.title}: {error.message}")
        self.record(rung.name, block, name, failure(START, "seconds", error), position=position)


def started(instance: Instance) -> Iterable[Observation]:
    """`START`, of an instance that has answered."""
    timeline = instance.timeline
    requested, executed = timeline.at(Phase.REQUESTED), timeline.at(Phase.EXECUTED)
    if requested is None or executed is None:
        return ()
    resolution = timeline.resolution_seconds(Phase.EXECUTED)
    return (Observation(quantity=START, value=executed - requested, unit="seconds", resolution=resolution),)


def without_expectation(seen: Observation) -> Observation:
    """What is expected is stated for whole backends; on a rung between them nothing is."""
    return replace(seen, detail={**seen.detail, "expected": "", "as_expected": None, "reason": ""})


def planned(rungs: Sequence[Rung]) -> tuple[PlannedArm, ...]:
    """An arm per rung. There is no A/A twin: neighbouring rungs that cost nothing are the null comparison."""
    return tuple(PlannedArm(label=rung.name, backend=rung.backend) for rung in rungs)


def request_for_show(setup: Setup) -> LaunchRequest:
    """What an instance is asked for, to tell how its configuration is made."""
    return request(setup, "instance", Path())
