"""Whether starts were as cold or warm as the run says: what the host had in memory, and what was fetched from disks.

Two instruments that know nothing of each other: before each request lab looks what of an instance's files is in the
page cache, and the kernel counts what the instance's processes ask of disks until it is ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.data import counted, detail
from lab.analysis.noise import Remark
from lab.analysis.quantities import format_value

RESIDENT, FETCHED = "caches.resident", "boot.read"
WARM, COLD = "warm", "cold"
WHOLE = 0.99
"""A warm start had at least that share in memory."""
LITTLE_BYTES = 1 << 20
"""What a warm start may fetch without a word."""


def starts(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per instance that counts and whose caches were looked at, in order.

    Columns: arm, level, share (of its files' data, 0 to 1), resident_bytes, data_bytes, fetched_bytes (NaN where the
    kernel doesn't count, or the instance did not come up).
    """
    measured = counted(frame)
    looked, read = (measured[measured["quantity"] == quantity] for quantity in (RESIDENT, FETCHED))
    fetched = dict(zip(read["instance"], read["value"], strict=True))
    details: list[dict[str, Any]] = looked["detail"].tolist()
    return pd.DataFrame(
        {
            "arm": looked["arm"].astype(str).tolist(),
            "level": [detail(each, "level") for each in details],
            "share": [float(each.get("share", 0.0)) for each in details],
            "resident_bytes": looked["value"].to_numpy(dtype=np.float64),
            "data_bytes": [float(each.get("data_bytes", 0)) for each in details],
            "fetched_bytes": [float(fetched.get(instance, np.nan)) for instance in looked["instance"]],
        }
    )


def in_words(frame: pd.DataFrame) -> str:
    """What is known of each level's starts; empty when nobody looked."""
    found = starts(frame)
    said = []
    for level in (level for level in (WARM, COLD) if level in set(found["level"])):
        group = found[found["level"] == level]
        share = float(group["share"].min())
        of = f"of the {_range(group['data_bytes'])} that lab knows it to read"
        text = f"{level}, looked at before each of {len(group)} requests: "
        if level == COLD:
            text += f"{_range(group['resident_bytes'])} {of} was in the host's page cache"
        else:
            text += f"{'all' if share >= 1 else f'at least {_in_percent(share)}'} {of} was in the host's page cache"
        medians = group.groupby("arm", sort=False)["fetched_bytes"].median().dropna()
        each = ", ".join(f"{arm} {format_value(float(value), 'bytes')}" for arm, value in medians.items() if value)
        each = each or ("nothing" if len(medians) else "")
        said.append(text + (f"; until it was ready it then fetched from disks {each} (medians)" if each else ""))
    if COLD in set(found["level"]):
        said.append(
            "not evicted: what is the host's own (VMM, firmware, libraries, lab's interpreter), directory entries "
            "and inodes, and what lies below the host's disk"
        )
    return "; ".join(said)


def remarks(frame: pd.DataFrame) -> Iterator[Remark]:
    """Where the two instruments contradict the run, or each other."""
    found = starts(frame)
    warm, cold = (found[found["level"] == level] for level in (WARM, COLD))
    cool = warm[warm["share"] < WHOLE]
    if len(cool):
        yield Remark(
            kind="caches",
            sentence=f"Not all starts were warm: before {len(cool)} of {len(warm)} the host had as little as "
            f"{_in_percent(float(cool['share'].min()))} of their files in memory ({_arms(cool)}), though lab had "
            "just read them.",
            advice="The host has too little memory to keep them. Free some, or compare fewer backends at once.",
        )
    fetching = warm[warm["fetched_bytes"] > LITTLE_BYTES]
    if len(fetching):
        yield Remark(
            kind="caches",
            sentence=f"{len(fetching)} of {len(warm)} warm starts fetched up to "
            f"{format_value(float(fetching['fetched_bytes'].max()), 'bytes')} from disks ({_arms(fetching)}).",
            advice="Something of the host's own, a VMM or its libraries, was seldom used, or memory is short.",
        )
    idle = cold[cold["fetched_bytes"] == 0]
    if len(idle):
        yield Remark(
            kind="caches",
            sentence=f"{len(idle)} of {len(cold)} cold starts fetched nothing from disks ({_arms(idle)}), though the "
            "host had none of their files in memory: they may not have been cold.",
            advice="LAB_HOME's file system may have a cache of its own (network, FUSE, ZFS): set it to a local disk.",
        )


def _range(values: pd.Series[float]) -> str:
    low, high = format_value(float(values.min()), "bytes"), format_value(float(values.max()), "bytes")
    return low if low == high else f"{low} to {high}"


def _in_percent(share: float) -> str:
    """Rounded down: 99.9 % is not all."""
    return f"{np.floor(1000 * share) / 10:g} %"


def _arms(rows: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(str(arm) for arm in rows["arm"]))
