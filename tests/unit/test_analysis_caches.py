"""What a report says of the host's levels: of caches by two instruments, of KSM by how far it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic import write_run
from told import tells

from lab.analysis import load
from lab.analysis.checks import merging
from lab.analysis.checks.caches import in_words, remarks, starts

MIB = float(1 << 20)


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    """A start per row: its level, share in memory, and what it fetched."""
    samples = []
    for number, row in enumerate(rows):
        common = {"arm": row["arm"], "instance": f"b{number}", "warmup": row.get("warmup", False), "unit": "bytes"}
        detail = {"level": row["level"], "share": row["share"], "data_bytes": 200 * MIB}
        resident = row["share"] * 200 * MIB
        samples.append({**common, "quantity": "caches.resident", "value": resident, "detail": detail})
        if "fetched" in row:
            samples.append({**common, "quantity": "boot.read", "value": row["fetched"], "detail": {}})
    return pd.DataFrame(samples).assign(excluded=False)


WARM = {"arm": "container", "level": "warm", "share": 1.0, "fetched": 0.0}
COLD = {"arm": "vm", "level": "cold", "share": 0.0, "fetched": 40 * MIB}


def test_what_was_seen_is_said_by_level() -> None:
    said = in_words(frame(WARM, COLD, COLD | {"fetched": 44 * MIB}, COLD | {"fetched": 42 * MIB}))
    assert tells(said, "warm", "1", "200 MiB", "nothing")
    assert tells(said, "cold", "3", "0 B", "200 MiB", "vm", "42.0 MiB")
    assert "inodes" in said
    assert "inodes" not in in_words(frame(WARM)), "nobody emptied their cache"
    assert tells(in_words(frame(WARM | {"share": 0.99999})), "99.9 %"), "nearly all is not all"


def test_what_agrees_needs_no_remark() -> None:
    assert list(remarks(frame(WARM, COLD))) == []
    warm_up = WARM | {"share": 0.1, "warmup": True}
    assert list(remarks(frame(WARM, warm_up))) == [], "a warm-up is there to warm"


def test_a_warm_start_that_was_not_is_told() -> None:
    (cool,) = remarks(frame(WARM, WARM | {"share": 0.4}))
    assert tells(cool.sentence, "1 of 2", "40 %")
    (fetching,) = remarks(frame(WARM, WARM | {"fetched": 3 * MIB}))
    assert tells(fetching.sentence, "1 of 2", "warm", "3.00 MiB")


def test_a_cold_start_that_fetched_nothing_is_told() -> None:
    (contradiction,) = remarks(frame(COLD, COLD | {"fetched": 0.0}))
    assert tells(contradiction.sentence, "1 of 2", "cold")


def test_a_kernel_that_does_not_count_is_no_contradiction() -> None:
    uncounted = {key: value for key, value in COLD.items() if key != "fetched"}
    assert np.isnan(starts(frame(uncounted))["fetched_bytes"][0])
    assert list(remarks(frame(uncounted))) == []
    assert tells(in_words(frame(COLD)), "40.0 MiB"), "the control"
    assert not tells(in_words(frame(uncounted)), "40.0 MiB")


def test_a_run_from_before_it_was_looked_at_says_nothing(tmp_path: Path) -> None:
    loaded = load(write_run(tmp_path).path)
    assert in_words(loaded.frame) == ""
    assert list(remarks(loaded.frame)) == []


def test_memory_that_was_read_before_ksm_was_done_is_told() -> None:
    common = {"quantity": "memory.ksm.merged", "state": "idle", "warmup": False, "excluded": False, "unit": "bytes"}
    rows = [
        {**common, "arm": arm, "detail": {"full_scans": n}} for arm, n in (("vm", 1), ("vm", 3), ("container", 9))
    ]
    (early,) = merging.remarks(pd.DataFrame(rows))
    assert tells(early.sentence, "1 of 3", "vm")
    assert list(merging.remarks(pd.DataFrame(rows[1:]))) == []
