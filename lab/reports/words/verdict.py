"""What changed between two runs, in a few lines of Markdown, for a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lab.analysis.inference.judge import WITHIN, Verdict
from lab.analysis.quantities import format_ratio, format_ratios, format_value, is_key, label, preferred
from lab.analysis.questions.difference import Difference
from lab.reports.compatibility import escaped

MOST = 4
"""So many of a kind are named; the others are counted."""


class Change(StrEnum):
    """What a reader of a pull request wants to know first."""

    WORSE = "worse"
    BETTER = "better"
    OTHER = "different"  # and nobody says which is better
    SAME = "the same"
    OPEN = "not proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One quantity of one arm, both runs': ``row`` is that of `Difference.table`."""

    change: Change
    row: dict[Any, Any]

    @property
    def name(self) -> str:
        state = f", {self.row['state'].replace('-', ' ')}" if self.row["state"] else ""
        return f"{self.row['arm']}: {label(str(self.row['quantity']))}{state}"

    @property
    def told(self) -> str:
        """With both medians and the ratio of the geometric means, with its interval."""
        before, after = (format_value(self.row[each], self.row["unit"]) for each in ("before", "after"))
        return (
            f"{self.name} {before} → {after}, {format_ratio(self.row['ratio'])} "
            f"({format_ratios(self.row['low'], self.row['high'])})"
        )


def changes(found: Difference, *, everything: bool = False) -> list[Changed]:
    """Each quantity that is judged, or every one, and what became of it. Where less or more is better, `preferred`
    says; a ratio above 1 is more.
    """
    rows = found.table.to_dict("records")
    return [Changed(change=_change(row), row=row) for row in rows if everything or is_key(str(row["quantity"]))]


def _change(row: dict[Any, Any]) -> Change:
    if row["claim"]:
        direction = preferred(str(row["unit"]))
        if direction == 0:
            return Change.OTHER
        return Change.BETTER if (row["ratio"] > 1) == (direction > 0) else Change.WORSE
    return Change.SAME if Verdict(row["verdict"]) is Verdict.SAME else Change.OPEN


def markdown(found: Difference, *, everything: bool = False) -> str:
    """At most about ten lines: what changed, what did not, how sure that is, and what these runs can't tell."""
    told = changes(found, everything=everything)
    return "\n".join(_lines(found, told)) + "\n"


def _lines(found: Difference, told: list[Changed]) -> Iterator[str]:
    by = {change: [each for each in told if each.change is change] for change in Change}
    worse, better = len(by[Change.WORSE]), len(by[Change.BETTER])
    counted = [f"{worse} worse"] if worse else []
    counted += [f"{better} better"] if better else []
    counted += [f"{len(by[Change.OTHER])} different"] if by[Change.OTHER] else []
    sentence = f"{', '.join(counted)} of {len(told)}" if counted else f"of {len(told)} none is proven to have changed"
    blocks = f"{found.before.blocks} and {found.after.blocks} blocks"
    names = f"{escaped(found.before.run.name)} → {escaped(found.after.run.name)}"
    yield f"**{escaped(found.after.run.scenario)}: {sentence}** ({names}, {blocks})"
    yield ""
    for change in (Change.WORSE, Change.BETTER, Change.OTHER):
        for each in by[change][:MOST]:
            yield f"- **{change}**: {escaped(each.told)}"
        if (more := len(by[change]) - MOST) > 0:
            yield f"- **{change}**: {more} more"
    if by[Change.SAME]:
        yield f"- the same within {WITHIN}, proven: {_named(by[Change.SAME])}"
    if by[Change.OPEN]:
        yield f"- not proven either way, which is no proof of no change: {_named(by[Change.OPEN])}"
    if found.unlike:
        yield f"- not only the change under test differs: {' '.join(map(escaped, found.unlike))}"
    if found.caution:
        yield f"- {escaped(found.caution)}"


def _named(some: list[Changed]) -> str:
    names = "; ".join(escaped(each.name) for each in some[:MOST])
    more = len(some) - MOST
    return f"{names}; and {more} more" if more > 0 else names
