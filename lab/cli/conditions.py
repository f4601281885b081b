"""``--fail-if`` of ``lab compare`` and ``lab report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.analysis.conditions import Condition
    from lab.experiment.plan import PlannedArm


def read(texts: Sequence[str]) -> list[Condition]:
    """The conditions, before anything is measured in their name. Raises UsageError."""
    if not texts:
        return []
    from lab.analysis.conditions import parse

    return [parse(text) for text in texts]


def require(conditions: Sequence[Condition], arms: Sequence[PlannedArm]) -> None:
    """Refuse conditions on what these arms will not tell, before they are run. Raises UsageError."""
    if conditions:
        from lab.analysis.conditions import require as require_one

        for condition in conditions:
            require_one(condition, arms)


def check(conditions: Sequence[Condition], folder: Path) -> bool:
    """Whether one of them holds of the run; says what became of each. Raises UsageError for what it lacks."""
    if not conditions:
        return False
    from lab.analysis.conditions import Outcome, judge
    from lab.analysis.data import load

    verdicts = [judge(condition, load(folder)) for condition in conditions]
    for verdict in verdicts:
        print(f"lab: --fail-if {verdict}", file=sys.stderr)
    return any(verdict.outcome is Outcome.HOLDS for verdict in verdicts)
