"""The picture as rows: for a terminal, for a spreadsheet, for the page."""

from __future__ import annotations

from collections.abc import Sequence

from lab.analysis.quantities import format_ratio, format_ratios, label
from lab.classroom.collect.agreement import GROUNDS, Collected, Line
from lab.reports.tables import Cell, Row, Table

HEAD = (
    "handed_in_by", "run", "host", "host_is", "cpu", "kernel", "system", "cgroups", "quantity", "state", "arm",
    "executed", "baseline", "blocks", "ratio", "low", "high", "verdict",
)  # fmt: skip
AGREES = {True: "agree", False: "disagree", None: "open"}
NOT_TO_CONCLUDE = (
    "A ratio is that of one computer. Which of two computers is faster is not in this picture: no second of one is "
    "held against a second of another.",
    "That all prove “more” does not say that it is the same “more”: for that one ratio must fit all intervals.",
    "What some prove and others do not is no contradiction: a run of few blocks proves little.",
    "What a virtual or an emulated host measures says nothing about hardware, and an emulated machine nothing about "
    "one under KVM; so they stand apart.",
)


def as_rows(found: Collected) -> list[tuple[str, ...]]:
    """A head, then a row per run and ratio."""
    rows: list[tuple[str, ...]] = [HEAD]
    for line in found.lines:
        told, facts = line.told, line.told["facts"]
        for row in told["ratios"]:
            ends = ("" if row[end] is None else f"{row[end]:.6g}" for end in ("low", "high"))
            rows.append((
                line.who, told["run"], told["host"], line.ground, facts["CPU"], facts["kernel"], facts["system"],
                facts["cgroups"], row["quantity"], row["state"], row["arm"], row["kind"], told["baseline"],
                str(row["n"]), f"{row['ratio']:.6g}", *ends, row["verdict"],
            ))  # fmt: skip
    return rows


def quantities(found: Collected) -> dict[tuple[str, str], str]:
    """What is compared, quantity and state, each with its name for people."""
    named: dict[tuple[str, str], str] = {}
    for line in found.lines:
        for row in line.told["ratios"]:
            named.setdefault((row["quantity"], row["state"]), row["label"] or label(row["quantity"]))
    return named


def columns(found: Collected) -> list[tuple[str, str, str]]:
    """Quantity, state and arm of every ratio, the arms from the thinnest boundary on."""
    known = {
        (list(quantities(found)).index((row["quantity"], row["state"])), row["order"], row["arm"], row["state"]): row
        for line in found.lines
        for row in line.told["ratios"]
    }
    return list(
        dict.fromkeys(
            (row["quantity"], row["state"], row["arm"]) for _, row in sorted(known.items(), key=lambda each: each[0])
        )
    )


def of_quantity(found: Collected, quantity: str, state: str) -> list[tuple[str, ...]]:
    """A head, then a line per run: the ratio of each arm with its interval."""
    arms = [arm for name, of, arm in columns(found) if (name, of) == (quantity, state)]
    return [
        ("HANDED IN BY", "HOST", *arms),
        *((line.who, line.ground, *_cells(line, quantity, state, arms)) for line in found.lines),
    ]


def _cells(line: Line, quantity: str, state: str, arms: Sequence[str]) -> list[str]:
    by_arm = {row["arm"]: row for row in line.told["ratios"] if (row["quantity"], row["state"]) == (quantity, state)}
    return [_ratio(by_arm[arm]) if arm in by_arm else "–" for arm in arms]


def _ratio(row: dict[str, object]) -> str:
    ratio, low, high = (float(str(row[key])) if row[key] is not None else None for key in ("ratio", "low", "high"))
    assert ratio is not None
    sure = "" if low is None or high is None else f" ({format_ratios(low, high)})"
    marked = {"different": "", "the same": " =", "not proven": " ?"}[str(row["verdict"])]
    kind = "" if row["kind"] == "native" else f", {row['kind']}"
    return f"{format_ratio(ratio)}{sure}{marked}{kind}"


def hosts(found: Collected) -> list[tuple[str, ...]]:
    """A head, then a line per run: what its host is, and what is special about it."""
    rows: list[tuple[str, ...]] = [
        ("HANDED IN BY", "BLOCKS", "HOST", "CPU", "KERNEL", "CGROUPS", "MACHINES", "SPECIAL")
    ]
    for line in found.lines:
        facts = line.told["facts"]
        special = "; ".join(f"{key}: {value or 'none'}" for key, value in line.special)
        rows.append((
            line.who, str(line.told["blocks"]), facts["host"] or GROUNDS[line.ground], facts["CPU"], facts["kernel"],
            facts["cgroups"], facts["machines"] or "none", special or "–",
        ))  # fmt: skip
    return rows


def agreements(found: Collected) -> list[tuple[str, ...]]:
    """A head, then a line per ratio and kind of host: whether they agree in its direction, and in its size."""
    rows: list[tuple[str, ...]] = [("WHAT", "ARM", "EXECUTED", "HOSTS", "AGREEMENT", "DIRECTION", "SIZE")]
    rows += [
        (each.what, each.arm, each.kind, str(each.hosts), AGREES[each.agrees], each.direction, each.size)
        for each in found.agreements
    ]
    return rows


def as_table(caption: str, rows: Sequence[Sequence[str]]) -> Table:
    """Rows as a page has them, the first one being their head."""
    head, *body = rows
    titles = [each.capitalize() if each.isupper() and each != "CPU" else each for each in head]
    return Table(
        caption=caption, corner=titles[0], columns=tuple(Cell(text=each) for each in titles[1:]),
        rows=tuple(Row(header=row[0], cells=tuple(Cell(text=each) for each in row[1:])) for row in body),
    )  # fmt: skip
