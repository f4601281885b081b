"""The story of a trial: does a scenario work on a backend, and if so, with which reservation?

    1. prepare   what is made once per image; limits that can't be had are found here
    2. start     one copy, until it is ready as its scenario has it
    3. check     its own work, whose output is compared; wrk, where every answer counts; of a job its exit code
    4. stop      until nothing of it is left

A copy that fails with its limits is tried once more with more room. That is the control for “it needs more memory
here”: only where the second attempt succeeds is it said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from lab.backends.site import Site
from lab.errors import LabError, NotReady
from lab.experiment.applications import is_job, is_silent, linger, require_success, wait_done
from lab.experiment.measurement import request
from lab.experiment.scenarios.client import Client
from lab.experiment.setup import Setup
from lab.host.clock import now
from lab.host.survey.virtualisation import platform
from lab.host.units import format_bytes
from lab.instance import Backend, Instance
from lab.metrics.base import Subject
from lab.metrics.ready.readiness import wait_ready
from lab.metrics.work import OwnWork
from lab.model import Accelerator, Kernel, Limits, Load, Phase, Scenario
from lab.results.compatibility import Cell, Outcome, Step
from lab.results.record import Status

GRACE_SECONDS = 10.0
"""What `lab.instance.Instance.stop` gives an application before it is killed."""
LOAD_SECONDS = 1.0
MORE_ROOM = 4
PATIENCE_WITH_EMULATION = 4.0
"""By how much a scenario's times are too short where each instruction is translated, and perhaps the host is busy."""
EMULATED = "emulated (TCG), since this host offers no KVM that works"


@dataclass(slots=True)
class Seen:
    """How far an attempt came."""

    name: str
    step: Step = Step.PREPARE
    ready_seconds: float | None = None
    reasons: list[str] = field(default_factory=list)

    def said(self, error: LabError | OSError) -> str:
        """What ``error`` says of the copy, whose name tells nobody anything afterwards."""
        return _said(error).replace(self.name, "it")


