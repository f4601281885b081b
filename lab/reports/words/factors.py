"""What a report says of factors: which of them matters to what, how sure that is, and which interact."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.analysis.factors.effects import BACKEND, EVERY
from lab.analysis.inference.judge import Verdict
from lab.analysis.quantities import KEY, format_ratio, format_ratios
from lab.reports.material import Material, stamp, stamped
from lab.reports.tables import Cell, Row, Table
from lab.reports.words.statements import Statement

SHOWN = (
    ("boot.total", ""), ("memory.pss", "idle"), ("cpu.per_1000_requests", ""), ("load.requests_per_second", ""),
    ("work.seconds", ""),
)  # fmt: skip
"""What is said in words and drawn, as far as it was measured; the table and the data have every judged quantity."""

NOT_TO_CONCLUDE = (
    "That a level is the best there is. Only the levels named were tried: nothing is known between and beyond them.",
    "What a factor does at levels of the others that were not run. A main effect is an average over those that were; "
    "where factors interact, it may be true of none of them.",
    "That factors don't interact where no interaction is claimed. It takes more blocks to see one than to see a main "
    "effect of the same size.",
)
NO_INTERVAL = "Too few blocks for any interval: nothing can be told yet."
Effect = Mapping[str, Any]


def not_to_conclude(material: Material) -> tuple[str, ...]:
    """What a hurried reader might take home of the factors, and must not."""
    return NOT_TO_CONCLUDE if material.levels else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The report's section on factors; ``varied`` are pairs of a factor and what was varied of it."""

    intro: str
    varied: list[tuple[str, str]]
    statements: list[Statement]
    effects: Table
    interactions: Table
    sure: str


def section(material: Material) -> Section | None:
    """None for a run without factors."""
    declared = material.run.settings.get("factors", [])
    if not declared:
        return None
    arms = len(material.loaded.arms)
    return Section(
        intro=f"Besides the boundary something else was varied: {arms} arms in each block, every level of a factor "
        "with every level of the others. An effect is a ratio to the factor's first level, averaged over all "
        "combinations of the others; 1 is no effect. All other pictures and tables show each backend at the first "
        f"levels: {material.levels}.{_left_out(material)}",
        varied=[(raw["name"], _varied(material, raw)) for raw in declared],
        statements=statements(material),
        effects=effects(material),
        interactions=interactions(material),
        sure=_sure(material),
    )


def _left_out(material: Material) -> str:
    """How many combinations were not run because they can't be."""
    declared = [raw["of"] for raw in material.run.settings["factors"]]
    missing = 0
    for arm in material.arms:
        ran = sum(other.backend == arm.backend for other in material.loaded.arms)
        missing += math.prod(len(of[arm.backend]) for of in declared if arm.backend in of) - ran
    return f" Left out is what can't be started: {missing} combinations of levels." if missing else ""


def statements(material: Material) -> list[Statement]:
    """For each factor and each of its further levels a sentence, then what is to say of interactions."""
    mains = [
        row for row in records(material) if not row["other"] and (row["quantity"], row["state"]) in shown(material)
    ]
    found: list[Statement | None] = []
    for factor, level in dict.fromkeys((row["factor"], row["level"]) for row in mains):
        rows = [row for row in mains if (row["factor"], row["level"]) == (factor, level)]
        found.append(_together(material, rows) if level == EVERY else _statement(material, rows))
    return [*(each for each in found if each), *_interacting(material)]


def shown(material: Material) -> list[tuple[str, str]]:
    """The headline quantities that have an effect to speak of, the scenario's own first figure among them."""
    own = [(name, "") for name in list(material.figures)[:1]]
    there = {(row["quantity"], row["state"]) for row in records(material)}
    return [each for each in (*SHOWN, *own) if each in there]


def records(material: Material) -> list[Effect]:
    """Every effect, overall tests among them."""
    return [{str(key): value for key, value in row.items()} for row in material.effects.to_dict("records")]


