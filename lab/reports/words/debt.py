"""What copies owed right after their first correct answer, in a table and in words: of every arm, not of references
alone.
"""

from __future__ import annotations

import math

from lab.analysis.debt import FIRST, LATER, SECONDS
from lab.analysis.quantities import format_ratio, format_ratios, format_value
from lab.analysis.readiness import leading, until
from lab.reports.charts import sureness
from lab.reports.material import Material, Owed, stamp, stamped
from lab.reports.tables import Cell, Row, Table
from lab.reports.words.statements import Statement
from lab.results.record import Arm

CAPTION = "Right after the start: medians over copies, each compared with itself later"
INTRO = (
    "Right after its first answer each copy was asked for a hundred more, one after the other, each over a fresh "
    "connection, and for another hundred after the idle window. A copy that answers the later ones quicker had put "
    "off something that the time until its first answer does not hold. The moment when a VMM says that its machine "
    "runs comes before all of this."
)


def arms(material: Material) -> list[Arm]:
    """Those that were asked, successfully or not."""
    return [arm for arm in material.loaded.arms if material.attempts(SECONDS, arm.label, FIRST)]


def table(material: Material) -> Table:
    """A row per arm: when it went on and when it answered, its hundreds, faults, and what of it was in memory."""
    heads = (
        f"until {until(material.run)}", "first 100 answers", "later 100", "first ÷ later", "one answer",
        "minor faults", "major faults", "resident (PSS)",
    )  # fmt: skip
    rows = tuple(
        Row(header=arm.label, note=stamp(arm), arm=arm.label, cells=_cells(material, arm)) for arm in arms(material)
    )
    return Table(caption=CAPTION, corner="copies of", columns=tuple(Cell(text=head) for head in heads), rows=rows)


def _cells(material: Material, arm: Arm) -> tuple[Cell, ...]:
    went_on = material.went_on.get(arm.label)
    ready = _cell(material, leading(material.run), arm)
    if went_on is not None:
        ready = Cell(text=ready.text, note=f"went on after {format_value(went_on, 'seconds')}")
    latencies = [
        f"{words} {_text(material, f'debt.latency.{name}', arm)}"
        for name, words in (("first_ten", "first ten"), ("last_ten", "last ten"), ("later", "later"))
    ]
    return (
        ready,
        _cell(material, SECONDS, arm, FIRST),
        _cell(material, SECONDS, arm, LATER),
        _ratio(material.owed.get(arm.label)),
        Cell(text=_text(material, "debt.latency.1", arm), note=" · ".join(latencies)),
        *(
            Cell(text=_text(material, name, arm, FIRST), note=f"later {_text(material, name, arm, LATER)}")
            for name in ("debt.faults.minor", "debt.faults.major")
        ),
        Cell(
            text=_text(material, "debt.resident", arm, "ready"),
            note=f"after 100 {_text(material, 'debt.resident', arm, 'answered')} · "
            f"later {_text(material, 'debt.resident', arm, LATER)}",
        ),
    )


def _text(material: Material, quantity: str, arm: Arm, state: str = "") -> str:
    value = material.value(quantity, arm.label, state)
    return format_value(value.median, value.unit) if value else "–"


def _cell(material: Material, quantity: str, arm: Arm, state: str = "") -> Cell:
    tried = material.attempts(quantity, arm.label, state)
    if tried is None:
        return Cell(text="–")
    return Cell(text=format_value(tried.median, tried.unit), note=sureness(tried))


def _ratio(found: Owed | None) -> Cell:
    if found is None:
        return Cell(text="–")
    interval = format_ratios(found.low, found.high)
    return Cell(
        text=format_ratio(found.ratio), note=" · ".join(filter(None, (interval, found.judged.verdict.words))),
        verdict=found.judged.verdict.name.lower(),
    )  # fmt: skip


def statements(material: Material) -> list[Statement]:
    """For each arm, whether its first hundred answers differ from its later ones, and how sure that is."""
    return [_statement(material, arm, found) for arm in arms(material) if (found := material.owed.get(arm.label))]


def _statement(material: Material, arm: Arm, found: Owed) -> Statement:
    first, later = (_text(material, SECONDS, arm, state) for state in (FIRST, LATER))
    times = f"{format_ratio(found.ratio)} the later, " if found.judged.claim else ""
    went_on = material.went_on.get(arm.label)
    total = _text(material, leading(material.run), arm)
    before = (
        ""
        if went_on is None
        else f" It went on {format_value(went_on, 'seconds')} after the request, and what VMMs call restored is no "
        f"later; {until(material.run)}: after {total}."
    )
    interval = format_ratios(found.low, found.high)
    sure = [f"95 % interval {interval}" if interval else "", found.judged.why, found.judged.power]
    return Statement(
        sentence=f"{stamped(arm)}: the first hundred answers took {first}, a hundred of the same copies later "
        f"{later}: {times}{found.judged.words}.{before}",
        sure="; ".join(filter(None, sure)) + ".",
        claim=found.judged.claim,
    )


def growth(material: Material) -> list[Statement]:
    """By how much PSS has grown from the first correct answer until the end of the idle window."""
    told = [
        f"{stamped(arm)} {format_value(value.median, value.unit)}"
        for arm in arms(material)
        if (value := material.value("debt.growth", arm.label)) is not None and not math.isnan(value.median)
    ]
    seconds = material.run.settings.get("idle_seconds")
    if not told or seconds is None:
        return []
    return [
        Statement(
            sentence=f"From then until the end of {format_value(float(seconds), 'seconds')} without a request, which "
            f"followed the hundred, PSS changed by {', '.join(told)}.",
            sure="Medians over copies; nothing is claimed of them.",
            claim=False,
        )
    ]
