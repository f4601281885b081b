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
    3. crowds       for each backend, k copies requested at once: each until it is ready, and what it holds then
    4. stagger      for each backend, a copy every so many seconds, whether those before are ready or not
    5. forks        for each backend that can, as in 3., but all restored from one copy that was saved as it served,
                    its memory read by each, or mapped by all where a backend can; what they hold, then and later
    6. stock        for each backend, k copies that stand ready; requests come, as staggered, or when all stand
       request      one is handed out and asked: until it has answered, the wait for one included if none stood ready
       refill       another one is started in its place, meanwhile

A crowd that is expected to leave less memory free than the declared floor is not started.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

from lab.backends.site import Site
from lab.backends.support.saving import MAP, RESTORE
from lab.backends.support.saving import START as START_KNOB
from lab.errors import LabError
from lab.experiment.measurement import Measurement
from lab.experiment.setup import Setup
from lab.experiment.stamp import WARM_UP, failure
from lab.experiment.watch import Watch
from lab.host.clock import now
from lab.host.survey import facts
from lab.instance import NO_KNOBS, Backend
from lab.metrics.base import Observation, Subject
from lab.metrics.memory import read_processes
from lab.metrics.ready.answers import answer, is_asked
from lab.model import Phase
from lab.results.store import RunFolder
from lab.studies.starts.stock import Stock

START, COMMAND, ANSWER, STOP = "starts.start", "starts.command", "starts.answer", "starts.stop"
PAUSE, RESUME = "starts.pause", "starts.resume"
CROWD, STAGGER = "starts.at_once", "starts.staggered"
FORKED, MAPPED = "starts.forked", "starts.mapped"
FORKS = {RESTORE: FORKED, MAP: MAPPED}
HANDED = "starts.handed_out"
SECONDS = "seconds"
HELD = ("pss", "shared", "private")
"""What each copy of a crowd holds once all stand, in bytes: the quantity's name and one of these; with LATER behind
it, what it holds when it has stood for a while.
"""
LATER = ".later"
SAVED = "saved"
"""What of the host's memory that holds which all of them have mapped, whoever maps it."""

REQUESTS_AT_ONCE = 64
"""So many may wait for a copy of the stock; the next one's wait is then longer than what it says."""

