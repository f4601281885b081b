"""The story of many starts: what the usual one takes, and what the slowest take.

    1. prepare      each backend: disks, guest kernel, one copy started and stopped as a warm-up
    2. one by one   in each round the backends in a new random order:
       start        a copy is requested, until it is ready
       command      a program run inside it: until its exit is known
       answer       the copy, which runs already, is asked again on a fresh connection
       pause        let all of it stand still: until it does
       resume       let it go on: until it has answered once more
       stop         until nothing of it is left
       … as often as asked for; a backend whose time is used up leaves the rounds
    3. crowds       for each backend, k copies requested at once: each until it is ready
    4. stagger      for each backend, a copy every so many seconds, whether those before are ready or not

A crowd that is expected to leave less memory free than the declared floor is not started.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.backends.site import Site
from lab.errors import LabError
from lab.experiment.measurement import Measurement
from lab.experiment.setup import Setup
from lab.experiment.stamp import WARM_UP, failure
from lab.experiment.watch import Watch
from lab.host.clock import now
from lab.host.survey import facts
from lab.instance import Backend
from lab.metrics.answers import answer
from lab.metrics.base import Observation, Subject
from lab.model import Phase
from lab.results.store import RunFolder

START, COMMAND, ANSWER, STOP = "starts.start", "starts.command", "starts.answer", "starts.stop"
PAUSE, RESUME = "starts.pause", "starts.resume"
CROWD, STAGGER = "starts.at_once", "starts.staggered"
SECONDS = "seconds"
FEW = 8
"""Staggered are as many as the largest crowd has, or so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How much to do: starts one by one, within ``seconds`` for each backend; copies at once; seconds between two
    staggered requests, 0 for none of these; bytes that stay free.
    """

    starts: int
    crowds: tuple[int, ...]
    gap_seconds: float
    seconds: float
    floor_bytes: int


class Starts(Measurement):
    """One measurement of many starts."""

    def __init__(self, site: Site, setup: Setup, asked: Asked, folder: RunFolder, watch: Watch) -> None:
        super().__init__(site, setup, folder, watch)
        self.asked = asked
        self._used: dict[str, float] = {}
        self._costs: dict[str, int] = {}  # bytes of the host's memory that one copy took, as far as is known

    def run(self, backends: Sequence[str], seed: int) -> None:
        """All ``backends``. Whatever ends it, the folder says why."""
        self.folder.conclude(lambda: self._start_many(list(self._warmed(backends)), random.Random(seed)))

    def _warmed(self, backends: Sequence[str]) -> Iterator[Backend]:
        for backend in self.prepared(backends):
            self._one(backend, WARM_UP, 0)
            yield backend

    def _start_many(self, backends: list[Backend], chance: random.Random) -> str:
        self._used = dict.fromkeys((backend.name for backend in backends), 0.0)
        for number in range(1, self.asked.starts + 1):
            self.watch.progress(number - 1, self.asked.starts)
            turn = [backend for backend in backends if self._used[backend.name] < self.asked.seconds]
            chance.shuffle(turn)
            for position, backend in enumerate(turn):
                began = now()
                self.watch.doing(f"{backend.name}: start {number}")
                self._one(backend, number, position)
                self._used[backend.name] += now() - began
        for backend in backends:
            fitted = all(self._crowd(backend, size, 0.0) for size in self.asked.crowds)
            if self.asked.gap_seconds and fitted:
                self._crowd(backend, max(self.asked.crowds, default=FEW), self.asked.gap_seconds)
        return "done"

    # One by one

    def _one(self, backend: Backend, number: int, position: int) -> None:
        """One copy from its request until nothing of it is left; whatever fails is a result, too."""
        name = f"{backend.slug}-{number}"
        before = int(facts.memory()["available_bytes"])
        seen: list[Observation] = []
        try:
            with self.serving(backend, self.request(name)) as subject:
                seen = [ready(START, subject), *self._asked(subject)]
                self._costs[backend.name] = max(1, before - int(facts.memory()["available_bytes"]))
            stamps = subject.instance.timeline.stamps()
            seen.append(Observation(quantity=STOP, value=stamps[Phase.GONE] - stamps[Phase.STOPPING], unit=SECONDS))
        except LabError as error:
            self.watch.note(f"{name}: {error.message}")
            seen.append(failure(STOP if seen else START, SECONDS, error))
        self.record(backend.name, number, name, *seen, position=position)

    def _asked(self, subject: Subject) -> Iterator[Observation]:
        """What a copy that runs already takes for a command and for an answer, where it can be asked for them."""
        if not subject.instance.opaque:
            began = now()
            try:
                subject.instance.inside("version")
                yield Observation(quantity=COMMAND, value=now() - began, unit=SECONDS)
            except LabError as error:
                yield failure(COMMAND, SECONDS, error)
        try:
            seconds = answer(subject)
        except LabError as error:
            yield failure(ANSWER, SECONDS, error)
        else:
            if seconds is not None:
                yield Observation(quantity=ANSWER, value=seconds, unit=SECONDS)
                yield from self._paused(subject)

    def _paused(self, subject: Subject) -> Iterator[Observation]:
        """What it takes to stand still, and from the wish that it goes on until it has answered."""
        began = now()
        try:
            subject.instance.pause()
        except LabError as error:
            yield failure(PAUSE, SECONDS, error)
            return
        yield Observation(quantity=PAUSE, value=now() - began, unit=SECONDS)
        began = now()
        try:
            subject.instance.resume()
            answer(subject)
            yield Observation(quantity=RESUME, value=now() - began, unit=SECONDS)
        except LabError as error:
            yield failure(RESUME, SECONDS, error)

    # Many at once

    def _crowd(self, backend: Backend, size: int, gap_seconds: float) -> bool:
        """``size`` copies, each requested ``gap_seconds`` after the one before; all stand until the last is ready.
        False where the host's memory would not do.
        """
        expected = size * self._costs.get(backend.name, 0)
        if int(facts.memory()["available_bytes"]) - expected < self.asked.floor_bytes:
            self.watch.note(f"{backend.name}: {size} copies would take more memory than is to be used")
            return False
        quantity, how = (STAGGER, f"one each {gap_seconds:g} s") if gap_seconds else (CROWD, "at once")
        self.watch.doing(f"{backend.name}: {size} copies, {how}")
        names = [f"{backend.slug}-{quantity.partition('.')[2]}{size}-{place + 1}" for place in range(size)]
        each = self.together(backend, names, lambda subject: ready(quantity, subject), gap_seconds=gap_seconds)
        for place, (name, one) in enumerate(zip(names, each, strict=True)):
            seen = failure(quantity, SECONDS, one) if isinstance(one, LabError) else one
            self.record(backend.name, size, name, seen, position=place)
        return True


def ready(quantity: str, subject: Subject) -> Observation:
    """Seconds from the request until the copy was ready."""
    timeline = subject.instance.timeline
    stamps = timeline.stamps()
    return Observation(
        quantity=quantity,
        value=stamps[Phase.RESPONDED] - stamps[Phase.REQUESTED],
        unit=SECONDS,
        resolution=timeline.resolution_seconds(Phase.RESPONDED),
    )
