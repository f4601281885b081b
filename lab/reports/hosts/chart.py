"""The forest plot: every host's ratio with its interval, all of them together, and where the next is expected."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lab.analysis.hosts.across import SUREST
from lab.analysis.hosts.merged import COMPARISON, Merged
from lab.analysis.hosts.sources import Group, HostKind
from lab.analysis.inference.estimate import FEWEST
from lab.analysis.quantities import format_ratio, format_ratios
from lab.reports.charts import Chart, Data, Panel
from lab.reports.hosts.words import Row, arm_of, called, hosts_of, rows_of, sentence

MOST_NAMED = 40
"""More hosts than that are drawn in low rows, and only those are named that disagree."""
SPACE = 9
"""So many low rows take as much room as a line of words."""
PICTURES = (("memory.pss", "idle"), ("load.requests_per_second", ""), ("work.seconds", ""))
"""What has a picture besides the leading quantity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart of one quantity, a panel per arm; ``name`` is that of its files."""

    name: str
    group: Group
    kind: HostKind
    chart: Chart


def figures(merged: Merged) -> Iterator[Figure]:
    """A figure per scenario, kind of host and quantity, the kind with most hosts first."""
    for group, kind in merged.strata:
        rows = rows_of(merged, group, kind)
        wanted = [each for each in ((group.leading, ""), *PICTURES) if any(_of(row) == each for row in rows)]
        for quantity, state in wanted or [_of(rows[0])]:
            some = [row for row in rows if _of(row) == (quantity, state)]
            name = re.sub(r"[^\w]+", "-", f"hosts-{group.scenario}-{kind}-{quantity}").lower()
            yield Figure(name=name, group=group, kind=kind, chart=_chart(merged, group, some))


def _of(row: Row) -> tuple[str, str]:
    return row["quantity"], row["state"]


def _chart(merged: Merged, group: Group, rows: Sequence[Row]) -> Chart:
    row = rows[0]
    whole = max(int(each["hosts"]) for each in rows)
    how = f"times {row['baseline']}, on each of {hosts_of(whole, HostKind(row['kind']))} · lines: 95 %"
    if whole >= FEWEST:
        how += " · diamond: their mean · dashed: the next host"
    table = merged.estimates
    if table[(table["quantity"] == row["quantity"]) & (table["kind"] == row["kind"])]["disagrees"].any():
        how += " · hollow: disagrees"
    return Chart(
        title=_capital(called(group, row["quantity"], row["state"])), how=how,
        panels=tuple(_panel(merged, group, each) for each in rows),
        alt=" ".join(sentence(group, each) for each in rows),
    )  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _panel(merged: Merged, group: Group, row: Row) -> Panel:
    table = merged.estimates
    chosen = pd.Series(True, index=table.index)
    for name in COMPARISON:
        chosen &= table[name] == row[name]
    hosts = table[chosen].sort_values("ratio").to_dict("records")
    tau2 = 0.0 if math.isnan(row["tau2"]) else row["tau2"]
    weights = [1 / (max(each["variance"], SUREST**2) + tau2) for each in hosts]
    crowded = len(hosts) > MOST_NAMED
    drawn: list[Data] = []
    for each, weight in zip(hosts, weights, strict=True):
        drawn.append(_host(merged, group, each, weight / max(weights), bare=crowded))
    if crowded:
        _thin_out(drawn)
    for below in _together(row) if len(hosts) > 1 else ():
        drawn += [_space(row)] * (SPACE if crowded else 0) + [below]
    drawn += [_space(row)] * (SPACE // 2 if crowded else 0)
    return Panel(
        kind="thicket" if crowded else "forest", title=f"{arm_of(group, row)} against {row['baseline']}",
        unit="1", axis=f"times {row['baseline']}", rows=tuple(drawn),
    )  # fmt: skip


def _thin_out(drawn: Sequence[Data]) -> None:
    """Low rows have room for few names: those of hosts that disagree. Where they are too near, the first, and how
    many more.
    """
    first, more = -SPACE, 0
    for place, row in enumerate(drawn):
        name, row["label"] = row["label"], ""
        if not row["disagrees"]:
            continue
        if place - first >= SPACE // 2:
            first, more = place, 0
            row["label"] = name
        else:
            more += 1
            drawn[first]["label"] = f"{drawn[first]['label'].partition(' +')[0]} +{more}"


def _host(merged: Merged, group: Group, row: Row, weight: float, *, bare: bool) -> Data:
    host = merged.host(group.scenario, row["host"], row["kind"])
    runs = f"{row['runs']} run{'' if row['runs'] == 1 else 's'}"
    interval = format_ratios(row["low"], row["high"])
    text = format_ratio(row["ratio"]) + (" ≠" if row["disagrees"] else "")
    return {
        "role": "host", "arm": row["arm"], "label": host.name, "twin": False,
        "stamp": "" if bare else f"{host.kind}, {host.traits.get('kernel', '')}",
        "value": row["ratio"], "low": row["low"], "high": row["high"], "weight": weight,
        "disagrees": bool(row["disagrees"]), "text": "" if bare else text, "note": "" if bare else interval,
        "tip": [host.name, f"{text} ({interval})", runs],
    }  # fmt: skip


def _together(row: Row) -> Iterator[Data]:
    whole: dict[str, Any] = {"arm": row["arm"], "twin": False, "weight": 1.0, "disagrees": False}
    few = int(row["hosts"]) < FEWEST
    ends = {"low": None, "high": None} if few else {"low": row["low"], "high": row["high"]}
    note = "too few for an interval" if few else format_ratios(row["low"], row["high"])
    yield whole | ends | {
        "role": "pooled", "label": "mean of these", "stamp": f"{row['hosts']} hosts, {row['runs']} runs",
        "value": row["ratio"], "text": format_ratio(row["ratio"]), "note": note,
        "tip": ["mean of these", format_ratio(row["ratio"]), note],
    }  # fmt: skip
    if not few:
        interval = format_ratios(row["next_low"], row["next_high"])
        yield whole | {
            "role": "next", "label": "the next host", "stamp": "expected, 95 %", "value": row["ratio"],
            "low": row["next_low"], "high": row["next_high"], "text": interval, "note": "",
            "tip": ["the next host", interval],
        }  # fmt: skip


def _space(row: Row) -> Data:
    return {"role": "space", "arm": row["arm"], "label": "", "stamp": "", "text": "", "note": "", "value": None}
