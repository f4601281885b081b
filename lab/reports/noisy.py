"""The report of a noisy neighbour: what each disturbance did to the victim, beside which boundary, and what held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.analysis.data import Loaded
from lab.analysis.noisy import Disturbance, disturbances
from lab.analysis.quantities import format_value
from lab.model import Accelerator
from lab.reports import style
from lab.reports.material import stamp

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KIND = "noisy"
MEANINGS = {
    "cpu": "twice as many spinning processes as there are processors",
    "memory": "touches more memory than there is for all",
    "forks": "forks until it is refused",
    "disk": "writes files and waits for the disk",
    "cache": "reads more through the page cache than fits",
    "inodes": "makes files without end: inodes and dentries",
    "full": "fills its /dev/shm",
    "files": "opens descriptors without end",
    "watches": "takes inotify instances, which are counted per user",
    "send": "floods the victim with datagrams",
    "receive": "is flooded with datagrams itself",
}
MOST_SHOWN = 100.0
"""A slowdown beyond that, or no answer, ends at the edge of the figure."""


def is_noisy(settings: object) -> bool:
    """Whether a run's settings are those of such a run."""
    return isinstance(settings, dict) and settings.get("kind") == KIND


def write(loaded: Loaded) -> list[Path]:
    """plots/noisy.png and .svg, noisy.csv and report.md, from the folder alone."""
    plots = loaded.path / "plots"
    plots.mkdir(exist_ok=True)
    found = disturbances(loaded)
    written = list(_draw(loaded, found, plots))
    data = loaded.path / "noisy.csv"
    columns = ["arm", "block", "quantity", "value", "unit", "status", "text"]
    frame = loaded.frame[columns].copy()
    for key in ("kind", "limits"):
        frame[key] = loaded.frame["detail"].map(lambda detail, key=key: detail.get(key, ""))
    data.write_text(frame.to_csv(index=False), encoding="utf-8")
    page = loaded.path / "report.md"
    page.write_text("\n".join(lines(loaded, found)) + "\n", encoding="utf-8")
    return [*written, data, page]


def lines(loaded: Loaded, found: Sequence[Disturbance]) -> list[str]:
    """The report as Markdown."""
    run = loaded.run
    settings: dict[str, Any] = dict(run.settings)
    bound = settings.get("bound", {})
    said = [
        f"# Noisy neighbours of {run.title or run.scenario}",
        "",
        f"A victim under load, an aggressor beside it on the same backend: {run.started[:16].replace('T', ' ')} UTC. "
        f"Around both, with limits and without, a bound of lab's: "
        f"{format_value(float(bound.get('memory_bytes') or 0), 'bytes')}, {bound.get('cpus', 0):g} CPUs, "
        f"{bound.get('pids', 0)} processes. Slowdown: requests per second in quiet over those beside the neighbour, "
        "with its interval of 95 %.",
        "",
        "![The victim's slowdown beside each neighbour](plots/noisy.png)",
    ]
    for kind in dict.fromkeys(each.kind for each in found):
        said += [
            "",
            f"## {kind}: {MEANINGS.get(kind, kind)}",
            "",
            "| backend | limits | the victim's slowdown | 99th percentile | survived | the aggressor met |",
            "| --- | --- | --- | ---: | ---: | --- |",
        ]
        for each in (one for one in found if one.kind == kind):
            arm = next(arm for arm in loaded.all_arms if arm.label == each.arm)
            latency = "–" if math.isnan(each.latency) else f"{each.latency:.2f} ×"
            said.append(
                f"| {each.arm} ({stamp(arm)}) | {each.limits} | {each.says} | {latency} "
                f"| {each.survived} of {each.times} | {', '.join(each.met) or 'no limit that its cgroup counts'} |"
            )
    worst = max((each.host_delay_seconds for each in found), default=math.nan)
    said += [
        "",
        "## The host meanwhile",
        "",
        "A process outside all bounds slept for 10 ms again and again. At worst, the 99th percentile of how late it "
        f"was woken was {format_value(worst, 'seconds')}.",
        "",
        "## What you may not conclude",
        "",
        "- That a neighbour without limits does no more than this: it was bounded, so that the host stays usable.",
        "- That a limit that was met is what helped: the table says what the aggressor ran into, and the slowdown",
        "  beside it whether that sufficed.",
        "- Anything about other hosts: a disk, a number of processors, a kernel's scheduler make the difference.",
    ]
    if any(arm.accelerator.value == "tcg" for arm in loaded.all_arms):
        said.append(
            "- How much virtual machines lose under KVM: TCG emulated them, which takes processors by itself."
        )
    return said


def _draw(loaded: Loaded, found: Sequence[Disturbance], directory: Path) -> tuple[Path, Path]:
    kinds = list(dict.fromkeys(each.kind for each in found))
    arms = loaded.all_arms
    with style.canvas(14.2, 2.6 + 0.46 * len(kinds) * 2 * len(arms), nrows=1, ncols=1) as (figure, axes):
        places = []
        for number, kind in enumerate(kinds):
            for row, arm in enumerate(arms):
                for side, limits in enumerate(("without limits", "with limits")):
                    place = -(number * (2 * len(arms) + 1) + 2 * row + side)
                    each = next(
                        (one for one in found if (one.kind, one.arm, one.limits) == (kind, arm.label, limits)), None
                    )
                    emulated = " (TCG)" if arm.accelerator is Accelerator.TCG else ""
                    places.append((place, f"{kind}, {arm.label}{emulated} {limits}"))
                    if each is not None:
                        _point(axes, each, place, style.colour(arm), filled=side == 1)
        axes.axvline(1, color=style.INK, linewidth=1)
        axes.set_yticks([place for place, _ in places], [text for _, text in places])
        axes.set_xscale("log")
        style.logarithmic(axes.xaxis, "1")
        axes.set_xlabel("times fewer requests per second than in quiet (logarithmic)")
        style.headline(
            figure,
            f"Noisy neighbours: {loaded.run.title}",
            "1 is no harm; open circles without limits, full ones with; lines are intervals of 95 %",
        )
        return style.save(figure, directory, "noisy")


def _point(axes: Axes, each: Disturbance, place: float, colour: str, *, filled: bool) -> None:
    if math.isnan(each.slowdown):
        return
    value = min(each.slowdown, MOST_SHOWN)
    if not math.isnan(each.low):
        axes.plot([each.low, min(each.high, MOST_SHOWN)], [place, place], color=colour, linewidth=2)
    face = colour if filled else "white"
    marker = ">" if each.slowdown > MOST_SHOWN else "o"
    axes.plot([value], [place], marker, markersize=9, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=2)
