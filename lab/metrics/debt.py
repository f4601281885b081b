"""What a copy that has just given its first correct answer still owes: how slow the next ones are, and how many pages
are made or fetched for them.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from lab.errors import NotReady
from lab.host import procstat
from lab.host.cgroup.control import ControlGroup, PageFaults
from lab.host.clock import now
from lab.metrics.base import Metric, Observation, Subject
from lab.metrics.memory import read_processes
from lab.metrics.ready.answers import answers
from lab.model import HttpReadiness, Phase, TalkReadiness
from lab.results.record import Status

REQUESTS = 100
FEW = 10
FIRST, LATER = "first", "later"
READY, ANSWERED = "ready", "answered"
BATCH = 64
"""So many of one processor's events the kernel may hold back before a group's statistics have them: its
MEMCG_CHARGE_BATCH (include/linux/memcontrol.h).
"""


class Debt(Metric):
    """A hundred answers right after the first correct one (state first), and a hundred of the very same copy after
    the idle window (state later), asked for one after the other as its readiness asks, each over a fresh connection.

    The clock of each answer starts with its connect and stops when all of it was there and right; the client, lab
    itself, is in it. ``debt.seconds`` is the sum of the hundred, and its detail has each, in their order; one wrong
    answer makes it a failed one. ``debt.owed`` is by how much the first hundred took longer than the later ones.
    ``debt.latency.1`` is the first of them, ``debt.latency.first_ten`` and ``last_ten`` are medians of ten of the
    first hundred, ``debt.latency.later`` that of the later hundred.

    ``debt.faults.minor`` and ``major`` count page faults, meanwhile, of all its host processes, a VMM included: what
    each process counted for itself and its children, or what its cgroup did where that is more by more than the
    kernel may hold back. ``debt.resident`` is PSS, before the first of these requests (state ready), after the
    hundred (answered) and at the end of the idle window (later); ``debt.growth`` from the first to the last of these.

    Left out: what was paid before the first correct answer, which is part of the boot; faults that a guest's own
    kernel serves; readiness that is no answer.
    """

    name = "debt"
    order = 35
    on_request = True
    wants_answers = True

    def __init__(self) -> None:
        self._before: WeakKeyDictionary[Subject, tuple[int, Asked]] = WeakKeyDictionary()

    def ready(self, subject: Subject) -> Iterator[Observation]:
        ready_bytes = resident_bytes(subject)
        began = now()
        asked = ask(subject)
        if asked is None:
            return
        self._before[subject] = ready_bytes, asked
        responded = subject.instance.timeline.at(Phase.RESPONDED)
        waited: dict[str, object] = {} if responded is None else {"after_ready_seconds": began - responded}
        yield from told(asked, FIRST, waited)
        if not asked.wrong:
            for name, of in (("1", 1), ("first_ten", FEW), ("last_ten", -FEW)):
                some = asked.seconds[:of] if of > 0 else asked.seconds[of:]
                yield Observation(quantity=f"debt.latency.{name}", value=statistics.median(some), unit="seconds")
        yield _resident(ready_bytes, READY)
        yield _resident(resident_bytes(subject), ANSWERED)

    def idle(self, subject: Subject) -> Iterator[Observation]:
        if subject not in self._before:
            return
        ready_bytes, first = self._before.pop(subject)
        window = subject.idle_window()
        later_bytes = resident_bytes(subject)
        later = ask(subject)
        assert later is not None
        yield from told(later, LATER, {})
        yield _resident(later_bytes, LATER)
        yield Observation(
            quantity="debt.growth", value=later_bytes - ready_bytes, unit="bytes",
            detail={"idle_seconds": window.wall_seconds},
        )  # fmt: skip
        if not later.wrong:
            yield Observation(quantity="debt.latency.later", value=statistics.median(later.seconds), unit="seconds")
            if not first.wrong:
                owed = sum(first.seconds) - sum(later.seconds)
                yield Observation(quantity="debt.owed", value=owed, unit="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Seconds that each answer took, in their order; what was ``wrong`` with the one that ended it; page faults
    meanwhile, None where they can't be known, and how far that may be off.
    """

    seconds: Sequence[float]
    wrong: str
    faults: PageFaults | None
    faults_resolution: int


def ask(subject: Subject) -> Asked | None:
    """Ask a copy that is ready for `REQUESTS` answers, one after the other; None where there is nothing to ask."""
    if not isinstance(subject.scenario.readiness, (HttpReadiness, TalkReadiness)):
        return None
    cgroup = subject.instance.cgroup
    before, group_before = own_faults(cgroup), cgroup.faults()
    seconds: list[float] = []
    wrong = ""
    try:
        for each in answers(subject, REQUESTS):
            seconds.append(each)  # noqa: PERF402 - those before a wrong one are kept
    except NotReady as error:
        wrong = error.message
    faults, resolution = between(before, own_faults(cgroup), group_before, cgroup.faults())
    return Asked(seconds=seconds, wrong=wrong, faults=faults, faults_resolution=resolution)


def told(asked: Asked, state: str, detail: dict[str, object]) -> Iterator[Observation]:
    """The time of the hundred, and their faults."""
    yield Observation(
        quantity="debt.seconds", value=None if asked.wrong else sum(asked.seconds), unit="seconds", state=state,
        status=Status.FAILED if asked.wrong else Status.OK, text=asked.wrong,
        detail={"latency_seconds": [round(each, 7) for each in asked.seconds], **detail},
    )  # fmt: skip
    if asked.wrong:
        return
    for name in ("minor", "major"):
        value = None if asked.faults is None else int(getattr(asked.faults, name))
        yield Observation(
            quantity=f"debt.faults.{name}", value=value, unit="1", state=state,
            resolution=asked.faults_resolution if value is not None else 0,
            text="" if value is not None else "one of its processes has ended meanwhile",
        )  # fmt: skip


def resident_bytes(subject: Subject) -> int:
    """PSS, summed over all its host processes, a VMM included."""
    return read_processes(subject.instance.cgroup.processes()).pss


def _resident(value: int, state: str) -> Observation:
    return Observation(quantity="debt.resident", value=value, unit="bytes", state=state)


# Page faults


def own_faults(cgroup: ControlGroup) -> PageFaults:
    """What the processes in a group have counted for themselves, and for children that they waited for (proc(5),
    /proc/PID/stat). Of a child that nobody waits for, nothing is left when it has ended.
    """
    minor = major = 0
    for pid in cgroup.processes():
        try:
            words = procstat.fields(pid)
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        minor += int(words[7]) + int(words[8])
        major += int(words[9]) + int(words[10])
    return PageFaults(minor=minor, major=major)


def between(
    before: PageFaults, after: PageFaults, group_before: PageFaults | None, group_after: PageFaults | None
) -> tuple[PageFaults | None, int]:
    """Faults between two moments by two counts, each of which may miss some, and how many the better one may be off.

    The processes' own is exact unless some have ended. Then the group's is larger by more than the kernel holds back.
    """
    held_back = BATCH * (os.cpu_count() or 1)
    own = _less(after, before)
    whole = _less(group_after, group_before) if group_after and group_before else None
    if whole is not None and whole.minor + whole.major > own.minor + own.major + held_back:
        return whole, held_back
    return (None if min(own.minor, own.major) < 0 else own), 0


def _less(after: PageFaults, before: PageFaults) -> PageFaults:
    return PageFaults(minor=after.minor - before.minor, major=after.major - before.major)
