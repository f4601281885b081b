"""Load: answered requests per second, and how long the answers took."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.analysis.quantities import format_value
from lab.reports import style
from lab.reports.charts import Chart, Panel, bars, mark, whose
from lab.reports.figures.bars import panel
from lab.reports.material import Material, Value, stamped
from lab.results.record import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERCENTILES = ("p50", "p75", "p90", "p95", "p99")


def draw(material: Material, keep: Callable[[Figure], None]) -> str:
    """Left: throughput, linear. Right: latency percentiles on a logarithmic axis."""
    arms = material.arms
    with style.canvas(14.2, 7.4, ncols=2, width_ratios=[1, 1.15]) as (figure, (throughput, latency)):
        panel(throughput, material, arms, "load.requests_per_second")
        style.backend_axis(throughput, arms)
        throughput.set_title("throughput: longer is better")
        throughput.set_xlabel("answered requests per second")
        throughput.locator_params(axis="x", nbins=4)
        throughput.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        latency.set_yscale("log")
        for arm in arms:
            _line(latency, arm, material)
        _name_lines(latency, material)
        latency.grid(True, which="major", axis="y")
        latency.grid(False, axis="x")
        style.logarithmic(latency.yaxis, "seconds")
        latency.set_xticks(range(len(PERCENTILES)), PERCENTILES)
        latency.set_xlim(-0.25, len(PERCENTILES) + 1.2)
        latency.set_title("latency: lower is better (logarithmic)")
        latency.set_xlabel("share of requests answered within that time")
        style.headline(
            figure, "How it answers under load",
            "medians over blocks with 95 % intervals · same client, same path · p99 only from 300 requests on",
        )  # fmt: skip
        keep(figure)
    return "Throughput and latency. " + " ".join(_sentence(arm, material) for arm in arms)


def chart(material: Material) -> Chart:
    """The same panels for the page's script."""
    lines = []
    for arm in material.arms:
        points = [
            mark(value, arm, f"{name} latency") | {"at": position}
            for position, name, value in latencies(material, arm)
        ]
        if points:
            end = format_value(points[-1]["value"], "seconds")
            lines.append(whose(arm) | {"points": points, "text": f"{arm.label} {end}"})
    throughput = bars(
        material, "load.requests_per_second", "throughput: longer is better", axis="answered requests per second"
    )
    latency = Panel(
        kind="lines", title="latency: lower is better", unit="seconds", rows=tuple(lines), ticks=PERCENTILES,
        axis="share of requests answered within that time", logarithmic=True,
    )  # fmt: skip
    return Chart(
        title="How it answers under load", panels=(throughput, latency),
        how="medians over blocks with 95 % intervals · same client, same path · p99 only from 300 requests on",
    )  # fmt: skip


def latencies(material: Material, arm: Arm) -> list[tuple[int, str, Value]]:
    """The percentiles that may be shown: (position, name, value)."""
    found = []
    for position, name in enumerate(PERCENTILES):
        value = material.value(f"load.latency.{name}", arm.label)
        if value is not None and (name != "p99" or material.enough_requests(arm.label)):
            found.append((position, name, value))
    return found


def _line(axes: Axes, arm: Arm, material: Material) -> None:
    shown = latencies(material, arm)
    if not shown:
        return
    positions = [position for position, _, _ in shown]
    medians = [value.median for _, _, value in shown]
    errors = [[value.whiskers[side] for _, _, value in shown] for side in (0, 1)]
    dashes = "--" if style.hatch(arm) else "-"
    axes.errorbar(
        positions, medians, yerr=errors, color=style.colour(arm), marker=style.marker(arm), markersize=10,
        linewidth=2.5, linestyle=dashes, capsize=4,
    )  # fmt: skip


def _name_lines(axes: Axes, material: Material) -> None:
    """Write each line's name at its end, moved apart where the lines end close to each other."""
    ends = {arm.label: shown[-1] for arm in material.arms if (shown := latencies(material, arm))}
    low, high = axes.get_ylim()
    gap = (high / low) ** 0.065
    at = 0.0
    for arm in sorted((arm for arm in material.arms if arm.label in ends), key=lambda arm: ends[arm.label][2].median):
        position, _, value = ends[arm.label]
        at = max(value.median, at * gap)
        axes.annotate(
            f"{arm.label} {format_value(value.median, 'seconds')}", (position, at), xytext=(14, 0),
            textcoords="offset points", va="center", color=style.ink(arm), fontsize=14, fontweight="bold",
        )  # fmt: skip


def _sentence(arm: Arm, material: Material) -> str:
    rate = material.value("load.requests_per_second", arm.label)
    shown = latencies(material, arm)
    if rate is None or not shown:
        return f"{stamped(arm)}: not measured."
    times = ", ".join(f"{name} {format_value(value.median, 'seconds')}" for _, name, value in shown)
    return f"{stamped(arm)}: {format_value(rate.median, 'requests/s')}, {times}."
