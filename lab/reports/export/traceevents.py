"""The phases of every start as trace events, which Perfetto and chrome://tracing open.

The format is the "JSON Object Format" of Google's *Trace Event Format*: complete events (``"ph": "X"``) with ``ts``
and ``dur`` in microseconds, and metadata events (``"ph": "M"``) that name the processes and threads of the picture.
An arm is a process there, and each of its instances a thread.

Every start begins at 0, since a run records how long each phase took and not when it was: what lies below one another
on the time line is to be compared, and did not happen at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from lab.analysis.quantities import SEGMENTS
from lab.analysis.readiness import is_empty_segment, leading
from lab.errors import ResultsError
from lab.reports.material import Material, stamp
from lab.reports.page.render import put
from lab.results.record import Arm

FILE = "trace.json"
JOB = "job.seconds"
WHOLES = ("boot.total", "job.total")
CALL = "call."
NANOSECONDS = 1_000_000_000
START, WARM_UP, EXCLUDED = "start", "warm-up", "excluded"
"""Categories, by which the viewers filter."""

Event = dict[str, Any]


def trace(material: Material, folder: Path) -> list[Path]:
    """trace.json: the phases of all starts, warm-ups marked. Raises ResultsError where no start was timed."""
    return [put(folder / FILE, json.dumps(document(material), ensure_ascii=False, allow_nan=False) + "\n")]


def document(material: Material) -> dict[str, Any]:
    """The whole trace as one object; ``otherData`` says of which run, which host and which clock it is."""
    found = list(_events(material))
    if not any(event["ph"] != "M" for event in found):
        raise ResultsError(
            f"{material.loaded.path.name} timed no start, so there is nothing to trace",
            hint="lab compare with the metric boot, which is measured unless --metrics leaves it out",
        )
    run = material.run
    platform = run.host.get("platform", {})
    return {
        "traceEvents": found,
        "displayTimeUnit": "ms",
        "otherData": {
            "run": run.name,
            "scenario": run.scenario,
            "started": run.started,
            "host": str(platform.get("title", "not recorded")),
            "emulated host": "yes: no time here says anything about hardware" if run.emulated else "no",
            "accelerators": ", ".join(f"{arm.label}: {stamp(arm)}" for arm in material.loaded.all_arms),
            "lab": str(run.versions.get("lab", "")),
            "clock": "the host's CLOCK_MONOTONIC; each start begins at 0, which is its request",
        },
    }


def _events(material: Material) -> Iterator[Event]:
    arms = material.loaded.all_arms
    frame = material.loaded.frame
    shown = frame[
        frame["quantity"].isin([*SEGMENTS, JOB, *WHOLES]) | frame["quantity"].astype(str).str.startswith(CALL)
    ]
    threads = count(
        len(arms) + 1
    )  # told apart from every process: viewers take a thread with its number for its main
    for pid, arm in enumerate(arms, 1):
        yield _meta("process_name", pid, 0, name=f"{arm.label} ({stamp(arm)})")
        yield _meta("process_labels", pid, 0, labels=arm.title)
        yield _meta("process_sort_index", pid, 0, sort_index=pid)
        starts = shown[shown["arm"] == arm.label].groupby(["block", "instance"], sort=True)
        for place, ((block, instance), rows) in enumerate(starts):
            tid = next(threads)
            which = f"warm-up: {instance}" if rows["warmup"].any() else f"block {block}: {instance}"
            yield _meta("thread_name", pid, tid, name=which)
            yield _meta("thread_sort_index", pid, tid, sort_index=place)
            yield from _start(material, arm, rows, pid, tid)


def _start(material: Material, arm: Arm, rows: pd.DataFrame, pid: int, tid: int) -> Iterator[Event]:
    """One start: the whole, which holds its phases; or where and why it failed."""
    category = WARM_UP if rows["warmup"].any() else EXCLUDED if rows["excluded"].any() else START
    of = {"pid": pid, "tid": tid, "cat": category}
    common = {"arm": arm.label, "accelerator": stamp(arm), "block": int(rows["block"].iloc[0])}
    parts: list[Event] = []
    at = 0.0
    for row in rows.to_dict("records"):
        name, seconds = str(row["quantity"]), float(row["value"])
        if name not in (*SEGMENTS, JOB) or seconds != seconds or is_empty_segment(name, material.run):
            continue
        told = {"quantity": name, "error_bar_us": row["resolution"] * 1e6, **row["detail"]}
        parts.append(
            {"ph": "X", "name": material.label(name), **of, **_span(at, at + seconds), "args": common | told}
        )
        at += seconds
    wholes = rows[rows["quantity"].isin(WHOLES)]
    if parts:
        calls = rows[rows["quantity"].astype(str).str.startswith(CALL) & rows["value"].notna()]
        told = {f"{row['quantity']}_us": row["value"] * 1e6 for row in calls.to_dict("records")}
        told |= {
            f"{row['quantity']}_us": row["value"] * 1e6 for row in wholes.to_dict("records") if row["value"] >= 0
        }
        yield {
            "ph": "X",
            "name": material.label(leading(material.run)),
            **of,
            **_span(0.0, at),
            "args": common | told,
        }
        yield from parts
    for row in wholes[wholes["status"] != "ok"].to_dict("records"):
        told = {"why": str(row["text"]), "quantity": str(row["quantity"])}
        yield {"ph": "i", "s": "t", "name": str(row["status"]), **of, "ts": _micro(at), "args": common | told}


def _span(begin: float, end: float) -> dict[str, float]:
    """Both ends are rounded, so that one phase begins where the one before ends, and the last ends with the whole."""
    first = round(begin * NANOSECONDS)
    return {"ts": first / 1000, "dur": (round(end * NANOSECONDS) - first) / 1000}


def _micro(seconds: float) -> float:
    return round(seconds * NANOSECONDS) / 1000


def _meta(what: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}
