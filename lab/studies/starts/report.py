"""The page about many starts: the median beside the slowest, each start in the picture, and many at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.analysis.loaded import Loaded
from lab.analysis.quantities import format_interval, format_value
from lab.analysis.readiness import boots_until, until_ready
from lab.model import Accelerator
from lab.reports import style
from lab.reports.material import stamp
from lab.reports.page import emulation
from lab.reports.page.anchors import published
from lab.reports.page.article import Article, Section
from lab.reports.page.opening import Opening, warnings_of
from lab.reports.tables import Cell, Row, Table
from lab.studies.reporting import ArticleReport
from lab.studies.starts.analyse import (
    ANSWER,
    BEYOND,
    COMMAND,
    CROWD,
    FORKED,
    FORKS,
    HANDED,
    MAPPED,
    PAUSE,
    RESUME,
    SHARES,
    STAGGER,
    START,
    STOP,
    Memory,
    Percentile,
    Taken,
    enough,
    had_to_wait,
    memory,
    taken,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NAMES = {
    START: "a start",
    ANSWER: "an answer of a copy that runs",
    COMMAND: "a command in a copy that runs",
    PAUSE: "to let it stand still",
    RESUME: "from going on to the next answer",
    STOP: "a stop",
    HANDED: "out of the stock",
}
HOW = {
    CROWD: "at once",
    STAGGER: "one each {every}",
    FORKED: "restored at once",
    MAPPED: "restored at once, memory mapped",
}
SHARE_NAMES = {0.5: "median", 0.95: "p95", 0.99: "p99"}
NOT_TO_CONCLUDE = (
    "That an interval of 95 % holds where the host became slower meanwhile, as the picture would show: order "
    "statistics assume nothing about how the times are distributed, but that no start depends on another.",
    "That another hundred would have the same slowest: that is one value. The percentiles have intervals.",
    "What happens under load: nothing but these starts went on, and the copies that stood did nothing.",
    "That a start which failed is as quick as the others: it counts as slower than all that succeeded.",
    "Anything from one backend's crowd beside another's one by one: their clocks are the same, their hosts were not "
    "equally busy.",
)
PAUSED = (
    "A copy that stands still and keeps its memory: a container by its cgroup's freezer (of Docker's its Engine is "
    "asked), a virtual machine by its vCPUs"
)
REQUESTED = "Copies requested together, each from its own request until it was ready"
RESTORED = "Copies restored together, each from its own request until it was ready"
STOCKED = (
    "From a request until the first correct answer: started for it, and out of a stock of {size} that stood ready, "
    "each replaced by a new one as soon as it was taken"
)
RESTORES = (
    "All go on from one copy that was booted, served and was saved. Each gives its first correct answer after a "
    "request of its own, as one that boots does."
)
READ = (
    "One that is restored, and maps no memory, reads what was saved into memory of its own: such copies share what "
    "they map of programs and files, and nothing of what was saved."
)
MAPS = (
    "One whose memory is mapped has the saved one's until it writes: a page is then copied, and private. A page that "
    "one copy alone has touched counts as private, though no other copy would need another."
)
HOLDS = (
    "What each copy held once all of them stood: medians over the copies, all its processes on the host together, a "
    "VMM included. Shared is what any other mapping has as well, on this host and not of these copies alone. “Saved” "
    "is the memory that they map, which the host holds once, whether they do or not; what they have touched of it, "
    "and not changed, is in their figures too"
)
THEIRS = "Read the conditions before the figures: none of these measures quite what the starts of this run do."
LATER = "after {seconds:g} s more"
EMULATED = "How fast virtual machines start: TCG emulated them."


class StartsReport(ArticleReport):
    """What the usual start takes, what the slowest take, and what many at once take."""

    picture = "starts"

    def describe(self, loaded: Loaded) -> Article:
        run = loaded.run
        found = taken(loaded)
        emulated = any(arm.accelerator is Accelerator.TCG for arm in loaded.all_arms)
        points = (*emulation.not_to_conclude(run), *NOT_TO_CONCLUDE, *([EMULATED] if emulated else []))
        first = [round(BEYOND / (1 - share)) for share in SHARES[1:]]
        return Article(
            run=run,
            title=f"Many starts of {run.title or run.scenario}",
            lead=f"In each round every backend once, in random order, until {until_ready(run)}; "
            f"{run.started[:16].replace('T', ' ')} UTC.",
            opening=Opening(
                warnings=warnings_of(loaded, by_blocks=False),
                verdict=tuple(_verdict(loaded, found)),
                table=_table(loaded, found, (START,), "At a glance"),
                note="p95 is the time that 95 of 100 starts do not exceed. It is told from "
                f"{first[0]} starts on, p99 from {first[1]}. Below each is its interval of 95 %.",
            ),
            picture=self.picture,
            alt=f"Share of all starts against the time until {boots_until(run)}, a curve per backend.",
            sections=(
                *_sections(loaded, found),
                Section.of_warnings(points),
            ),
        )

    def draw(self, loaded: Loaded, directory: Path) -> tuple[Path, Path]:
        from matplotlib.ticker import MaxNLocator

        frame, holds = loaded.frame, memory(loaded)
        panels, height = (3, 9.6 + 1.2 + 0.65 * len(holds)) if holds else (2, 9.6)
        ratios = [4.8, 4.8, *([0.6 + 0.65 * len(holds)] if holds else [])]
        with style.canvas(14.2, height, nrows=panels, ncols=1, height_ratios=ratios) as (
            figure,
            (shares, order, *more),
        ):
            for arm in loaded.all_arms:
                rows = frame[(frame["arm"] == arm.label) & (frame["quantity"] == START) & (frame["block"] > 0)]
                if rows.empty:
                    continue
                rows = rows.sort_values("block")
                seen, colour = rows.dropna(subset="value"), style.colour(arm)
                _steps(shares, seen["value"].sort_values().tolist(), len(rows), colour, f"{arm.label} ({stamp(arm)})")
                order.plot(seen["block"], seen["value"], "o", color=colour, markersize=5, alpha=0.7)
            for share in SHARES:
                shares.axhline(share, color="0.6", linewidth=0.8, linestyle=":")
            for share in SHARES[:-1]:  # the last one's name would lie over the one before
                place = (0.002, share)
                shares.annotate(SHARE_NAMES[share], place, xycoords=("axes fraction", "data"), va="top")
            shares.set_title("share of the starts that took no longer")
            shares.set_xscale("log")
            style.logarithmic(shares.xaxis, "seconds")
            shares.set_ylim(0, 1.02)
            order.set_title("each start, in the order of the rounds")
            order.set_yscale("log")
            style.logarithmic(order.yaxis, "seconds")
            order.set_xlabel("round")
            order.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            for axes in (shares, order):
                axes.grid(True, axis="both")
            for axes in more:
                _bars(axes, loaded, holds)
            figure.legend(loc="outside lower left", ncols=4)
            title = f"Many starts: {loaded.run.title}"
            style.headline(figure, title, f"time from the request until {boots_until(loaded.run)} (logarithmic)")
            return style.save(figure, directory, self.picture)

    def data(self, loaded: Loaded) -> pd.DataFrame:
        columns = ["arm", "block", "position", "quantity", "value", "unit", "status", "text"]
        return loaded.frame.loc[loaded.frame["metric"] == "starts", columns].rename(
            columns={"block": "round_or_copies"}
        )

    def said(self, loaded: Loaded) -> dict[str, Any]:
        return {
            "starts": [asdict(each) for each in taken(loaded)],
            "memory": [asdict(each) for each in memory(loaded)],
        }


def _bars(axes: Axes, loaded: Loaded, holds: list[Memory]) -> None:
    """What a copy of each crowd holds: private and shared once all stand, and a mark for private a while later."""
    arms = {arm.label: arm for arm in loaded.all_arms}
    every = f"{loaded.run.settings.get('every_seconds', 0):g} s"
    for place, each in enumerate(holds):
        colour = style.colour(arms[each.arm])
        axes.barh(place, each.private, color=colour, height=0.4)
        axes.barh(place, each.shared, left=each.private, color=colour, alpha=0.3, height=0.4)
        if not math.isnan(each.private_later):
            axes.plot([each.private_later] * 2, [place - 0.25, place + 0.25], color="0.2", linewidth=2.5)
        name = f"{each.arm}, {each.copies} {HOW[each.quantity].format(every=every)}"
        axes.annotate(name, (0, place - 0.24), xytext=(3, 0), textcoords="offset points", va="bottom", fontsize=13)
    axes.set_yticks([])
    axes.set_ylim(len(holds) - 0.6, -0.75)
    axes.set_xlim(left=0)
    axes.grid(True, axis="x")
    later = any(not math.isnan(each.private_later) for each in holds)
    seconds = loaded.run.settings.get("settle_seconds", 0)
    line = f"; line: private, {seconds:g} s later" if later else ""
    axes.set_title(f"memory of one copy: private (solid), shared (light){line}")
    style.ticks(axes.xaxis, "bytes")


def _steps(axes: Axes, values: list[float], n: int, colour: str, label: str) -> None:
    """The empirical distribution. What failed never arrives: its curve stays below 1."""
    heights = [(place + 1) / n for place in range(len(values))]
    axes.step(values, heights, where="post", color=colour, linewidth=2.5, label=label)


def _verdict(loaded: Loaded, found: list[Taken]) -> Iterator[str]:
    """A sentence per backend: the usual start, and the slowest that can be told."""
    starts = {each.arm: each for each in found if each.quantity == START}
    for arm in loaded.all_arms:
        each = starts.get(arm.label)
        if each is None:
            yield f"{arm.label}: nothing was started."
            continue
        failed = f" {each.failed} of {each.n + each.failed} failed." if each.failed else ""
        told = [mine for mine in each.percentiles if not math.isnan(mine.value)]
        if not told:
            many = f"{each.n} start{'' if each.n == 1 else 's'}, too few to tell even a median"
            yield f"{arm.label}: {many}.{failed}"
            continue
        usual = format_value(told[0].value, "seconds")
        worst = told[-1]
        beyond = round(1 / (1 - worst.share))
        slow = f"; one of {beyond} took {format_value(worst.value, 'seconds')} or more" if len(told) > 1 else ""
        yield f"{arm.label}: the usual start takes {usual}{slow}.{failed}"


def _percentile(found: Percentile, n: int) -> Cell:
    if math.isnan(found.value):
        return Cell(text="–", note="is one that failed" if enough(n, found.share) else "too few")
    low, high = found.low, found.high
    between = (
        format_interval(low, high, "seconds") if not math.isnan(high) else f"at least {format_value(low, 'seconds')}"
    )
    return Cell(text=format_value(found.value, "seconds"), note=between)


def _cells(each: Taken) -> tuple[Cell, ...]:
    failed = Cell(text=str(each.n), note=f"and {each.failed} failed" if each.failed else "")
    slowest = Cell(text=format_value(each.slowest, "seconds"))
    return (failed, *(_percentile(found, each.n + each.failed) for found in each.percentiles), slowest)


def _sections(loaded: Loaded, found: list[Taken]) -> Iterator[Section]:
    """What comes behind the first screen, whose table is on the terminal here."""
    starts = _table(loaded, found, (START,), f"From the request until {boots_until(loaded.run)}")
    yield Section(title="Start after start", gist="and what so many starts can tell", table=starts)
    if any(each.quantity in (ANSWER, COMMAND) for each in found):
        caption = "A copy that was started before: what is left to wait for when it is handed out"
        table = _table(loaded, found, (ANSWER, COMMAND), caption, "asked for")
        yield Section(title="After the start", gist="what a copy that runs takes", table=table)
    if any(each.quantity in (PAUSE, RESUME) for each in found):
        table = _table(loaded, found, (PAUSE, RESUME), PAUSED, "asked for")
        yield Section(title="Paused", gist="what a copy takes that stands ready and uses no processor", table=table)
    if any(each.quantity == STOP for each in found):
        table = _table(loaded, found, (STOP,), "From the stop until nothing of the copy is left")
        yield Section(title="The stop", gist="until nothing is left", table=table)
    if any(each.quantity == HANDED for each in found):
        yield Section(
            title="Out of a stock",
            gist="what a copy takes that was started before",
            paragraphs=tuple(_emptied(loaded)),
            table=_table(loaded, found, (START, HANDED), STOCKED.format(size=loaded.run.settings["stock"]), "copy"),
        )
    if crowds := [each for each in found if each.quantity in (CROWD, STAGGER)]:
        yield Section(title="Many at once", gist="how the host shares itself out", table=_crowds(loaded, crowds))
    left_out = loaded.run.settings.get("not_forked", {})
    forks = [each for each in found if each.quantity in FORKS]
    if forks or left_out:
        yield Section(
            title="Restored at once",
            gist="copies of one that was saved",
            paragraphs=(*_restores(forks), *(f"Not {arm}: {why}." for arm, why in left_out.items())),
            table=_crowds(loaded, forks, RESTORED) if forks else None,
        )
    if holds := memory(loaded):
        yield Section(title="What they hold", gist="memory of copies that stand", table=_memory(loaded, holds))
    theirs = [*published("boot", {arm.backend for arm in loaded.all_arms}), *(published("forks") if forks else ())]
    if theirs:
        yield Section(
            title="What others measured",
            gist="and under which conditions",
            paragraphs=(THEIRS,),
            points=tuple(
                f"{each.system}: {each.says} – {each.measures}. {each.conditions}. {each.source} ({each.basis})."
                for each in theirs
            ),
        )


def _restores(forks: list[Taken]) -> Iterator[str]:
    quantities = {each.quantity for each in forks}
    if forks:
        yield " ".join(
            (RESTORES, *([READ] if FORKED in quantities else []), *([MAPS] if MAPPED in quantities else []))
        )


def _table(loaded: Loaded, found: list[Taken], quantities: tuple[str, ...], caption: str, what: str = "") -> Table:
    """Percentiles of some quantities, a row per backend; with ``what`` a column says which one it is."""
    rows = [each for each in found if each.quantity in quantities]
    stamps = {arm.label: stamp(arm) for arm in loaded.all_arms}
    columns = ([what] if what else []) + ["succeeded", *SHARE_NAMES.values(), "slowest"]
    return Table(
        caption=caption,
        corner="backend",
        columns=tuple(Cell(text=text) for text in columns),
        rows=tuple(
            Row(
                header=each.arm,
                note=stamps[each.arm],
                cells=((Cell(text=NAMES[each.quantity]),) if what else ()) + _cells(each),
            )
            for each in rows
        ),
    )


def _emptied(loaded: Loaded) -> Iterator[str]:
    """Of whose stock nothing was left at times."""
    for arm in loaded.all_arms:
        if waited := had_to_wait(loaded, arm.label):
            yield f"{arm.label}: {waited} of the requests found no copy that stood ready, and waited for the next."


def _memory(loaded: Loaded, holds: list[Memory]) -> Table:
    stamps = {arm.label: stamp(arm) for arm in loaded.all_arms}
    every = f"{loaded.run.settings.get('every_seconds', 0):g} s"
    rows = []
    for each in holds:
        pairs = (
            (each.pss, each.pss_later), (each.shared, each.shared_later), (each.private, each.private_later),
            (each.saved, each.saved_later),
        )  # fmt: skip
        cells = [Cell(text=f"{each.copies}, {HOW[each.quantity].format(every=every)}")]
        cells += [_held(now, later, loaded.run.settings.get("settle_seconds", 0)) for now, later in pairs]
        rows.append(Row(header=each.arm, note=stamps[each.arm], cells=tuple(cells)))
    heads = ("copies", "PSS", "shared", "private", "saved")
    return Table(caption=HOLDS, corner="backend", columns=tuple(Cell(text=text) for text in heads), rows=tuple(rows))


def _held(now: float, later: float, seconds: float) -> Cell:
    if math.isnan(now):
        return Cell(text="–")
    after = f"{format_value(later, 'bytes')} {LATER.format(seconds=seconds)}" if not math.isnan(later) else ""
    return Cell(text=format_value(now, "bytes"), note=after)


def _crowds(loaded: Loaded, rows: list[Taken], caption: str = REQUESTED) -> Table:
    """Of copies together the quickest, the middle one and the last are told: they are no sample of anything."""
    stamps = {arm.label: stamp(arm) for arm in loaded.all_arms}
    told = []
    for each in rows:
        seen = loaded.frame[
            (loaded.frame["arm"] == each.arm)
            & (loaded.frame["quantity"] == each.quantity)
            & (loaded.frame["block"] == each.copies)
        ]["value"].dropna()
        every = f"{loaded.run.settings.get('every_seconds', 0):g} s"
        how = HOW[each.quantity].format(every=every)
        shown = [seen.min(), seen.median(), math.nan if each.failed else seen.max()]
        cells = [Cell(text=f"{each.copies}, {how}", note=f"{each.failed} failed" if each.failed else "")]
        cells += [Cell(text=format_value(float(value), "seconds")) for value in shown]
        told.append(Row(header=each.arm, note=stamps[each.arm], cells=tuple(cells)))
    return Table(
        caption=caption,
        corner="backend",
        columns=tuple(Cell(text=text) for text in ("copies", "the quickest", "the middle one", "the last")),
        rows=tuple(told),
    )


REPORT = StartsReport()
