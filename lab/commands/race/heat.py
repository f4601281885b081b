"""A live round: each backend starts its copy of the application at the same moment, in a thread of its own.

Copies that are ready stand until the last one is, and are then stopped: a stop would disturb those that still start.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Self

from lab.backends.site import Site
from lab.backends.support.base import SiteBackend
from lab.classroom.race.growing import Starting, course
from lab.classroom.race.model import Round
from lab.errors import LabError
from lab.experiment.measurement import request
from lab.experiment.setup import Setup
from lab.host.clock import Remark, Taken, now
from lab.instance import Instance, LaunchRequest
from lab.metrics.base import Subject
from lab.metrics.ready.readiness import wait_ready
from lab.model import HttpReadiness, Milestone, Phase, TalkReadiness, TcpReadiness
from lab.results.record import Arm

LAUNCH_STEP_SECONDS = 0.05
ASKED = (HttpReadiness, TalkReadiness, TcpReadiness)


class _Ear:
    """Tells a `Starting` of each phase, at the moment when it is seen."""

    def __init__(self, starting: Starting) -> None:
        self._starting = starting

    def remark(self, remarks: Mapping[str, Remark]) -> None:
        """Nothing: a lane has phases alone."""

    def taken(self, taken: Taken) -> None:
        """Nothing, likewise."""

    def marked(self, phase: Phase, at: float) -> None:
        self._starting.marked(phase, at)


class Heat:
    """One round, from the moment when it is entered; leaving it stops every copy and verifies that nothing is left.

    ``number`` counts the rounds; ``arms`` are the lanes, in their order. Before it is entered `round` has them, too.
    """

    def __init__(self, site: Site, setup: Setup, arms: Sequence[Arm], until: Milestone, number: int) -> None:
        asked = isinstance(setup.scenario.readiness, ASKED)
        self.number = number
        self.began = 0.0
        self._site, self._setup = site, setup
        self._backends = [site.backend(arm.backend) for arm in arms]
        self._starting = [
            Starting(arm, course(backend.kernel, until, asked=asked))
            for arm, backend in zip(arms, self._backends, strict=True)
        ]
        self._instances: list[Instance | None] = [None] * len(arms)
        self._together = threading.Barrier(len(arms) + 1)
        self._threads = ThreadPoolExecutor(len(arms), "lab-race")
        self._futures: list[Future[None]] = []

    def __enter__(self) -> Self:
        try:
            wanted = [self._wanted(place) for place in range(len(self._backends))]
            for place, each in enumerate(wanted):
                self._futures.append(self._threads.submit(self._start, place, *each))
            self._together.wait()
        except BaseException:
            self._together.abort()
            self.stop()
            raise
        self.began = now()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_over(self) -> bool:
        """Whether every lane has finished or failed."""
        return all(future.done() for future in self._futures)

    def round(self) -> Round:
        """What is known of it now."""
        return Round(number=self.number, lanes=tuple(each.lane() for each in self._starting))

    def wait(self) -> None:
        """Until it is over."""
        for future in self._futures:
            future.result()

    def stop(self) -> None:
        """Every copy, those too that are not ready yet. Idempotent. Raises LabError where something is left."""
        was_over = self.is_over
        with ThreadPoolExecutor(len(self._backends), "lab-race-stop") as threads:
            ended = [threads.submit(self._end, place) for place in range(len(self._futures))]
        self._threads.shutdown()
        for each in [*ended, *(self._futures if was_over else ())]:
            each.result()  # what a copy that was stopped half-way said in the end is no error

    def _wanted(self, place: int) -> tuple[LaunchRequest, Subject]:
        name = f"{self._backends[place].slug}-r{self.number}"
        wanted = replace(_request(self._site, self._setup, name), listener=_Ear(self._starting[place]))
        return wanted, _subject(self._site, self._setup)

    def _start(self, place: int, wanted: LaunchRequest, subject: Subject) -> None:
        self._together.wait()
        try:
            self._instances[place] = instance = self._backends[place].launch(wanted)
            subject.launched(instance)
            wait_ready(subject)
        except LabError as error:
            self._starting[place].failed(error.message)

    def _end(self, place: int) -> None:
        """Its thread is not waited for first: an instance that is gone ends the waiting for it."""
        future = self._futures[place]
        while self._instances[place] is None and not future.done():
            wait([future], LAUNCH_STEP_SECONDS)  # half a launch can't be stopped
        if (instance := self._instances[place]) is not None:
            instance.stop()
        wait([future])


def warm(site: Site, setup: Setup, backend: SiteBackend) -> None:
    """All that is made once per image, and one start: what it reads is in memory afterwards.

    Raises LabError where there is none.
    """
    backend.prepare(setup.image)
    subject = _subject(site, setup)
    with backend.launch(_request(site, setup, f"{backend.slug}-r0")) as instance:
        subject.launched(instance)
        wait_ready(subject)


def _request(site: Site, setup: Setup, name: str) -> LaunchRequest:
    logs = site.scratch / "logs" / name
    logs.mkdir(parents=True)
    return request(setup, name, logs)


def _subject(site: Site, setup: Setup) -> Subject:
    return Subject.before_launch(scenario=setup.scenario, network=site.network, idle_seconds=0.0)
