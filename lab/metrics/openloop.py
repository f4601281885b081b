"""How it answers when requests come at a rate of their own, and at which rate it no longer keeps up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lab.errors import LabError
from lab.metrics.base import Metric, Observation, Subject
from lab.metrics.clients.paced import PERCENTILES, TIMER_SECONDS, Paced, pace
from lab.metrics.ready.answers import answers
from lab.model import HttpReadiness
from lab.results.record import Status

REFERENCE = 100.0  # requests a second: what every instance is asked for
LEAST, MOST = 10.0, 51_200.0
SECONDS = 2.0
REQUESTS = 300  # the fewest from which a p99 is told
BOUND_SECONDS, BOUND_TIMES = 0.1, 10.0
HALVINGS = 2
ALONE = 20  # answers, one after the other, that tell what one takes when nobody else asks


class OpenLoop(Metric):
    """Requests at fixed rates (`lab.metrics.clients.paced`), each latency from when its request was due, so that a
    stall counts for everybody who would have come meanwhile. Clock and unit: wrk's script, CLOCK_MONOTONIC, seconds.

    ``openloop.latency.p50``, ``p95``, ``p99``: at 100 requests a second, three seconds long.
    ``openloop.rate``: the highest rate, of those tried, at which p99 stayed within its bound: 100 ms, or ten times
    what an answer takes when nobody else asks, where that is more. Rates are doubled until p99 is beyond it, or are
    halved until it is not, two seconds each and 300 requests at the least; then the gap is halved twice, on a
    logarithmic scale, so that it is known to a fifth. Its detail has what was tried, and what ended it.

    A request that failed counts as one beyond the bound. Left out: the boot, and how many connections an application
    could have: requests beyond the client's sixteen wait for one of these, which is in their latency. The client
    waits in whole milliseconds; how late it was itself (p99) is in the detail, and where that is more than half of
    the bound, the client ended the search.
    """

    name = "openloop"
    order = 45
    on_request = True
    wants_answers = True

    def loaded(self, subject: Subject) -> Iterator[Observation]:
        load, port, readiness = subject.scenario.load, subject.scenario.port, subject.scenario.readiness
        path = load.path if load else readiness.path if isinstance(readiness, HttpReadiness) else ""
        if not path or port is None:
            yield _failed("openloop.rate", "requests/s", "it is asked over HTTP, and nobody said for what")
            return
        try:
            alone = statistics.median(answers(subject, ALONE))
            bound = max(BOUND_SECONDS, BOUND_TIMES * alone)
            address = subject.instance.address

            def at(rate: float) -> Paced:
                return pace(subject.network, address, port, path, rate=rate, seconds=max(SECONDS, REQUESTS / rate))

            found = climb(at, bound)
        except LabError as error:
            yield _failed("openloop.rate", "requests/s", error.message)
            return
        yield from told(found, alone)


@dataclass(slots=True)
class Climb:
    """What was tried, in its order; the highest ``rate`` that was kept up with, 0 for none; why it ended."""

    bound_seconds: float
    tried: list[Paced] = field(default_factory=list)
    rate: float = 0.0
    ended: str = ""

    def keeps_up(self, seen: Paced) -> bool:
        """Whether p99 is within the bound, and nothing failed."""
        return not seen.failed and seen.latency_seconds["p99"] <= self.bound_seconds

    @property
    def is_the_client(self) -> bool:
        """Whether it was the client that could not keep up with the last one tried."""
        return self.tried[-1].late_seconds > self.bound_seconds / 2


def climb(at: Callable[[float], Paced], bound_seconds: float) -> Climb:
    """Find the rate at which p99 breaks its bound, from `REFERENCE` on, as `OpenLoop` says."""
    found = Climb(bound_seconds)

    def keeps_up(rate: float) -> bool:
        found.tried.append(at(rate))
        return found.keeps_up(found.tried[-1])

    rate, broken = REFERENCE, 0.0
    if keeps_up(rate):
        found.rate = rate
        while not broken and rate < MOST:
            rate *= 2
            if keeps_up(rate):
                found.rate = rate
            else:
                broken = rate
    else:
        broken = rate
        while not found.rate and rate / 2 >= LEAST:
            rate /= 2
            if keeps_up(rate):
                found.rate = rate
            else:
                broken = rate
    if broken and found.is_the_client:
        found.ended = f"the client itself was late at {broken:.4g} requests/s"
        return found
    for _ in range(HALVINGS if broken and found.rate else 0):
        middle = math.sqrt(found.rate * broken)
        if keeps_up(middle):
            found.rate = middle
        else:
            broken = middle
    beyond = f"p99 was beyond {bound_seconds:.3g} s at {broken:.4g} requests/s"
    found.ended = beyond if broken else "no higher rate was tried"
    return found


def told(found: Climb, alone_seconds: float) -> Iterator[Observation]:
    """The observations of a climb."""
    reference = found.tried[0]
    status = Status.FAILED if reference.failed else Status.OK
    text = f"{reference.failed} of {reference.due} requests failed" if reference.failed else ""
    for name in PERCENTILES:
        yield Observation(
            quantity=f"openloop.latency.{name}", value=reference.latency_seconds[name], unit="seconds",
            status=status, text=text, resolution=TIMER_SECONDS,
            detail={"due": reference.due, "unanswered": reference.unanswered, "late_seconds": reference.late_seconds},
        )  # fmt: skip
    tried = [
        {"rate": seen.rate, "due": seen.due, "unanswered": seen.unanswered, "failed": seen.failed,
         "late_seconds": seen.late_seconds, **seen.latency_seconds}
        for seen in found.tried
    ]  # fmt: skip
    detail: dict[str, object] = {"bound_seconds": found.bound_seconds, "alone_seconds": alone_seconds}
    detail |= {"tried": tried, "ended": found.ended}
    if found.rate:
        yield Observation(quantity="openloop.rate", value=found.rate, unit="requests/s", detail=detail)
    else:
        yield _failed("openloop.rate", "requests/s", found.ended, detail)


def _failed(quantity: str, unit: str, text: str, detail: dict[str, object] | None = None) -> Observation:
    return Observation(quantity=quantity, value=None, unit=unit, status=Status.FAILED, text=text, detail=detail or {})
