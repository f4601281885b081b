"""Rows that a query gave, as a person reads them or another program does."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from lab.classroom.marks import harmless as no_formula
from lab.commands.output import harmless, write_text

NOTHING = "–"
DIGITS = 6


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output."""
    told = [[shown(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *told, strict=True)] if told else [*map(len, columns)]
    numbers = [bool(rows) and all(is_number(row[place]) for row in rows) for place in range(len(columns))]
    for row in ([harmless(name) for name in columns], *told):
        cells = zip(row, widths, numbers, strict=True)
        print("   ".join(cell.rjust(w) if number else cell.ljust(w) for cell, w, number in cells).rstrip())


def write_csv(where: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """To a file, or to standard output for ``-``. Text that a spreadsheet would take for a formula is no more one."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([no_formula(value) if isinstance(value, str) else plain(value) for value in row] for row in rows)
    write_text(where, written.getvalue())


def write_markdown(where: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table of Markdown, as `write_csv`."""
    lines = [columns, ["---"] * len(columns), *([shown(value) for value in row] for row in rows)]
    escaped = (
        ["".join(f"\\{sign}" if sign in "|<`*_[\\" else sign for sign in cell) for cell in row] for row in lines
    )
    write_text(where, "".join(f"| {' | '.join(row)} |\n" for row in escaped))


def is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))


def plain(value: Any) -> Any:
    """As JSON and CSV have it: nothing for what is no number, a time in ISO 8601."""
    if isinstance(value, Decimal):  # what SQL has for a number with a point
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, datetime) else value


def shown(value: Any) -> str:
    """In a table: at most six digits of a fraction, a time to the second."""
    value = plain(value)
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}" if abs(value) < 10**DIGITS else f"{value:,.0f}"
    return harmless(str(value)).replace("\n", " ")
