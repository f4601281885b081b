"""Boot: its phases as stacked timelines, and every single boot on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from lab.analysis.quantities import SEGMENTS, format_interval, format_value
from lab.analysis.readiness import leading, phrase
from lab.reports import style
from lab.reports.charts import Chart, Data, Panel, mark, tip, whose
from lab.reports.material import Material, Value, stamp, stamped
from lab.results.record import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = (*SEGMENTS, "job.seconds")
EVERY = "Every start that was measured"
LONGEST_LEGEND = 6  # that fits below the figure in one row

Segments = list[tuple[str, float]]


def phases(material: Material, keep: Callable[[Figure], None]) -> str:
    """Left: all on one scale. Right: each stretched to its own length, so that short boots show their parts too."""
    arms = [arm for arm in _with_restored(material) if material.value(leading(material.run), arm.label)]
    segments = {arm.label: _segments(material, arm) for arm in arms}
    with style.canvas(14.2, 2.9 + 1.25 * len(arms), ncols=2, width_ratios=[1, 1.45]) as (figure, (shared, own)):
        for row, arm in enumerate(arms):
            _stack(shared, row, segments[arm.label], 1.0)
            _total(shared, row, arm, material)
            _stretched(own, row, segments[arm.label])
        style.backend_axis(shared, arms)
        style.backend_axis(own, arms)
        own.set_yticklabels([])
        longest = max(sum(value for _, value in each) for each in segments.values())
        shared.set_xlim(0, longest * 1.75)
        shared.set_xlabel(f"seconds from the request until {phrase(material.run)}")
        shared.set_title("one scale for all")
        own.set_title("each on its own scale: where does the time go?")
        own.set_xlim(0, 1)
        own.set_xticks([])
        own.grid(False)
        own.spines["bottom"].set_visible(False)
        _legend(figure, material, segments)
        style.headline(
            figure, _heading(material),
            "bars: medians of the phases · dot and line: median of the whole with its 95 % interval",
        )  # fmt: skip
        keep(figure)
    return f"{_heading(material)}. " + " ".join(_sentence(arm, material, segments[arm.label]) for arm in arms)


def distribution(material: Material, keep: Callable[[Figure], None]) -> str:
    """Every boot a marker; a bar for the interval of the median, a line for the median."""
    arms = _with_twin(material)
    with style.canvas(14.2, 2.4 + 1.0 * len(arms)) as (figure, axes):
        for row, arm in enumerate(arms):
            _cloud(axes, row, arm, material)
        style.backend_axis(axes, arms)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(low * 0.8, high * max(4.0, (high / low) ** 0.42))
        style.logarithmic(axes.xaxis, "seconds")
        axes.set_xlabel(f"time until {phrase(material.run)} (logarithmic axis)")
        style.headline(
            figure, EVERY,
            "a marker is one instance · line: median · band: its 95 % interval · #aa: the same backend again",
        )  # fmt: skip
        keep(figure)
    return f"{EVERY}, on a logarithmic axis. " + " ".join(_spread(arm, material) for arm in arms)


def phases_chart(material: Material) -> Chart:
    """The same bars for the page's script."""
    rows = []
    for arm in material.arms:
        total = material.value(leading(material.run), arm.label)
        if total is None:
            continue
        found = [(name, value) for name in PARTS if (value := material.value(name, arm.label)) is not None]
        parts: list[Data] = [
            {
                "value": value.median,
                "fill": style.PHASES[name][0],
                "ink": style.PHASES[name][1],
                "text": format_value(value.median, "seconds", 2),
                "tip": tip(value, arm, _part(material, name)),
            }
            for name, value in found
            if value.median > 0
        ]
        whole = mark(total, arm, "the whole")
        text, beside = format_value(total.median, "seconds"), _sureness(total)
        rows.append(whose(arm) | {"parts": parts, "whole": whole, "text": text, "beside": beside})
    used = {name for arm in material.arms for name, _ in _segments(material, arm)}
    legend = tuple((style.PHASES[name][0], material.label(name)) for name in PARTS if name in used)
    axis = f"from the request until {phrase(material.run)}"
    return Chart(
        title=_heading(material),
        how="bars: medians of the phases · dot and line: median of the whole with its 95 % interval",
        panels=(
            Panel(kind="parts", title="one scale for all", unit="seconds", rows=tuple(rows), axis=axis),
            Panel(
                kind="shares", title="each on its own scale: where does the time go?", rows=tuple(rows), legend=legend
            ),
        ),
    )


def distribution_chart(material: Material) -> Chart:
    """Every boot for the page's script."""
    rows: list[Data] = []
    for arm in _with_twin(material):
        value = material.value(leading(material.run), arm.label)
        if value is None:
            continue
        points = [
            {
                "value": seconds,
                "block": int(block),
                "tip": [
                    f"{arm.label} · {stamp(arm)}",
                    f"one instance: {format_value(seconds, 'seconds')}",
                    f"block {block}",
                ],
            }
            for block, seconds in material.points(leading(material.run), arm.label).itertuples(index=False)
        ]
        row = whose(arm) | mark(value, arm, "median of all instances") | {"points": points}
        rows.append(row | {"text": format_value(value.median, "seconds"), "note": _sureness(value)})
    panel = Panel(
        kind="dots", title=f"time until {phrase(material.run)}", unit="seconds", rows=tuple(rows), logarithmic=True
    )
    return Chart(
        title=EVERY, panels=(panel,),
        how="a marker is one instance · line: median · band: its 95 % interval · #aa: the same backend again",
    )  # fmt: skip