FEW = 8
"""Staggered are as many as the largest crowd has, or so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How much to do: starts one by one, within ``seconds`` for each backend; copies at once, and restored at once;
    how long those stand before their memory is looked at again, 0 for never; seconds between two staggered requests,
    0 for none of these; copies in stock, 0 for none; bytes that stay free.
    """

    starts: int
    crowds: tuple[int, ...]
    forks: tuple[int, ...]
    settle_seconds: float
    stock: int
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
            fitting = self._at_once(backend)
            if self.asked.gap_seconds and (fitting or not self.asked.crowds):
                self._crowd(backend, max(fitting, default=FEW), self.asked.gap_seconds)
            if self.asked.forks:
                self._fork(backend)
            if self.asked.stock:
                self._hand_out(backend)
        return "done"

    def _at_once(self, backend: Backend) -> list[int]:
        """The crowds that were started: up to the first that the host's memory would not do for."""
        return list(itertools.takewhile(lambda size: self._crowd(backend, size, 0.0), self.asked.crowds))

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

    def _crowd(
        self,
        backend: Backend,
        size: int,
        gap_seconds: float,
        *,
        quantity: str = "",
        knobs: Mapping[str, str] = NO_KNOBS,
        settle_seconds: float = 0.0,
    ) -> bool:
        """``size`` copies, each requested ``gap_seconds`` after the one before; all stand until the last is ready,
        and ``settle_seconds`` longer. False where the host's memory would not do.
        """
        if not self._fits(backend, size):
            return False
        quantity = quantity or (STAGGER if gap_seconds else CROWD)
        how = f"one each {gap_seconds:g} s" if gap_seconds else "at once"
        self.watch.doing(f"{backend.name}: {size} copies, {how}{', restored' if knobs else ''}")
        names = [f"{backend.slug}-{quantity.partition('.')[2]}{size}-{place + 1}" for place in range(size)]
        wanted = [replace(self.request(name), knobs=knobs) for name in names]
        backend.rehearse(wanted[0])
        memory: dict[str, list[Observation]] = {}
        each = self.together(
            backend,
            wanted,
            lambda subject: ready(quantity, subject),
            gap_seconds=gap_seconds,
            standing=lambda subjects: self._weigh(subjects, memory, quantity, settle_seconds),
        )
        for place, (name, one) in enumerate(zip(names, each, strict=True)):
            seen = failure(quantity, SECONDS, one) if isinstance(one, LabError) else one
            self.record(backend.name, size, name, seen, *memory.get(name, ()), position=place)
        return True

    def _weigh(
        self, subjects: Sequence[Subject], memory: dict[str, list[Observation]], quantity: str, settle_seconds: float
    ) -> None:
        """What each of those that stand holds, all of them first now, then once they have stood for a while."""
        memory.update({subject.instance.name: held(quantity, subject) for subject in subjects})
        if not settle_seconds:
            return
        self.watch.doing(f"{len(subjects)} copies stand for {settle_seconds:g} s")
        time.sleep(settle_seconds)
        for subject in subjects:
            memory[subject.instance.name] += held(quantity, subject, LATER)

    def _fits(self, backend: Backend, size: int) -> bool:
        expected = size * self._costs.get(backend.name, 0)
        if int(facts.memory()["available_bytes"]) - expected >= self.asked.floor_bytes:
            return True
        self.watch.note(f"{backend.name}: {size} copies would take more memory than is to be used")
        return False

    def _fork(self, backend: Backend) -> None:
        """Copies that all go on from one that was saved, in each way that there is; of a backend that can't, why."""
        levels = next((knob.levels for knob in backend.knobs if knob.name == START_KNOB.name), ())
        if not levels:
            self._not_forked(backend, "lab has no way to save and restore one")
        for level in levels[1:]:
            knobs = {START_KNOB.name: level}
            try:
                backend.settle(knobs)
                backend.prepare(self.setup.image, knobs)
                for size in self.asked.forks:
                    quantity, settle = FORKS[level], self.asked.settle_seconds
                    if not self._crowd(backend, size, 0.0, quantity=quantity, knobs=knobs, settle_seconds=settle):
                        break
            except LabError as error:
                self._not_forked(backend, error.message)

    def _not_forked(self, backend: Backend, why: str) -> None:
        self.watch.note(f"{backend.name}: {why}")
        settings = self.folder.run.settings
        known = {**settings.get("not_forked", {}), backend.name: why}
        self.folder.update(settings={**settings, "not_forked": known})

    # Out of a stock

    def _hand_out(self, backend: Backend) -> None:
        """As many requests as there were to be starts, within their time."""
        size, gap = self.asked.stock, self.asked.gap_seconds
        if not is_asked(self.setup.scenario):
            self.watch.note(f"{backend.name}: no stock: the application gives no answer that could be waited for")
            return
        if not self._fits(backend, size + 1):
            return
        self.watch.doing(f"{backend.name}: filling a stock of {size}")
        names = (f"{backend.slug}-stock-{number}" for number in itertools.count(1))
        with ExitStack() as everything:
            stock = everything.enter_context(Stock(size, lambda: self.serving(backend, self.request(next(names)))))
            threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, "lab-requests")
            everything.callback(threads.shutdown, cancel_futures=True)
            everything.callback(stock.close)  # first of all: after Ctrl-C nobody waits for a copy any more
            stock.wait_full()
            began, served = now(), []
            for number in range(1, self.asked.starts + 1):
                due = began + number * gap if gap else now()
                if due - began > self.asked.seconds:
                    break
                time.sleep(max(0.0, due - now()))
                self.watch.doing(f"{backend.name}: request {number} to a stock of {size}")
                served.append(threads.submit(self._serve, backend, stock, number, due))
                if not gap:
                    served[-1].result()
                    stock.wait_full()
            for each in served:
                each.result()

    def _serve(self, backend: Backend, stock: Stock, number: int, due: float) -> None:
        """One request that was due then, until its copy has answered; the copy is stopped afterwards."""
        copy, stood = stock.take()
        detail = {"stood_ready": stood, "waited_seconds": now() - due}
        with copy.stack:
            try:
                subject = copy.get()
                answer(subject)
                seen = Observation(quantity=HANDED, value=now() - due, unit=SECONDS, detail=detail)
                name = subject.instance.name
            except LabError as error:
                seen, name = failure(HANDED, SECONDS, error), f"{backend.slug}-stock"
            self.record(backend.name, number, name, seen)


def held(quantity: str, subject: Subject, when: str = "") -> list[Observation]:
    """What all its processes on the host hold of memory, a VMM included (proc_pid_smaps(5)): PSS, what is shared with
    any other mapping, and what is not; and what that holds which all of them have mapped.
    """
    pids = subject.instance.cgroup.processes()
    memory = read_processes(pids)
    values = {name: getattr(memory, name) for name in HELD}
    if (saved := subject.instance.saved_memory_bytes()) is not None:
        values[SAVED] = saved
    return [
        Observation(quantity=f"{quantity}.{name}{when}", value=float(value), unit="bytes")
        for name, value in values.items()
    ]


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
