"""A race of what a run has recorded: each block a round, each start in it a lane, each phase a station."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lab.analysis.data import Observed, read
from lab.analysis.quantities import QUANTITIES, SEGMENTS
from lab.analysis.readiness import called, is_empty_segment, leading, phrase
from lab.classroom.race.model import Lane, Mark, Race, Round, Station
from lab.errors import ResultsError, UsageError
from lab.model import Milestone
from lab.reports import style
from lab.reports.material import stamp
from lab.results.record import Arm

PHASES = tuple(name.removeprefix("boot.") for name in SEGMENTS)
JOB = "job.seconds"
ORDER = (*PHASES, "job")
SHORT = {
    "isolated": "isolate", "kernel": "kernel", "init": "init", "executed": "exec", "restored": "restored",
    "addressed": "address", "listening": "port", "responded": "ready", "job": "done",
}  # fmt: skip
ANSWERS = (Milestone.ANSWER, Milestone.CORRECT_ANSWER)
SYMBOLS = {
    "o": "●", "s": "■", "p": "◧", "P": "✚", "X": "✖", "d": "◊", "8": "◉", "*": "★", "h": "◈", "^": "▲", "D": "◆",
    "v": "▼", "<": "◀", ">": "▶", "H": "⬢",
}  # fmt: skip
"""What stands for a backend's marker in figures where there are only letters."""


def recorded(folder: Path, lanes: Sequence[str] = (), rounds: int | None = None) -> Race:
    """The run in ``folder`` as a race of its reference arms, or of those called ``lanes``; of its first ``rounds``.

    Warm-ups, excluded blocks and the A/A twin do not run. Raises ResultsError for a run that timed no start,
    UsageError for an arm or for rounds that it lacks.
    """
    observed = read(folder, Observed)
    arms = _chosen(observed, lanes)
    frame = observed.frame
    shown = frame[
        ~frame["warmup"] & ~frame["excluded"] & frame["quantity"].isin([*SEGMENTS, JOB, leading(observed.run)])
    ]
    shown = shown[shown["arm"].isin([arm.label for arm in arms])]
    found = [
        Round(
            number=int(str(block)), lanes=tuple(_lane(arm, rows[rows["arm"] == arm.label], observed) for arm in arms)
        )
        for block, rows in shown.groupby("block", sort=True)
    ]
    if not any(lane.marks for each in found for lane in each.lanes):
        raise ResultsError(
            f"{observed.run.name} timed no start by its phases, so there is nothing to race",
            hint="lab compare web-app measures a run that can be raced; lab race --replay sample shows one",
        )
    if rounds is not None and rounds > len(found):
        raise UsageError(
            f"{observed.run.name} has {len(found)} blocks to race", hint=f"--rounds {len(found)}, or fewer"
        )
    found = found[:rounds]
    passed = {phase for each in found for lane in each.lanes for phase in lane.course}
    return Race(
        title=observed.run.title or observed.run.scenario,
        goal=phrase(observed.run),
        source=f"recorded: {observed.run.name}, {_day(observed.run.started)}",
        stations=tuple(_station(phase, observed) for phase in ORDER if phase in passed),
        rounds=tuple(found),
    )


def look(arm: Arm) -> dict[str, str]:
    """Colour and symbol of an arm, those of every figure."""
    return {"colour": style.ink(arm), "symbol": SYMBOLS.get(style.marker(arm), "●")}


def station(phase: str, label: str, *, answers: bool) -> Station:
    """A station by what its phase is called; ``answers`` says whether what is ready has answered."""
    fill, ink = style.PHASES[JOB if phase == "job" else f"boot.{phase}"]
    short = "answer" if phase == "responded" and answers else SHORT[phase]
    return Station(phase=phase, label=label, short=short, fill=fill, ink=ink)


def _station(phase: str, observed: Observed) -> Station:
    quantity = JOB if phase == "job" else f"boot.{phase}"
    known = called(quantity, observed.run) or QUANTITIES[quantity]
    return station(phase, known.label, answers=known.label in ANSWERS)


def _chosen(observed: Observed, lanes: Sequence[str]) -> tuple[Arm, ...]:
    known = {arm.label: arm for arm in observed.arms}
    for name in lanes:
        if name not in known:
            raise UsageError(f"{observed.run.name} has no arm {name}", hint=f"arms: {', '.join(known)}")
    return tuple(known[name] for name in known if name in lanes) if lanes else observed.references


def _lane(arm: Arm, rows: pd.DataFrame, observed: Observed) -> Lane:
    marks = tuple(_marks(rows, observed))
    whole = rows[rows["quantity"] == leading(observed.run)]
    failed = ""
    if whole.empty or whole["value"].isna().all():
        failed = str(whole["text"].iloc[0] or whole["status"].iloc[0]) if len(whole) else "not observed"
    return Lane(
        name=arm.label,
        title=arm.title,
        how=stamp(arm),
        course=tuple(mark.phase for mark in marks),
        marks=() if failed else marks,
        failed=failed,
        **look(arm),
    )


def _marks(rows: pd.DataFrame, observed: Observed) -> Iterable[Mark]:
    """Each phase at the sum of the segments until then, which is how a run records it."""
    seconds: dict[str, Any] = dict(zip(rows["quantity"], rows["value"], strict=True))
    at = 0.0
    for phase in ORDER:
        quantity = JOB if phase == "job" else f"boot.{phase}"
        value = float(seconds.get(quantity, float("nan")))
        if value == value and not is_empty_segment(quantity, observed.run):
            at += value
            yield Mark(phase=phase, at=at)


def _day(started: str) -> str:
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        return "at a time that is not known"
    return f"{moment.day} {moment:%B %Y}"
