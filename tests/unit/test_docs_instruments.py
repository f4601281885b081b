"""The table of other instruments and the tests that hold it are the same set."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_row_is_a_test_and_every_test_a_row() -> None:
    page = (ROOT / "docs/instruments.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    named = [row[-1].strip("`") for row in rows]
    sources = [path.read_text() for path in sorted((ROOT / "tests").glob("*/test_instruments*.py"))]
    assert len(sources) == 3
    made = [name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)]
    assert sorted(named) == sorted(made)
    assert all(len(row) == 6 and all(cell.strip() for cell in row) for row in rows)
