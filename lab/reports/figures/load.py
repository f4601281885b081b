"""Load: answered requests per second, and how long the answers took."""

from __future__ import annotations

from lab.analysis.quantities import format_value
from lab.reports.charts import Chart, Panel, bars, mark, whose
from lab.reports.material import Material, Value, stamped
from lab.results.record import Arm

PERCENTILES = ("p50", "p75", "p90", "p95", "p99")


def chart(material: Material) -> Chart:
    """Left: throughput. Right: latency percentiles on a logarithmic axis."""
    lines = []
    for arm in material.arms:
        points = [
            mark(value, arm, f"{name} latency") | {"at": position}
            for position, name, value in latencies(material, arm)
        ]
        if points:
            end = format_value(points[-1]["value"], "seconds")
            lines.append(whose(arm) | {"points": points, "text": f"{arm.label} {end}"})
    panels = [bars(material, "load.requests_per_second", "answers per second: longer is better", prefix=(1.0, ""))]
    if lines:
        panels.append(
            Panel(
                kind="lines", title="waiting time: lower is better", unit="seconds", rows=tuple(lines),
                ticks=PERCENTILES, axis="share of requests answered within that time · logarithmic",
            )
        )  # fmt: skip
    return Chart(
        title="How it answers under load", panels=tuple(panels), columns=len(panels),
        how="medians over blocks with 95 % intervals · same client, same path · p99 only from 300 requests on",
        alt="Throughput and latency. " + " ".join(_sentence(arm, material) for arm in material.arms),
    )  # fmt: skip


def latencies(material: Material, arm: Arm) -> list[tuple[int, str, Value]]:
    """The percentiles that may be shown: (position, name, value)."""
    found = []
    for position, name in enumerate(PERCENTILES):
        value = material.value(f"load.latency.{name}", arm.label)
        if value is not None and (name != "p99" or material.enough_requests(arm.label)):
            found.append((position, name, value))
    return found


def _sentence(arm: Arm, material: Material) -> str:
    rate = material.value("load.requests_per_second", arm.label)
    shown = latencies(material, arm)
    if rate is None or not shown:
        return f"{stamped(arm)}: not measured."
    times = ", ".join(f"{name} {format_value(value.median, 'seconds')}" for _, name, value in shown)
    return f"{stamped(arm)}: {format_value(rate.median, 'requests/s')}, {times}."