def _with_twin(material: Material) -> list[Arm]:
    quantity, all_arms = leading(material.run), (*material.arms, material.twin)
    arms = [arm for arm in all_arms if arm is not None and material.value(quantity, arm.label)]
    return sorted(arms, key=lambda arm: (arm.order, arm.label))


def _with_restored(material: Material) -> list[Arm]:
    """The references, and below each one that is restored instead of booted: its phases are others."""
    others = [arm for arm in material.loaded.arms if arm not in material.arms]
    found = []
    for arm in material.arms:
        restored = (each for each in others if each.backend == arm.backend)
        found += [arm, *islice((each for each in restored if material.value("boot.restored", each.label)), 1)]
    return found


def _segments(material: Material, arm: Arm) -> Segments:
    found = ((name, material.value(name, arm.label)) for name in PARTS)
    return [(name, value.median) for name, value in found if value is not None and value.median > 0]


def _stack(axes: Axes, row: float, segments: Segments, scale: float) -> None:
    left = 0.0
    for name, value in segments:
        fill, _ = style.PHASES[name]
        axes.barh(row, value * scale, left=left, height=0.56, color=fill, edgecolor=style.PAPER, linewidth=0.8)
        left += value * scale


def _total(axes: Axes, row: int, arm: Arm, material: Material) -> None:
    total = material.value(leading(material.run), arm.label)
    if total is None:
        return
    axes.errorbar(
        total.median, row, xerr=[[reach] for reach in total.whiskers],
        fmt="o", color=style.INK, markersize=5, capsize=6, linewidth=2, zorder=4,
    )  # fmt: skip
    text = f"  {format_value(total.median, 'seconds')}"
    axes.annotate(text, (total.edge, row - 0.04), va="bottom", fontsize=18, fontweight="bold")
    axes.annotate(
        f"   {_sureness(total)}",
        (total.edge, row + 0.06),
        va="top",
        fontsize=12.5,
        color=style.QUIET,
    )


def _stretched(axes: Axes, row: int, segments: Segments) -> None:
    whole = sum(value for _, value in segments)
    if whole <= 0:
        return
    _stack(axes, row, segments, 1 / whole)
    left = 0.0
    for name, value in segments:
        share = value / whole
        if share >= 0.085:
            text = format_value(value, "seconds", 2)
            ink = style.PHASES[name][1]
            axes.text(
                left + share / 2, row, text, ha="center", va="center", color=ink, fontsize=14, fontweight="bold"
            )
        left += share


def _heading(material: Material) -> str:
    return f"From the request until {phrase(material.run)}"


def _part(material: Material, name: str) -> str:
    """A segment in words: boots are named by the phase that ends them."""
    return "for the job itself" if name == "job.seconds" else f"until “{material.label(name)}”"


def _legend(figure: Figure, material: Material, segments: dict[str, Segments]) -> None:
    from matplotlib.patches import Patch

    used = {name for each in segments.values() for name, _ in each}
    handles = [Patch(facecolor=style.PHASES[name][0], label=material.label(name)) for name in PARTS if name in used]
    rows = 1 if len(handles) <= LONGEST_LEGEND else 2
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=-(-len(handles) // rows),
        columnspacing=1.2,
        handlelength=1.2,
    )


def _cloud(axes: Axes, row: int, arm: Arm, material: Material) -> None:
    points = material.points(leading(material.run), arm.label)
    value = material.value(leading(material.run), arm.label)
    if value is None:
        return
    fill = "none" if arm.label.endswith("#aa") else style.colour(arm)
    # spread by block, not at random: the same picture every time
    offsets = [0.2 * ((7 * block) % 5 - 2) / 2 for block in points["block"]]
    down, up = value.whiskers
    axes.barh(row, down + up, left=value.median - down, height=0.62, color=style.colour(arm), alpha=0.2)
    axes.plot([value.median] * 2, [row - 0.36, row + 0.36], color=style.INK, linewidth=3, solid_capstyle="butt")
    axes.scatter(
        points["value"], [row + offset for offset in offsets], marker=style.marker(arm), s=90, facecolor=fill,
        edgecolor=style.colour(arm), linewidth=1.8, zorder=3,
    )  # fmt: skip
    edge = max(points["value"].max(), value.edge)
    text = f"   {format_value(value.median, 'seconds')}"
    axes.annotate(text, (edge, row - 0.02), va="bottom", fontsize=17, fontweight="bold")
    axes.annotate(f"    {_sureness(value)}", (edge, row + 0.04), va="top", fontsize=12.5, color=style.QUIET)


def _sureness(value: Value) -> str:
    bad = [f"✗ {count} {word}" for count, word in ((value.failed, "failed"), (value.timeout, "timed out")) if count]
    interval = format_interval(value.low, value.high, value.unit)
    return " · ".join([*([] if interval == "–" else [interval]), f"n = {value.n}", *bad])


def _sentence(arm: Arm, material: Material, segments: Segments) -> str:
    total = material.value(leading(material.run), arm.label)
    if total is None or not segments:
        return ""
    name, longest = max(segments, key=lambda each: each[1])
    whole, part = format_value(total.median, "seconds"), format_value(longest, "seconds")
    return f"{stamped(arm)}: {whole} in all (n = {total.n}), of which {part} {_part(material, name)}."


def _spread(arm: Arm, material: Material) -> str:
    value = material.value(leading(material.run), arm.label)
    if value is None:
        return ""
    interval = format_interval(value.low, value.high, "seconds")
    return f"{stamped(arm)}: median {format_value(value.median, 'seconds')}, interval {interval}, n = {value.n}."
