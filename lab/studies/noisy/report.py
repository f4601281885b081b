"""The report of a noisy neighbour: what each disturbance did to the victim, beside which boundary, and what held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.analysis.loaded import Loaded
from lab.analysis.quantities import format_value
from lab.model import Accelerator
from lab.reports import style
from lab.reports.material import stamp
from lab.reports.page import emulation
from lab.reports.page.article import Article, Section
from lab.reports.page.opening import Opening, warnings_of
from lab.reports.tables import VERDICTS, Cell, Row, Table
from lab.studies.noisy.analyse import Disturbance, disturbances, fallen, quiets
from lab.studies.reporting import ArticleReport, judged

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MEANINGS = {
    "cpu": "spins in twice as many processes as there are processors",
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
NOT_TO_CONCLUDE = (
    "That a neighbour without limits does no more than this: it was bounded, so that the host stays usable.",
    "That a limit that was met is what helped: the table says what the aggressor ran into, and the slowdown beside "
    "it whether that sufficed.",
    "Anything about other hosts: a disk, a number of processors, a kernel's scheduler make the difference.",
)
OF_MACHINES = (
    "Without limits it has as many virtual processors as the host has processors, with limits as many as the CPU "
    "limit, rounded up. Its memory is the same in both, and it is its own kernel that limits processes: what it runs "
    "into, no cgroup of the host's counts. User-mode Linux has one processor in both, and its CPU limit is a quota."
)
EMULATED = "How much virtual machines lose under KVM: TCG emulated them, which takes processors by itself."
MOST_SHOWN = 100.0
"""A slowdown beyond that, or no answer, ends at the edge of the figure."""


def describe(loaded: Loaded, found: Sequence[Disturbance]) -> Article:
    """What is on the page."""
    run = loaded.run
    bound: dict[str, Any] = dict(run.settings.get("bound", {}))
    memory = format_value(float(bound.get("memory_bytes") or 0), "bytes")
    kinds = tuple(dict.fromkeys(each.kind for each in found))
    worst = max((each.host_delay_seconds for each in found), default=math.nan)
    emulated = any(arm.accelerator is Accelerator.TCG for arm in loaded.all_arms)
    sections = [Section(title=kind, gist=MEANINGS.get(kind, ""), table=_table(loaded, kind, found)) for kind in kinds]
    return Article(
        run=run,
        title=f"Noisy neighbours of {run.title or run.scenario}",
        lead=f"A victim under load, an aggressor beside it on the same backend: {run.started[:16].replace('T', ' ')} "
        f"UTC. Around both, with limits and without, a bound of lab's: {memory}, {bound.get('cpus', 0):g} CPUs, "
        f"{bound.get('pids', 0)} processes{_engines(run.settings)}. Slowdown: requests per second in quiet over "
        "those beside the neighbour, with its interval of 95 %.",
        opening=Opening(
            warnings=warnings_of(loaded, by_blocks=True),
            verdict=tuple(_verdict(loaded, found)),
            table=_glance(loaded, kinds, found),
            note="Times fewer requests per second than beside a neighbour that does nothing; “≠”: a difference is "
            "proven, “≈”: the same within 5 % is, no mark: neither.",
        ),
        picture="noisy",
        alt="The victim's slowdown beside each neighbour. "
        + " ".join(f"{each.kind}, {each.arm} {each.limits}: {each.says}." for each in found),
        sections=(
            Section(title="quiet", gist="what the slowdowns are relative to", table=_alone(loaded)),
            *sections,
            *_about_machines(loaded),
            *(Section(title="What did not stand", points=tuple(fell)) for fell in [fallen(loaded)] if fell),
            Section(
                title="The host meanwhile",
                paragraphs=(
                    "A process outside all bounds slept for 10 ms again and again. At worst, the 99th percentile of "
                    f"how late it was woken was {format_value(worst, 'seconds')}.",
                ),
            ),
            Section.of_warnings(
                (*emulation.not_to_conclude(run), *NOT_TO_CONCLUDE, *([EMULATED] if emulated else []))
            ),
        ),
    )


def _engines(settings: Mapping[str, Any]) -> str:
    """Who lives within the bound beside victim and aggressor."""
    names = list(settings.get("engines", ()))
    return f", with the own programs of {' and '.join(names)} within it" if names else ""


def _verdict(loaded: Loaded, found: Sequence[Disturbance]) -> Iterator[str]:
    """A sentence per backend: the worst neighbour in each condition, as far as harm is proven, and what killed it."""
    for arm in loaded.all_arms:
        parts = [
            f"{limits} {_worst(these)}"
            for limits in dict.fromkeys(each.limits for each in found)
            if (
                these := [
                    each for each in found if (each.arm, each.limits) == (arm.label, limits) and not each.undone
                ]
            )
        ]
        if parts:
            emulated = " (emulated)" if arm.nested or arm.accelerator is Accelerator.TCG else ""
            yield f"A victim on {arm.label}{emulated}: {'; '.join(parts)}."


def _worst(found: Sequence[Disturbance]) -> str:
    silenced = [each.kind for each in found if math.isinf(each.slowdown)]
    slowed = [each for each in found if each.judged and each.judged.claim and 1 < each.slowdown < math.inf]
    died = [each.kind for each in found if each.times and each.survived < each.times and each.kind not in silenced]
    said = []
    if silenced:
        said.append(f"it answers nothing beside {_quoted(silenced)}")
    elif slowed:
        worst = max(slowed, key=lambda each: each.slowdown)
        said.append(f"“{worst.kind}” is the worst neighbour, beside which it answers {worst.factor} slower")
    else:
        said.append("no neighbour is proven to slow it")
    if died:
        said.append(f"it did not always survive {_quoted(died)}")
    return ", and ".join(said)


def _quoted(kinds: Sequence[str]) -> str:
    return " and ".join(f"“{kind}”" for kind in kinds)


def _glance(loaded: Loaded, kinds: Sequence[str], found: Sequence[Disturbance]) -> Table:
    """A row per kind of neighbour, a column per backend: the first condition large, the other below it."""
    conditions = list(dict.fromkeys(each.limits for each in found))
    by = {(each.kind, each.arm, each.limits): each for each in found}
    arms = [arm for arm in loaded.all_arms if any(each.arm == arm.label for each in found)]

    def cell(kind: str, arm: str) -> Cell:
        marks = [_mark(by.get((kind, arm, limits))) for limits in conditions]
        return Cell(text=marks[0], note="; ".join(marks[1:]))

    rows = [Row(header=kind, cells=tuple(cell(kind, arm.label) for arm in arms)) for kind in kinds]
    columns = tuple(Cell(text=arm.label, note="; below: ".join(conditions)) for arm in arms)
    return Table(caption="The victim's slowdown", corner="neighbour", columns=columns, rows=tuple(rows))


def _mark(each: Disturbance | None) -> str:
    if each is None:
        return "–"
    if math.isinf(each.slowdown) and not each.undone:
        return "no answer"
    return (
        f"{each.factor} {VERDICTS[each.judged.verdict]}".rstrip() if each.judged and not each.undone else each.factor
    )


def _about_machines(loaded: Loaded) -> tuple[Section, ...]:
    if not any(detail.get("machine") for detail in loaded.frame["detail"]):
        return ()
    return (Section(title="A machine's limits are its size", paragraphs=(OF_MACHINES,)),)


def _table(loaded: Loaded, kind: str, found: Sequence[Disturbance]) -> Table:
    arms = {arm.label: arm for arm in loaded.all_arms}
    rows = []
    for each in (one for one in found if one.kind == kind):
        latency = "–" if math.isnan(each.latency) else f"{each.latency:.2f} ×"
        survived = f"{each.survived} of {each.times}" if each.times else "–"
        met = each.undone or ", ".join(each.met) or "no limit that its cgroup counts"
        cells = (
            Cell(text=each.limits),
            Cell(text=each.factor, note=each.sure),
            Cell(text=latency),
            Cell(text=survived),
            Cell(text="", note=met),
        )
        rows.append(Row(header=each.arm, note=stamp(arms[each.arm]), cells=cells))
    columns = ("limits", "the victim's slowdown", "99th percentile", "survived", "the aggressor met")
    return Table(
        caption=f"Beside a neighbour that {MEANINGS.get(kind, kind)}",
        corner="backend",
        columns=tuple(Cell(text=text) for text in columns),
        rows=tuple(rows),
    )


def _alone(loaded: Loaded) -> Table:
    arms = {arm.label: arm for arm in loaded.all_arms}
    rows = tuple(
        Row(
            header=each.arm,
            note=stamp(arms[each.arm]),
            cells=(
                Cell(text=each.limits),
                Cell(text=format_value(each.rate, "1")),
                Cell(text=format_value(each.latency_seconds, "seconds")),
            ),
        )
        for each in quiets(loaded)
    )
    columns = ("limits", "requests per second", "99th percentile")
    return Table(
        caption="Beside a neighbour that does nothing: medians over blocks", corner="backend",
        columns=tuple(Cell(text=text) for text in columns), rows=rows,
    )  # fmt: skip


def _draw(loaded: Loaded, found: Sequence[Disturbance], directory: Path) -> tuple[Path, Path]:
    kinds = list(dict.fromkeys(each.kind for each in found))
    arms = loaded.all_arms
    with style.canvas(14.2, 2.6 + 0.38 * len(kinds) * 2 * len(arms), nrows=1, ncols=1) as (figure, axes):
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
                    if each is not None and each.undone:
                        axes.text(1, place, "  not disturbed", va="center", fontsize=11.5, color=style.QUIET)
                    elif each is not None:
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


class NoisyReport(ArticleReport):
    """What each neighbour did to the victim, beside which boundary, and what held."""

    picture = "noisy"

    def describe(self, loaded: Loaded) -> Article:
        return describe(loaded, disturbances(loaded))

    def draw(self, loaded: Loaded, directory: Path) -> tuple[Path, Path]:
        return _draw(loaded, disturbances(loaded), directory)

    def data(self, loaded: Loaded) -> pd.DataFrame:
        frame = loaded.frame[["arm", "block", "quantity", "value", "unit", "status", "text"]].copy()
        for key in ("kind", "limits"):
            frame[key] = loaded.frame["detail"].map(lambda detail, key=key: detail.get(key, ""))
        return frame

    def said(self, loaded: Loaded) -> dict[str, Any]:
        return {
            "quiet": [asdict(each) for each in quiets(loaded)],
            "disturbances": [judged(each, "judged") for each in disturbances(loaded)],
            "fallen": fallen(loaded),
        }


REPORT = NoisyReport()
