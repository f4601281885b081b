"""What a metric is, and the subject it observes.

A metric is one file below ``lab/metrics/`` with one class. The experiment calls its hooks for each instance in
this order: `ready`, `idle`, `loaded`, `ended`; of a batch job `ready`, `done`, `ended`. It never knows which backend
made the instance.
"""

from __future__ import annotations

import json
import time
from abc import ABC
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lab.errors import LabError
from lab.host import ksm
from lab.host.cgroup.control import CpuUsage
from lab.host.clock import now
from lab.host.survey import facts
from lab.instance import Instance
from lab.metrics.clients import wrk
from lab.metrics.clients.jobs import Beside, Done, run_inside
from lab.metrics.clients.wrk import LoadResult
from lab.model import Place, Scenario
from lab.network.network import Network
from lab.results.observation import Observation

BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """CPU that the host spent on an instance between two moments of the one clock."""

    wall_seconds: float
    before: CpuUsage
    after: CpuUsage
    companion_seconds: float | None = None  # CPU of an engine beside it meanwhile, where there is one

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds charged to the instance's cgroup in the window."""
        return self.after.total_seconds - self.before.total_seconds


class Subject:
    """One instance under observation, and what several metrics need to know about it once.

    The idle window and the load happen when the first metric asks for them, and only once: all metrics then
    describe the same seconds.
    """

    def __init__(
        self, *, scenario: Scenario, network: Network, idle_seconds: float, beside: Beside | None = None
    ) -> None:
        self.scenario = scenario
        self.network = network
        self.idle_seconds = idle_seconds
        self.host_available_before_bytes: int = facts.memory()["available_bytes"]
        self.ksm_before = ksm.state()
        self.cpu_at_response: CpuUsage | None = None
        self._instance: Instance | None = None
        self._idle: Window | None = None
        self._load: LoadResult | None = None
        self._load_cpu: Window | None = None
        self._own_kernel: bool | None = None
        self._beside = beside
        self._work: Done | None = None
        self._work_cpu: Window | None = None

    @classmethod
    def before_launch(
        cls, *, scenario: Scenario, network: Network, idle_seconds: float, beside: Beside | None = None
    ) -> Subject:
        """Note what must be known about the host before the instance exists.

        ``beside`` runs a command in a second copy of the image: the client of a scenario that brings its own.
        """
        return cls(scenario=scenario, network=network, idle_seconds=idle_seconds, beside=beside)

    def launched(self, instance: Instance) -> None:
        """The instance exists from here on."""
        self._instance = instance

    @property
    def instance(self) -> Instance:
        """The instance. Raises LabError before it was launched."""
        if self._instance is None:
            raise LabError("a metric asked for an instance before it was launched")
        return self._instance

    @property
    def has_own_kernel(self) -> bool:
        """Whether another kernel than the host's answers inside: its boot id differs (random(4))."""
        if self._own_kernel is None:
            self._own_kernel = self.read_inside(BOOT_ID).strip() != Path(BOOT_ID).read_text().strip()
        return self._own_kernel

    def read_inside(self, path: str) -> str:
        """A small file as the instance sees it. Raises LabError when it can't be read."""
        done = self.instance.inside("read", path, "65536")
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            raise LabError(f"no answer from inside {self.instance.name}", detail=done.stderr.decode()) from error
        if answer["errno"]:
            raise LabError(f"{path} can't be read inside {self.instance.name}: {answer['name']}")
        return str(answer["text"])

    def idle_window(self) -> Window:
        """``idle_seconds`` in which lab asks the instance nothing; waits for them on the first call."""
        if self._idle is None:
            self._idle = self._watch(lambda: time.sleep(self.idle_seconds))
        return self._idle

    def load(self) -> LoadResult | None:
        """What the load client saw, offering the load on the first call; None for a scenario without load."""
        self._offer_load()
        return self._load

    def load_window(self) -> Window | None:
        """The CPU window around the load, the client's start-up included; None without load."""
        self._offer_load()
        return self._load_cpu

    def work(self) -> tuple[Done, Window] | None:
        """What became of the scenario's own work, done on the first call, and the instance's CPU meanwhile.

        None for a scenario without. Raises LabError when it could not be started or did not end in time.
        """
        work = self.scenario.work
        if work is None:
            return None
        if self._work is None or self._work_cpu is None:
            values = {"address": str(self.instance.address), "port": str(self.scenario.port or "")}
            argv = [word.format_map(values) for word in work.argv]

            def do() -> None:
                if work.place is Place.INSIDE:
                    self._work = run_inside(self.instance, argv, work.timeout_seconds)
                elif self._beside is None:
                    raise LabError("nobody is there to run the scenario's client")
                else:
                    self._work = self._beside(argv, work.timeout_seconds)

            self._work_cpu = self._watch(do)
            assert self._work is not None
        return self._work, self._work_cpu

    def _offer_load(self) -> None:
        load, port = self.scenario.load, self.scenario.port
        if self._load_cpu is not None or load is None or port is None:
            return

        def offer() -> None:
            self._load = wrk.offer(self.network, self.instance.address, port, load)

        self._load_cpu = self._watch(offer)

    def _watch(self, action: Callable[[], None]) -> Window:
        cgroup, companion = self.instance.cgroup, self.instance.companion
        engine_before = companion.cgroup.cpu().total_seconds if companion else 0.0
        before, started = cgroup.cpu(), now()
        action()
        seconds, after = now() - started, cgroup.cpu()
        engine = companion.cgroup.cpu().total_seconds - engine_before if companion else None
        return Window(wall_seconds=seconds, before=before, after=after, companion_seconds=engine)


class Metric(ABC):
    """One thing measured about instances. Its docstring says where its clock starts and stops, its unit, and
    what it leaves out. Every hook yields observations, or nothing.
    """

    name: ClassVar[str]  # the first part of its quantities: "boot"
    order: ClassVar[int]  # of the hooks among metrics: what disturbs the instance comes later
    on_request: ClassVar[bool] = False  # whether it is measured only where its name is given, since it takes long
    wants_answers: ClassVar[bool] = False  # whether it asks for answers, and has nothing to say where none is known

    def ready(self, subject: Subject) -> Iterable[Observation]:
        """It is ready: what its scenario waits for has just been seen."""
        return ()

    def idle(self, subject: Subject) -> Iterable[Observation]:
        """Nobody has asked anything but readiness; for CPU at idle see `Subject.idle_window`."""
        return ()

    def loaded(self, subject: Subject) -> Iterable[Observation]:
        """During and after the load; `Subject.load` runs it for whoever asks first."""
        return ()

    def done(self, subject: Subject) -> Iterable[Observation]:
        """A batch job has ended by itself with exit code 0; what it was in, a cgroup, is still there."""
        return ()

    def ended(self, subject: Subject) -> Iterable[Observation]:
        """The instance was stopped, and nothing of it is left."""
        return ()


__all__ = ["Metric", "Observation", "Subject", "Window"]
