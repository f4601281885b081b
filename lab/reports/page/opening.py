"""The first screen of a study's page, as that of a comparison: what weighs most, the verdict, a table, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.analysis.data import Observed
from lab.analysis.findings import Finding, Kind, Severity, emulated, few_blocks
from lab.reports.tables import Cell, Table
from lab.results.record import Ending

DONE = "done"
"""Why a study that is complete ended."""

MOST_SENTENCES = 4
"""More of them are no verdict; the page has them all below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """``verdict`` are sentences, the most important first; ``note`` explains the signs of ``table``."""

    warnings: tuple[Finding, ...]
    verdict: tuple[str, ...]
    table: Table
    note: str = ""

    def context(self, picture: str, figure: Mapping[str, Any]) -> dict[str, Any]:
        """What the template of the first screen needs; ``figure`` is drawn under the name ``picture``."""
        return {
            "warnings": self.warnings,
            "verdict": self.verdict[:MOST_SENTENCES],
            "headline": self.table,
            "headline_note": self.note,
            "first_figure": picture,
            "figures": {picture: figure},
            "growing": None,
        }

    def markdown(self) -> list[str]:
        """The same in lines, without the picture."""
        return [
            *quoted(self.warnings),
            *(f"- {sentence}" for sentence in self.verdict),
            "",
            *lines(self.table),
            "",
            self.note,
        ]


def quoted(warnings: Sequence[Finding]) -> list[str]:
    """Warnings in Markdown, a paragraph each."""
    return [
        line
        for each in warnings
        for line in (f"> **{each.severity}, {each.kind}:** {each.sentence} {each.advice}", "")
    ]


def warnings_of(loaded: Observed, *, by_blocks: bool) -> tuple[Finding, ...]:
    """What must be known of a run that is no comparison, the gravest first; ``by_blocks`` says whether it repeats."""
    found = [*emulated(loaded), *_interrupted(loaded), *(few_blocks(loaded) if by_blocks else ())]
    return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))


def _interrupted(loaded: Observed) -> Iterator[Finding]:
    because = loaded.run.ended_because
    if because in (*Ending, DONE):
        return
    yield Finding(
        kind=Kind.INTERRUPTED,
        severity=Severity.WARNING,
        sentence=f"The run is not complete: it ended with “{because}”." if because else "The run has not ended.",
        advice="What was measured until then is here. For the rest start it anew.",
    )


def lines(table: Table) -> list[str]:
    """A Markdown table, a line each."""
    head = [table.corner, *(_line(column) for column in table.columns)]
    rows = [[_line(Cell(text=f"**{row.header}**", note=row.note)), *map(_line, row.cells)] for row in table.rows]
    found: Sequence[Sequence[str]] = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in found]


def _line(cell: Cell) -> str:
    return "<br>".join(filter(None, (cell.text, cell.note)))
