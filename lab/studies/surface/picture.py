"""The picture of an attack surface: what becomes of system calls, and what each backend makes of the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.model import Accelerator
from lab.reports import style
from lab.reports.material import stamp
from lab.results.record import Arm
from lab.studies.surface.analyse import INSTANCE, LOADED, SETUP, START, Exposed, Reach, Work

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILLS = {  # from open to closed, in lightness too; hatches tell them apart without colour
    "allowed": ("#d55e00", "", "gets through"),
    "by argument": ("#f0a868", "", "by its arguments"),
    "privileged": ("#f5d7bd", "\\\\\\", "reaches the kernel, which refuses it to this caller"),
    "refused": ("#0072b2", "", "refused by the filter"),
    "killed": ("#00364f", "", "kills who makes it"),
    "absent": ("#d9d9d9", "", "this kernel has none"),
    "not called": ("#f2f2f2", "...", "can't be called without harm"),
}
OWN = ("#e6bcd3", "", "gets through, to its own kernel")
ROW = 0.62
LEAST_WORDS = 12
"""A part of a bar as narrow as that many calls has no room for its number."""


def draw(found: Exposed, directory: Path) -> tuple[Path, Path]:
    """surface.png and surface.svg: as many panels as there is something to show."""
    reaches = [reach for reach in found.reaches if reach.calls]
    starts = [work for work in found.works if work.state == START and work.side != "lab" and work.n]
    loads = [work for work in found.works if work.state == LOADED and work.n]
    panels_of: list[tuple[int, Callable[[Axes], None]]] = []
    if reaches:
        panels_of.append((len(reaches), lambda axes: _outcomes(axes, reaches)))
    if starts:
        panels_of.append((2 * len({work.arm.label for work in starts}), lambda axes: _starts(axes, starts)))
    if loads:
        panels_of.append((len(loads), lambda axes: _loads(axes, loads)))
    panels_of = panels_of or [(1, _nothing)]
    heights = [height for height, _ in panels_of]
    ratios = [count + 1.6 for count in heights]
    layout = {"nrows": len(heights), "ncols": 1, "height_ratios": ratios, "squeeze": False}
    with style.canvas(14.2, 2.4 + ROW * sum(heights) + 1.25 * len(heights), **layout) as (figure, panels):
        for axes, (_, fill) in zip(panels[:, 0], panels_of, strict=True):
            fill(axes)
        style.headline(
            figure,
            f"Attack surface, counted: {found.loaded.run.title or found.loaded.run.scenario}",
            "what can be reached, and what was; more or fewer is not worse or better",
        )
        return style.save(figure, directory, "surface")


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0, 0.5, "nothing could be measured: no instance came up", va="center")


def _outcomes(axes: Axes, reaches: Sequence[Reach]) -> None:
    for place, reach in enumerate(reaches):
        left = 0
        for outcome in FILLS:
            fill, hatch, _ = _look(reach, outcome)
            count = reach.outcomes[outcome]
            axes.barh(
                place, count, left=left, height=0.72, color=fill, hatch=hatch, edgecolor=style.PAPER, linewidth=1
            )
            if count >= LEAST_WORDS:
                dark = fill in ("#d55e00", "#0072b2", "#00364f")
                ink = style.PAPER if dark else style.INK
                axes.text(
                    left + count / 2, place, str(count), ha="center", va="center", color=ink, fontweight="bold",
                    bbox={"facecolor": fill, "edgecolor": "none", "pad": 1.5},
                )  # fmt: skip
            left += count
    _name_rows(axes, [reach.arm for reach in reaches], [_kernel(reach) for reach in reaches])
    from matplotlib.patches import Patch

    used = dict.fromkeys(_look(each, name) for name in FILLS for each in reaches if each.outcomes[name])
    handles = [Patch(facecolor=fill, hatch=hatch, edgecolor=style.QUIET, label=label) for fill, hatch, label in used]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.62 / len(reaches)), ncols=3)
    axes.set_title("system calls: what becomes of them")


def _look(reach: Reach, outcome: str) -> tuple[str, str, str]:
    return OWN if reach.own_kernel and outcome == "allowed" else FILLS[outcome]


def _kernel(reach: Reach) -> str:
    return "its own kernel" if reach.own_kernel else "the host's kernel"


def _starts(axes: Axes, starts: Sequence[Work]) -> None:
    from matplotlib.ticker import LogLocator

    arms = list({work.arm.label: work.arm for work in starts}.values())
    ticks, names, inks = [], [], []
    for place, arm in enumerate(arms):
        for shift, side, hatch, word in ((0, SETUP, "///", "putting it up"), (1, INSTANCE, "", "the instance")):
            work = next((each for each in starts if each.arm == arm and each.side == side), None)
            row = 2.3 * place + shift
            ticks.append(row)
            emulated = " (TCG)" if arm.accelerator is Accelerator.TCG else ""
            names.append(f"{arm.label}{emulated}: {word}")
            inks.append(style.ink(arm))
            if work is None:
                continue
            axes.barh(row, work.total, height=0.8, color=style.colour(arm), hatch=hatch, edgecolor=style.PAPER)
            says = f"{work.total:,.0f} calls, {work.distinct} different"
            axes.text(work.total * 1.06, row, says, va="center", fontsize=13)
    axes.set_yticks(ticks, names)
    for tick, ink in zip(axes.get_yticklabels(), inks, strict=True):
        tick.set_color(ink)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(ticks) + 0.7, min(ticks) - 0.7)
    axes.set_xscale("log")
    axes.set_xlim(left=10, right=max(work.total for work in starts) * 12)
    style.logarithmic(axes.xaxis, "1")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
    axes.set_title("system calls made of the host for one start, until it was ready (logarithmic)")


def _loads(axes: Axes, loads: Sequence[Work]) -> None:
    for place, work in enumerate(loads):
        axes.barh(
            place, work.total, height=0.72, color=style.colour(work.arm), hatch=style.hatch(work.arm),
            edgecolor=style.PAPER,
        )  # fmt: skip
        axes.text(
            work.total, place, f"  {work.total:,.3g} calls, {work.distinct} different", va="center", fontsize=13
        )
    axes.set_xlim(right=max(work.total for work in loads) * 1.35 or 1)
    _name_rows(axes, [work.arm for work in loads], [stamp(work.arm) for work in loads])
    axes.set_title("system calls made of the host per request, idle subtracted")


def _name_rows(axes: Axes, arms: Sequence[Arm], below: Sequence[str]) -> None:
    rows = list(range(len(arms)))
    axes.set_yticks(rows, [f"{arm.label}\n{text}" for arm, text in zip(arms, below, strict=True)])
    for tick, arm in zip(axes.get_yticklabels(), arms, strict=True):
        tick.set_color(style.ink(arm))
        tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    if rows:
        axes.set_ylim(max(rows) + 0.6, min(rows) - 0.6)
