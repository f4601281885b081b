"""``--fail-if`` of ``lab compare`` and ``lab report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lab.analysis.questions.conditions import Condition
    from lab.experiment.plan import PlannedArm
    from lab.model import Scenario


FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="CONDITION",
        help="End with exit code 3 when it surely holds: 'boot.ratio(container, process) > 2'.",
    ),
]

CONDITION_HOLDS = 3
"""The exit code of a command of which a condition held; 1 is a failure, 2 a command that can't be meant."""


def read(texts: Sequence[str]) -> list[Condition]:
    """The conditions, before anything is measured in their name. Raises UsageError."""
    if not texts:
        return []
    from lab.analysis.questions.conditions import parse

    return [parse(text) for text in texts]


def require(
    conditions: Sequence[Condition], arms: Sequence[PlannedArm], metrics: Sequence[str], scenario: Scenario
) -> None:
    """Refuse conditions on what these arms and metrics will not tell, before they are run. Raises UsageError."""
    if conditions:
        from lab.analysis.questions.conditions import require as require_one
        from lab.analysis.questions.conditions import require_quantity

        for condition in conditions:
            require_one(condition, arms)
            require_quantity(
                condition, metrics, [figure.name for figure in scenario.work.figures] if scenario.work else None
            )


def require_of(conditions: Sequence[Condition], folder: Path) -> None:
    """Refuse conditions on what a run does not tell, before a report is written. Raises UsageError."""
    if conditions:
        from lab.analysis.loaded import load
        from lab.analysis.questions.conditions import judge

        loaded = load(folder)
        for condition in conditions:
            judge(condition, loaded)


def check(conditions: Sequence[Condition], folder: Path) -> bool:
    """Whether one of them holds of the run; says what became of each. Raises UsageError for what it lacks."""
    if not conditions:
        return False
    from lab.analysis.loaded import load
    from lab.analysis.questions.conditions import Outcome, judge

    loaded = load(folder)
    verdicts = [judge(condition, loaded, conditions=len(conditions)) for condition in conditions]
    for verdict in verdicts:
        print(f"lab: --fail-if {verdict}", file=sys.stderr)
    return any(verdict.outcome is Outcome.HOLDS for verdict in verdicts)