class Trial:
    """Tries scenarios on the backends of one session. ``at_most_seconds`` bounds readiness and check of each."""

    def __init__(self, site: Site, at_most_seconds: float) -> None:
        self.site = site
        self.at_most_seconds = at_most_seconds
        self._numbers = count(1)

    def bounded(self, scenario: Scenario, accelerator: Accelerator) -> Scenario:
        """``scenario`` with more time where it is emulated, with no more than a trial has, and with no more load than
        shows whether it works.
        """
        most, times = self.at_most_seconds, PATIENCE_WITH_EMULATION if accelerator is Accelerator.TCG else 1.0
        work = scenario.work and replace(
            scenario.work, timeout_seconds=min(most, times * platform().patience * scenario.work.timeout_seconds)
        )
        load = scenario.load and replace(scenario.load, duration_seconds=LOAD_SECONDS)
        ready_seconds = min(most / platform().patience, times * scenario.ready_timeout_seconds)
        return replace(scenario, work=work, load=load, ready_timeout_seconds=ready_seconds)

    def run(self, setup: Setup, name: str) -> Cell:
        """What becomes of the scenario of ``setup`` on the backend ``name``. A failure is a result."""
        began = now()
        backend = self.site.backend(name)
        patience_seconds, accelerator = setup.scenario.ready_timeout_seconds, self._accelerator(backend)
        setup = replace(setup, scenario=self.bounded(setup.scenario, accelerator))
        cell = Cell(scenario=setup.scenario.name, backend=name, outcome=Outcome.WORKS, accelerator=accelerator)
        seen, error = self._try(setup, backend)
        if error is not None and (roomier := more_room(setup.limits)) and _may_lack_room(seen, error):
            again, still = self._try(replace(setup, limits=roomier), backend)
            if still is None:
                again.reasons.append(f"needs more than {described(setup.limits)}: {seen.said(error)}")
                seen, error = again, None
        cell = replace(cell, ready_seconds=seen.ready_seconds, seconds=now() - began)
        if error is not None and seen.step is Step.STOP:
            seen.reasons.append(f"is not ended cleanly: {seen.said(error)}")
        elif error is not None:
            return replace(
                cell, outcome=Outcome.FAILS, reasons=(seen.said(error),), failed_at=seen.step, detail=_detail(error)
            )
        if accelerator is Accelerator.TCG:
            seen.reasons.append(EMULATED)
        if seen.ready_seconds is not None and seen.ready_seconds > patience_seconds * platform().patience:
            seen.reasons.append(
                f"takes longer to be ready than the {patience_seconds:g} s that its scenario gives it"
            )
        return replace(cell, outcome=Outcome.BUT if seen.reasons else Outcome.WORKS, reasons=tuple(seen.reasons))

    def unmade(self, scenario: str, name: str, error: LabError) -> Cell:
        """What is said of a scenario whose image can't be made, or which can't be settled."""
        backend = self.site.backend(name)
        return Cell(
            scenario=scenario, backend=name, outcome=Outcome.FAILS, accelerator=self._accelerator(backend),
            reasons=(_said(error),), failed_at=Step.IMAGE, detail=error.detail,
        )  # fmt: skip

    def _accelerator(self, backend: Backend) -> Accelerator:
        return self.site.accelerator if backend.kernel is Kernel.OWN else Accelerator.NATIVE

    def _try(self, setup: Setup, backend: Backend) -> tuple[Seen, LabError | OSError | None]:
        seen = Seen(f"{backend.slug}-{next(self._numbers)}")
        try:
            self._live(setup, backend, seen)
        except (LabError, OSError) as error:
            return seen, error
        return seen, None

    def _live(self, setup: Setup, backend: Backend, seen: Seen) -> None:
        """One copy from its request until nothing of it is left; ``seen`` has how far it came."""
        wanted = request(setup, seen.name, self._logs())
        backend.check_limits(setup.limits)
        backend.prepare(setup.image)
        backend.rehearse(wanted)
        client = Client(self.site, setup.image, setup.process, self._logs, f"client-{seen.name}")
        subject = Subject.before_launch(
            scenario=setup.scenario, network=self.site.network, idle_seconds=0.0, beside=client.run
        )
        seen.step = Step.START
        with backend.launch(wanted) as instance:
            subject.launched(instance)
            seen.step = Step.READY
            wait_ready(subject)
            stamps = instance.timeline.stamps()
            seen.ready_seconds = stamps[Phase.RESPONDED] - stamps[Phase.REQUESTED]
            seen.step = Step.CHECK
            seen.reasons += self._check(setup, subject)
            seen.step = Step.STOP
        stamps = instance.timeline.stamps()
        if stamps[Phase.GONE] - stamps[Phase.STOPPING] >= GRACE_SECONDS:
            seen.reasons.append(f"does not end when it is asked to, and is killed after {GRACE_SECONDS:g} s")

    def _check(self, setup: Setup, subject: Subject) -> Iterator[str]:
        """Raises LabError when what it does is wrong; yields reservations."""
        instance, scenario = subject.instance, setup.scenario
        if is_job(scenario):
            wait_done(instance, platform().patience * scenario.ready_timeout_seconds)
        elif is_silent(scenario) and not linger(instance, setup.linger_seconds):
            yield "ends by itself"
            return
        wrong = [each.text for each in OwnWork().loaded(subject) if each.status is not Status.OK]
        if wrong:
            raise LabError(wrong[0])
        result = subject.load()
        if result is not None and (result.failed or not result.requests):
            raise LabError(f"{result.failed} of {result.requests} requests to it failed")
        if not is_job(scenario) and not instance.opaque:
            require_success(instance, instance.wait(0.0))
        yield from _killed(instance)

    def _logs(self, name: str = "") -> Path:
        """A folder of the session's own for the logs of one copy; they are gone with it."""
        folder = self.site.scratch / "logs" / f"trial-{name}{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder


def looked_at(scenario: Scenario) -> str:
    """What a trial of ``scenario`` compares, in words."""
    if is_job(scenario):
        return "it ends with exit code 0"
    if scenario.work is not None:
        return f"the output of its own work, {scenario.work.argv[0].rpartition('/')[2]} {scenario.work.place}"
    if isinstance(scenario.load, Load) and scenario.port is not None:
        return f"each answer to wrk at {scenario.load.path}"
    return "that it runs on" if is_silent(scenario) else "that it is ready"


def more_room(limits: Limits) -> Limits | None:
    """Wider limits, as a control; None where there is nothing to widen."""
    if limits.memory_bytes is None and limits.pids is None:
        return None
    memory_bytes = None if limits.memory_bytes is None else MORE_ROOM * limits.memory_bytes
    return replace(limits, memory_bytes=memory_bytes, pids=None)


def described(limits: Limits) -> str:
    """``256 MiB of memory and 64 processes``."""
    memory = [] if limits.memory_bytes is None else [f"{format_bytes(limits.memory_bytes)} of memory"]
    return " and ".join(memory + ([] if limits.pids is None else [f"{limits.pids} processes"]))


def _may_lack_room(seen: Seen, error: LabError | OSError) -> bool:
    """Whether more memory could help: what ran out of time, or was not ended cleanly, had enough."""
    return seen.step is not Step.STOP and not isinstance(error, NotReady | OSError)


def _killed(instance: Instance) -> Iterator[str]:
    try:
        killed = instance.cgroup.limit_hits().get("oom")
    except (OSError, LabError):  # its group is gone with a job that has ended
        return
    if killed:
        yield f"the kernel killed {killed} of its processes for memory"


def _said(error: LabError | OSError) -> str:
    return error.message if isinstance(error, LabError) else str(error)


def _detail(error: LabError | OSError) -> str:
    return error.detail if isinstance(error, LabError) else ""
