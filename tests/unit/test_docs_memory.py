"""The memory page quotes the sample run, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.analysis.loaded import load
from lab.analysis.quantities import format_value

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/memory.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| [^|]+ \| `(memory\.[\w.]+)` \| ([^|]+) \|", re.MULTILINE)


@pytest.mark.parametrize(("part", "arm", "rows"), [(0, "vm", 6), (1, "container", 5)])
def test_every_number_is_the_sample_runs(part: int, arm: str, rows: int) -> None:
    told = dict(ROW.findall(PAGE.split("The same in a container")[part]))
    summary = load(ROOT / "results/sample").summary()
    mine = summary[(summary["arm"] == arm) & (summary["state"] == "idle")].set_index("quantity")["median"]
    assert told == {name: format_value(float(mine[name]), "bytes") for name in told}
    assert len(told) == rows
    # As many definitions, as many numbers; but RSS and PSS of who shares with nobody may agree, and cgroup usage and
    # working set of who was charged for no cache.
    assert len(set(told.values())) >= rows - 2 * (arm == "container")


def test_the_range_in_words_is_that_of_the_table() -> None:
    numbers = [float(number.split()[0]) for _, number in ROW.findall(PAGE.split("The same in a container")[0])]
    low, high = re.search(r"From ([\d.]+) to ([\d.]+) MiB, a factor of more than ten", PAGE).groups()  # type: ignore[union-attr]
    assert (float(low), float(high)) == (min(numbers), max(numbers))
    assert 10 < max(numbers) / min(numbers) < 10.5