def _varied(material: Material, raw: Effect) -> str:
    name, levels = raw["name"], raw["levels"]
    untouched = [arm.backend for arm in material.arms if name not in arm.factors]
    asides = [f"{', '.join(untouched)}: not touched by it"] if untouched else []
    for arm in material.arms:
        seen = {other.factors.get(name) for other in material.loaded.arms if other.backend == arm.backend}
        if arm.backend not in untouched and len(seen) < len(levels):
            asides.append(f"{arm.backend}: {', '.join(level for level in levels if level in seen)} alone")
    return ", ".join(levels) + (f" ({'; '.join(asides)})" if asides else "") + f": {raw['tells']}"


def _statement(material: Material, rows: Sequence[Effect]) -> Statement:
    """What one level of one factor does, against its first, to every headline quantity of every backend."""
    claimed = [f"{_on(material, row)} {format_ratio(row['ratio'])}" for row in rows if row["claim"]]
    others: dict[Verdict, dict[str, list[str]]] = {Verdict.SAME: {}, Verdict.OPEN: {}}
    for row in (row for row in rows if not row["claim"]):
        name = subject(material, row["quantity"], row["state"])
        others[Verdict(row["verdict"])].setdefault(name, []).append(row["backend"])
    parts = [", ".join(claimed)] if claimed else []
    for verdict, found in others.items():
        if found:
            on = ", ".join(f"{name} of {' and '.join(backends)}" for name, backends in found.items())
            parts.append(f"{verdict.words}: {on}")
    known = [f"{_on(material, row)} {between(row)}" for row in rows if math.isfinite(row["low"])]
    first = rows[0]
    return Statement(
        sentence=f"{first['factor']} {first['level']} instead of {first['against']}: {'; '.join(parts)}.",
        sure=f"95 % intervals: {', '.join(known)}." if known else NO_INTERVAL,
        claim=bool(claimed),
    )


def _together(material: Material, rows: Sequence[Effect]) -> Statement | None:
    """Where the levels of a factor differ though of none it can be said against the first; None where nowhere."""
    factor = rows[0]["factor"]
    alone = {
        tuple(row[key] for key in ("backend", "quantity", "state"))
        for row in records(material)
        if row["claim"] and row["factor"] == factor and not row["other"] and row["level"] != EVERY
    }
    left = [row for row in rows if tuple(row[key] for key in ("backend", "quantity", "state")) not in alone]
    left = [row for row in left if row["claim"]]
    if not left:
        return None
    chances = [f"{_on(material, row)} {chance(row)}, {apart(row)}" for row in left]
    levels = next(raw["levels"] for raw in material.run.settings["factors"] if raw["name"] == factor)
    return Statement(
        sentence=f"{factor}, all levels together ({', '.join(levels)}): they surely differ in "
        f"{', '.join(_on(material, row) for row in left)}.",
        sure=f"Overall tests: {'; '.join(chances)}.",
        claim=True,
    )


def apart(row: Effect) -> str:
    """How far any two levels of an overall test lie from each other."""
    return "" if math.isnan(row["ratio"]) else f"up to {format_ratio(row['ratio'])} between two"


def chance(row: Effect) -> str:
    """The p-value of an overall test, uncorrected."""
    if math.isnan(row["p"]):
        return "no p-value"
    return "p < 0.001" if row["p"] < 0.001 else f"p = {row['p']:.2g}"


def _on(material: Material, row: Effect) -> str:
    arm = next(arm for arm in material.arms if arm.backend == row["backend"])
    return f"{subject(material, row['quantity'], row['state'])} of {stamped(arm)}"


def subject(material: Material, quantity: str, state: str) -> str:
    """A quantity in words, with its state."""
    return material.label(quantity) + (f" ({state.replace('-', ' ')})" if state else "")


def between(row: Effect) -> str:
    """The interval of an effect; of an overall test its p-value."""
    if row["level"] == EVERY:
        return chance(row)
    if math.isnan(row["low"]):
        return "no interval"
    return format_ratios(row["low"], row["high"])


