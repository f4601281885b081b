"""What a scenario's own client or job says."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.host.command import tail
from lab.metrics.base import Metric, Observation, Subject
from lab.metrics.jobs import Done
from lab.model import Figure, Work
from lab.results.record import Status

CPU, SECONDS = "work.cpu", "work.seconds"


class OwnWork(Metric):
    """The scenario's own load generator or job, once per instance, in its ``work`` table.

    ``work.seconds``: from the command's execve to its end on the host's clock; where it runs inside, the way in and
    out is included. ``work.cpu``: CPU seconds that the host spent on the instance meanwhile; a client beside is not
    part of it. ``work.NAME``: the number that the command printed, in the unit that the scenario declares, by the
    clock of the command: inside a guest that is the guest's.

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
    """The last match of the figure's pattern: what a tool prints on its way comes before its result."""
    found = re.findall(figure.pattern, text, re.MULTILINE)
    try:
        value = float(found[-1]) * figure.scale if found else None
    except ValueError:
        value = None
    if value is None and not wrong:
        wrong = f"no number in the output matches {figure.pattern!r}"
    return Observation(
        quantity=f"work.{figure.name}",
        value=value,
        unit=figure.unit,
        status=Status.FAILED if wrong else Status.OK,
        text=wrong,
    )
