"""The matrix of scenarios and backends, on a terminal and as a page in Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import count
from textwrap import wrap

from lab.analysis.quantities import format_value
from lab.host.installed import BOOTSTRAP
from lab.host.units import format_bytes
from lab.results.compatibility import Cell, Matrix, Outcome

NOT_TO_CONCLUDE = (
    "That what works here works on every host: on another kernel, or with KVM, it may differ.",
    "That what works is secure, or quick. One start says little about time; `lab compare` repeats it.",
    "That what fails can't be made to work: the reason is what this version of lab saw.",
)


def reasons(matrix: Matrix) -> Mapping[str, int]:
    """Each reason once, numbered in the order of the table."""
    numbers = count(1)
    found: dict[str, int] = {}
    for cell in matrix.cells:
        for reason in told(cell):
            if reason not in found:
                found[reason] = next(numbers)
    return found


def told(cell: Cell) -> tuple[str, ...]:
    """Its reasons, with the step at which it failed."""
    if cell.failed_at is None:
        return cell.reasons
    return tuple(f"at the step “{cell.failed_at}”: {reason}" for reason in cell.reasons)


def table(matrix: Matrix) -> list[list[str]]:
    """The head, then a row per scenario: outcomes with the numbers of their `reasons`, a dash where none is known."""
    numbers = reasons(matrix)

    def text(cell: Cell | None) -> str:
        if cell is None:
            return "–"
        marks = ", ".join(str(numbers[reason]) for reason in told(cell))
        return f"{cell.outcome} {marks}" if marks else str(cell.outcome)

    rows = [
        [scenario, *(text(matrix.cell(scenario, backend)) for backend in matrix.backends)]
        for scenario in matrix.scenarios
    ]
    return [["scenario", *matrix.backends], *rows]


def legend(matrix: Matrix) -> list[str]:
    """What the numbers in the table mean, a line each."""
    return [f"{number}  {reason}" for reason, number in reasons(matrix).items()]


def summary(matrix: Matrix) -> str:
    """``of 26 combinations 20 work, 4 with a reservation, 2 fail``."""
    counts = {outcome: sum(cell.outcome is outcome for cell in matrix.cells) for outcome in Outcome}
    works, but = counts[Outcome.WORKS], counts[Outcome.BUT]
    return (
        f"of {len(matrix.cells)} combinations {works + but} work, {but} of them with a reservation; "
        f"{counts[Outcome.FAILS]} fail"
    )


def host(matrix: Matrix) -> str:
    """The host in a line, without its name."""
    of = matrix.host
    parts = [
        of.get("distribution") or "an unknown system",
        f"Linux {of.get('kernel_release')} ({of.get('architecture')})",
        f"{of.get('cpu', {}).get('online')} processors ({of.get('cpu', {}).get('model')})",
        f"{format_bytes(of.get('memory', {}).get('total_bytes', 0))} of memory",
        str(of.get("platform", {}).get("title", "")),
    ]  # fmt: skip
    return ", ".join(part for part in parts if part)


def markdown(matrix: Matrix) -> str:
    """The page: table, reasons, what was looked at, how long each was not ready, where it was made."""
    times = [
        [scenario, *(_seconds(matrix.cell(scenario, backend)) for backend in matrix.backends)]
        for scenario in matrix.scenarios
    ]
    numbered = [f"{number}. {escaped(reason)}" for reason, number in reasons(matrix).items()]
    checks = [
        ["scenario", "what was looked at"],
        *([name, matrix.checks.get(name, "–")] for name in matrix.scenarios),
    ]
    return "\n".join(
        [
            "# What works behind which boundary",
            "",
            "Each cell was made by running it: one copy was started, asked until it was ready, checked, and stopped. "
            "Written by",
            "",
            f"    sudo {BOOTSTRAP}{shlex.join(matrix.command_line)}",
            "",
            *wrap(
                f"on {matrix.started[:10]}, with lab {matrix.versions.get('lab', '')}, on this host: {host(matrix)}.",
                118,
            ),
            "",
            *_grid(table(matrix)),
            "",
            f"In short: {summary(matrix)}.",
            "",
            "## The reasons",
            "",
            *(numbered or ["There are none: everything works."]),
            "",
            "## What was looked at",
            "",
            *_grid(checks),
            "",
            "## Until it was ready",
            "",
            "The time of one start each, on a host that may have done much besides: no interval, no claim.",
            "",
            *_grid([["scenario", *matrix.backends], *times]),
            "",
            "## What you may not conclude",
            "",
            *(f"- {each}" for each in NOT_TO_CONCLUDE),
            "",
        ]
    )


def _seconds(cell: Cell | None) -> str:
    return "–" if cell is None or cell.ready_seconds is None else format_value(cell.ready_seconds, "seconds")


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(map(escaped, row))} |" for row in rows]
    return [head, f"|{' --- |' * len(rows[0])}", *body]


def escaped(text: str) -> str:
    """As Markdown shows it letter by letter, in one line."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
