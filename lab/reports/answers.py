"""Isolation answers as a matrix: a row per probe, a cell per backend.

A cell has one of four classes, so that a colour and a symbol can stand for it:

closed   ✓  the boundary stops it, or the limit holds
own      ◐  it works, on something of the instance's own: its own kernel, its own clock
open     ✗  it reaches the host, or there is no limit
unknown  ?  the probe could not be asked, or its answer has no class
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lab.analysis.data import detail
from lab.analysis.findings import differs
from lab.results.record import Arm, Status

CLOSED = frozenset(
    {
        "no",
        "refused",
        "denied",
        "hidden",
        "closed",
        "stopped",
        "holds",
        "held",
        "effective",
        "enforced",
        "absent",
        "none",
    }
)
OWN = frozenset({"own", "own only", "guest", "contained", "private", "virtual"})
OPEN = frozenset(
    {"yes", "open", "allowed", "reached", "visible", "host", "host's", "shared", "no limit", "unlimited", "ignored"}
)
SHORTER = {"inconclusive": "unclear", "effective": "holds"}
"""Words that fit a cell."""

WORDS = {"closed": "stopped", "own": "its own only", "open": "reaches the host", "unknown": "not known"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One backend's answer to one probe. ``unexpected`` when it is not the one that was expected."""

    answer: str
    reach: str
    unexpected: bool
    expected: str = ""
    reason: str = ""
    mechanism: str = ""
    evidence: str = ""
    surprise: str = ""
    n: int = 0
    varied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One row: ``cells`` by arm label; an arm that was not asked is missing."""

    name: str
    group: str
    question: str
    cells: dict[str, Cell]


def matrix(answers: pd.DataFrame, of: Iterable[Arm]) -> tuple[Probe, ...]:
    """The probes that a table of answers has (`lab.analysis.loaded.Loaded.answers`), in the order they were asked,
    those of a group together. Repeated answers become one cell; when they differ between repetitions the cell says so
    and shows the last.
    """
    arms = {arm.label: arm for arm in of}
    probes: dict[str, Probe] = {}
    for row in answers.itertuples():
        label, name = str(row.arm), str(row.quantity).removeprefix("isolation.")
        if label not in arms:
            continue
        raw: dict[str, Any] = row.detail if isinstance(row.detail, dict) else {}
        probe = probes.setdefault(
            name,
            Probe(name=name, group=detail(raw, "group"), question=detail(raw, "question") or name, cells={}),
        )
        cell = _cell(arms[label], str(row.text), str(row.status), raw)
        probe.cells[label] = _merge(probe.cells.get(label), cell)
    groups = list(dict.fromkeys(probe.group for probe in probes.values()))
    return tuple(sorted(probes.values(), key=lambda probe: groups.index(probe.group)))


def _cell(arm: Arm, text: str, status: str, raw: dict[str, Any]) -> Cell:
    asked = status == Status.OK
    return Cell(
        answer=SHORTER.get(text, text) or status,
        reach=(detail(raw, "reach") or classify(text, arm.has_own_kernel)) if asked else "unknown",
        unexpected=asked and differs(raw, text),
        expected=detail(raw, "expected"),
        reason=detail(raw, "reason"),
        mechanism=detail(raw, "mechanism"),
        evidence=detail(raw, "evidence"),
        surprise=detail(raw, "surprise"),
        n=1,
    )


def _merge(before: Cell | None, cell: Cell) -> Cell:
    if before is None:
        return cell
    varied = before.varied or before.answer != cell.answer
    return replace(cell, n=before.n + 1, varied=varied, unexpected=before.unexpected or cell.unexpected)


def classify(answer: str, has_own_kernel: bool) -> str:
    """The class of an answer's word. What an own-kernel instance is allowed, it is allowed by its own kernel."""
    word = answer.strip().lower()
    if word in OWN:
        return "own"
    if word in CLOSED:
        return "closed"
    if word in OPEN:
        limit = word in ("no limit", "unlimited", "ignored")
        return "own" if has_own_kernel and not limit else "open"
    return "unknown"