def _interacting(material: Material) -> Iterator[Statement]:
    rows = [row for row in records(material) if row["other"]]
    if not rows:
        return
    sure = [row for row in rows if row["claim"]]
    alone = [row for row in sure if row["level"] != EVERY]
    for row in (row for row in sure if row["level"] == EVERY):
        if not any(_effect_of(row) == _effect_of(each) for each in alone):
            yield Statement(
                sentence=f"{_both(row)}, {subject(material, row['quantity'], row['state'])}: all levels together, "
                "but which of them can't be told.",
                sure=f"Overall test: {chance(row)}, {apart(row)}.",
                claim=True,
            )
    for row in alone:
        there, here = (f"{format_ratio(value)} {where}" for value, where in _apart(material, row))
        yield Statement(
            sentence=f"{_both(row)}, {subject(material, row['quantity'], row['state'])}: {row['level']} instead of "
            f"{row['against']} is {there}, {here}.",
            sure=f"The second is {format_ratio(row['ratio'])} the first, 95 % interval {between(row)}: what one does "
            "can't be told without saying where the other is.",
            claim=True,
        )
    rest = len(rows) - len(sure)
    if rest:
        other = "other " if sure else ""
        seen = any(math.isfinite(row["p"]) for row in rows)
        yield Statement(
            sentence=f"No {other}interaction can be claimed, of {rest} that were looked at.",
            sure="As far as could be seen, effects there multiply, and each may be read by itself."
            if seen
            else NO_INTERVAL,
            claim=False,
        )


def _effect_of(row: Effect) -> tuple[str, ...]:
    """The interaction that a row is of, whatever its levels."""
    backend = row["other_against"] if row["other"] == BACKEND else ""
    return (*(row[key] for key in ("backend", "quantity", "state", "factor", "other")), backend)


def _both(row: Effect) -> str:
    if row["other"] == BACKEND:
        return f"{row['factor']} does not do the same to {row['other_level']} and {row['other_against']}"
    return f"{row['factor']} and {row['other']} interact on {row['backend']}"


def _apart(material: Material, row: Effect) -> list[tuple[float, str]]:
    """A factor's effect where the other is at its first level, and where it is at the level that the row is of."""
    wheres = (row["other_against"], row["other_level"])
    if row["other"] == BACKEND:
        mains = {
            each["backend"]: each["ratio"]
            for each in records(material)
            if not each["other"] and all(each[key] == row[key] for key in ("quantity", "state", "factor", "level"))
        }
        return [(mains[where], f"for {where}") for where in wheres]
    keys = ("backend", "quantity", "state")
    cube = next(cube for cube in material.cubes if all(getattr(cube, key) == row[key] for key in keys))
    names = [name for name, _ in cube.factors]
    one, two = names.index(row["factor"]), names.index(row["other"])
    table = cube.means(one, two)
    above = cube.factors[one][1].index(row["level"])
    columns = [cube.factors[two][1].index(where) for where in wheres]
    ratios = table[above] / table[0]
    return [(float(ratios[at]), f"with {row['other']}={where}") for at, where in zip(columns, wheres, strict=True)]


def effects(material: Material) -> Table:
    """Every main effect: a row per quantity and level, a column per backend."""
    mains = [row for row in records(material) if not row["other"]]
    arms = [arm for arm in material.arms if any(row["backend"] == arm.backend for row in mains)]
    rows = []
    for quantity, state in _in_order(mains):
        for factor, level in dict.fromkeys((row["factor"], row["level"]) for row in mains):
            found = {
                row["backend"]: row
                for row in mains
                if (row["quantity"], row["state"], row["factor"], row["level"]) == (quantity, state, factor, level)
            }
            if found:
                against = next(iter(found.values()))["against"]
                of = [found.get(arm.backend) for arm in arms]
                cells = tuple(_cell(row, interacting_with(material, row)) for row in of)
                header = f"{factor}: all levels" if level == EVERY else f"{factor}: {level} ÷ {against}"
                rows.append(Row(header=header, note=subject(material, quantity, state), cells=cells))
    return Table(
        caption="Main effects: each level against the factor's first", corner="factor, and what it acts on",
        columns=tuple(Cell(text=arm.backend, note=stamp(arm)) for arm in arms), rows=tuple(rows),
    )  # fmt: skip


