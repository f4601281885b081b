"""What a scenario's own client or job says."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Sequence

from lab.host.command import tail
from lab.metrics.base import Metric, Observation, Subject
from lab.metrics.clients.jobs import Done
from lab.model import Figure, Take, Work
from lab.results.record import Status

CPU, SECONDS = "work.cpu", "work.seconds"
FEWEST_FOR_P95 = 20
"""Of fewer, nothing lies beyond the 95th percentile."""


class OwnWork(Metric):
    """The scenario's own load generator or job, once per instance, in its ``work`` table.

    ``work.seconds``: from the command's execve to its end on the host's clock; where it runs inside, the way in and
    out is included. ``work.cpu``: CPU seconds that the host spent on the instance meanwhile; a client beside is not
    part of it. ``work.NAME``: the number that the command printed, in the unit that the scenario declares, by the
    clock of the command: inside a guest that is the guest's. Where the scenario takes the median or p95 of several,
    each of them is in the sample's detail.

    A command that fails, or whose output does not match what the scenario expects, makes every one of these a
    failed sample. Left out: the boot.
    """

    name = "work"
    order = 50

    def loaded(self, subject: Subject) -> Iterator[Observation]:
        work, outcome = subject.scenario.work, subject.work()
        if work is None or outcome is None:
            return
        done, window = outcome
        wrong = complaint(work, done)
        status = Status.FAILED if wrong else Status.OK
        detail = {"exit_code": done.completed.exit_code}
        for quantity, value in ((SECONDS, done.seconds), (CPU, window.cpu_seconds)):
            yield Observation(
                quantity=quantity, value=value, unit="seconds", status=status, text=wrong, detail=detail
            )
        text = output(done)
        for figure in work.figures:
            yield observe(figure, text, wrong)


def complaint(work: Work, done: Done) -> str:
    """What is wrong with the command's end or output; "" when all is well."""
    if done.completed.exit_code != 0:
        return f"{work.argv[0]} ended with exit code {done.completed.exit_code}: {tail(done.completed.stderr)}"
    if work.expect and not re.search(work.expect, output(done), re.MULTILINE):
        return f"the output of {work.argv[0]} does not match {work.expect!r}"
    return ""


def output(done: Done) -> str:
    """Both streams: tools disagree about which one their figures belong on."""
    return (done.completed.stdout + b"\n" + done.completed.stderr).decode("utf-8", "replace")


def observe(figure: Figure, text: str, wrong: str) -> Observation:
    """What the figure takes of the numbers that match its pattern; of more than the last one, all are kept."""
    try:
        values = [float(found) * figure.scale for found in re.findall(figure.pattern, text, re.MULTILINE)]
    except ValueError:
        values = []
    if not values and not wrong:
        wrong = f"no number in the output matches {figure.pattern!r}"
    if figure.take is Take.P95 and 0 < len(values) < FEWEST_FOR_P95 and not wrong:
        wrong = f"{len(values)} numbers in the output match {figure.pattern!r}, too few for a p95 ({FEWEST_FOR_P95})"
    return Observation(
        quantity=f"work.{figure.name}",
        value=taken(figure.take, values),
        unit=figure.unit,
        status=Status.FAILED if wrong else Status.OK,
        text=wrong,
        detail={"values": values} if len(values) > 1 and figure.take is not Take.LAST else {},
    )


def taken(take: Take, values: Sequence[float]) -> float | None:
    """One number of several: the last, the median, or the least that 95 of 100 do not exceed; None of none.

    p95 is an order statistic, the smallest value with 95 % of all at or below it, and nothing between two values.
    """
    if not values:
        return None
    match take:
        case Take.LAST:
            return values[-1]
        case Take.MEDIAN:
            return statistics.median(values)
        case Take.P95:
            return sorted(values)[math.ceil(0.95 * len(values)) - 1]