def interactions(material: Material) -> Table:
    """The interactions that are claimed; the others are in the figure's data."""
    found = [row for row in records(material) if row["other"] and row["claim"]]
    rows = tuple(
        Row(
            header=_pair(row),
            note=f"{subject(material, row['quantity'], row['state'])}, {row['backend']}",
            cells=(_cell(row),),
        )
        for row in found
    )
    return Table(
        caption="Interactions: the effect at the other's level ÷ its effect at the other's first",
        corner="factors, and what they act on", columns=(Cell(text="ratio of ratios"),), rows=rows,
    )  # fmt: skip


def _pair(row: Effect) -> str:
    """The two levels that an interaction is of, or the two factors when it is of all their levels."""
    other = row["other"] + ("" if row["other_level"] == EVERY else f"={row['other_level']}")
    return (
        f"{row['factor']} × {other}, all levels"
        if row["level"] == EVERY
        else (f"{row['factor']}={row['level']} × {other}")
    )


def _in_order(rows: Sequence[Effect]) -> list[tuple[str, str]]:
    pairs = dict.fromkeys((row["quantity"], row["state"]) for row in rows)
    return sorted(pairs, key=lambda pair: KEY.index(pair[0]) if pair[0] in KEY else len(KEY))


def _cell(row: Effect | None, interacting: Sequence[str] = ()) -> Cell:
    if row is None:
        return Cell(text="–")
    of_all = row["level"] == EVERY
    claimed = "they differ" if of_all else "an effect"
    verdict = claimed if row["claim"] else told(row)
    partly = f"of {row['cells']} of {row['of_cells']} combinations" if row["cells"] < row["of_cells"] else ""
    depends = f"depends on {', '.join(interacting)}" if interacting else ""
    parts = (between(row), partly, verdict, depends)
    ratio = format_ratio(row["ratio"])
    return Cell(
        text=f"up to {ratio}" if of_all and not math.isnan(row["ratio"]) else ratio,
        note=" · ".join(each for each in parts if each),
    )


def told(row: Effect) -> str:
    """What the judge says of an effect that is not claimed."""
    verdict = Verdict(row["verdict"])
    return verdict.words + (f": {row['why']}" if verdict is Verdict.OPEN and row["why"] else "")


def interacting_with(material: Material, row: Effect | None) -> list[str]:
    """The other factors that surely change the effect of this one."""
    if row is None:
        return []
    level = row["level"]
    found: dict[str, None] = {}
    for each in records(material):
        if each["claim"] and all(each[key] == row[key] for key in ("backend", "quantity", "state")):
            here, there = level in (EVERY, each["level"]), level in (EVERY, each["other_level"])
            if row["factor"] == each["factor"] and here and each["other"] not in ("", BACKEND):
                found[each["other"]] = None
            if row["factor"] == each["other"] and there:
                found[each["factor"]] = None
    return list(found)


def _sure(material: Material) -> str:
    table = material.effects
    return (
        f"{len(table)} effects are judged{_of_all(material)}, apart from the comparisons of backends. Main effects "
        "on headline quantities are one family: did no factor do anything, a report would claim any of them with a "
        "probability of 5 % at most (Holm). All others, interactions among them, are exploratory: of what is claimed "
        "there, 5 % may be false (Benjamini and Hochberg). Within a block every combination met the same host; the "
        f"intervals come from {material.loaded.blocks} blocks."
    )


def _of_all(material: Material) -> str:
    count = int((material.effects["level"] == EVERY).sum())
    return f", {count} of them tests of three or more levels together" if count else ""
