"""The report of a density run: how many copies stood, what each more one cost, what broke first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.analysis.checks.caches import COLD, RESIDENT
from lab.analysis.loaded import Loaded
from lab.analysis.quantities import format_value
from lab.analysis.readiness import boots_until, until_ready
from lab.model import KSM_PASSES, Accelerator
from lab.reports import style
from lab.reports.material import stamp
from lab.reports.page import emulation
from lab.reports.page.article import Article, Section
from lab.reports.page.opening import Opening, warnings_of
from lab.reports.tables import Cell, Row, Table
from lab.studies.density.analyse import Growth, growths
from lab.studies.reporting import ArticleReport

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ENDED = "ended by"
NOT_TO_CONCLUDE = (
    "That so many copies do their work: they stand idle. Under load they would compete for the CPUs long before.",
    "That memory charged and memory gone are one number: shared pages are charged once, to whoever was first, and "
    "the kernel's own structures are partly charged to nobody. The plot shows both.",
    "Anything about limits that were not reached: the table says what ended each backend.",
)
COLD_STARTS = (
    "Before each start every file that lab made for it to read was evicted from the host's page cache, and looked "
    "at. Before a first copy nothing may stay. Before a later one stays what the others have mapped, which is what "
    "copies share: a process maps its program and libraries, a QEMU reads its disks and maps none of them."
)
EMULATED = "How fast virtual machines start: TCG emulated them."


def describe(loaded: Loaded) -> Article:
    """What is on the page."""
    run = loaded.run
    floor = format_value(float(run.settings.get("floor_bytes", 0)), "bytes")
    copies, bursts = _copies(loaded), _bursts(loaded)
    emulated = any(arm.accelerator is Accelerator.TCG for arm in loaded.all_arms)
    sections = [Section(title="Copy after copy", gist="how it grew, and how sure that is", table=copies)]
    if bursts.rows:
        sections.append(Section(title="Started at once", gist="several at the same moment", table=bursts))
    if loaded.run.host_levels["caches"] == COLD:
        sections.append(Section(title="How cold", paragraphs=(COLD_STARTS,), table=_residence(loaded)))
    points = (*emulation.not_to_conclude(run), *NOT_TO_CONCLUDE, *([EMULATED] if emulated else []))
    return Article(
        run=run,
        title=f"How many copies of {run.title or run.scenario} fit",
        lead=f"One backend after the other, each copy until {until_ready(run)}. "
        f"{_merging(loaded)}Floor of free memory: {floor}; {run.started[:16].replace('T', ' ')} UTC.",
        opening=Opening(
            warnings=warnings_of(loaded, by_blocks=False),
            verdict=tuple(_verdict(loaded)),
            table=_glance(copies),
            note=f"{_counted(loaded)} What one more costs is the slope over all copies, where it grows in a way that "
            "is more than scatter.",
        ),
        picture="density",
        alt="Memory and start time against the number of copies. "
        + " ".join(
            f"{row.header}: {row.cells[0].text} copies, {row.cells[2].text} of memory." for row in copies.rows
        ),
        sections=(*sections, Section.of_warnings(points)),
    )


def _counted(loaded: Loaded) -> str:
    charged = loaded.frame[loaded.frame["quantity"] == "density.charged"]
    if any(each.get("summed") for each in charged["detail"]):
        return (
            "Memory is the PSS of all copies' processes: an ordinary user without a control group is not told what "
            "the host's kernel charges, page cache and its own structures included."
        )
    return "Memory is what the host's kernel charges to all copies together."


def _verdict(loaded: Loaded) -> Iterator[str]:
    """A sentence per backend: how many stood, what ended it, what one more takes."""
    stopped: dict[str, Any] = dict(loaded.run.settings.get("stopped_by", {}))
    by = {(each.arm, each.quantity): each for each in growths(loaded)}
    for arm in loaded.all_arms:
        charged, why = by.get((arm.label, "density.charged")), str(stopped.get(arm.label, ""))
        if charged is None:
            yield f"{arm.label}: no copy stood{f' ({why})' if why else ''}."
            continue
        stood = f"{charged.copies} cop{'y' if charged.copies == 1 else 'ies'} stood"
        ended = f"; what ended it was {why}" if why else "; the run was interrupted"
        more = charged.slope or charged.on_average
        takes = f"; one more takes {more} of the host's memory" if more else ""
        yield f"{arm.label}: {stood}{takes}{ended}."


def _glance(copies: Table) -> Table:
    """The table of the first screen: the same without its small print, and without what the sentences say."""

    def kept(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple(Cell(text=cell.text) for column, cell in zip(copies.columns, cells, strict=True)
                     if column.text != ENDED)  # fmt: skip

    rows = tuple(Row(header=row.header, note=row.note, cells=kept(row.cells)) for row in copies.rows)
    return replace(copies, caption="At a glance", columns=kept(copies.columns), rows=rows)


def _merging(loaded: Loaded) -> str:
    """What is to know about KSM, where the run had it."""
    if loaded.run.settings.get("host", {}).get("ksm") != "on":
        return ""
    charged = loaded.frame[loaded.frame["quantity"] == "density.charged"]
    passes = [int(each["ksm_passes"]) for each in charged["detail"] if "ksm_passes" in each]
    late = sum(number < KSM_PASSES for number in passes)
    but = f", but for {late} of {len(passes)} that would have taken too long" if late else ""
    return (
        "KSM kept equal pages of the copies once; after each start memory was looked at when it had passed over all "
        f"of them twice{but}. "
    )


def _copies(loaded: Loaded) -> Table:
    stopped: dict[str, Any] = dict(loaded.run.settings.get("stopped_by", {}))
    by = {(each.arm, each.quantity): each for each in growths(loaded)}
    rows = []
    for arm in loaded.all_arms:
        charged, start = by.get((arm.label, "density.charged")), by.get((arm.label, "density.start"))
        texts: tuple[tuple[str, str], ...]
        if charged is None or start is None:
            texts = (("0", ""), (stopped.get(arm.label, "not measured"), ""), ("–", ""), ("–", ""), ("–", ""))
        else:
            first, last = format_value(start.first, "seconds"), format_value(start.last, "seconds")
            texts = (
                (str(charged.copies), ""),
                (stopped.get(arm.label, "interrupted"), ""),
                (format_value(charged.last, "bytes"), ""),
                (charged.slope or charged.on_average, _more(charged)),
                (f"{first} to {last}", f"{start.slope} a copy; {_more(start)}" if start.slope else start.flat),
            )
        cells = tuple(Cell(text=text, note=note) for text, note in texts)
        rows.append(Row(header=arm.label, note=stamp(arm), cells=cells))
    columns = ("copies", ENDED, "memory of all", "the next copy costs", "the n-th start")
    return Table(
        caption="How many stood, what ended it, and what one more cost",
        corner="backend",
        columns=tuple(Cell(text=text) for text in columns),
        rows=tuple(rows),
    )


def _more(growth: Growth) -> str:
    return f"{growth.interval}; {growth.shape}" if growth.interval else growth.shape


def _bursts(loaded: Loaded) -> Table:
    bursts = loaded.frame[loaded.frame["quantity"] == "density.burst"]
    rows = []
    for row in bursts[["arm", "block", "value", "text"]].to_dict("records"):
        texts = [str(row["block"]), f"failed: {row['text']}", "–"]
        if not row["text"]:
            texts[1:] = (format_value(float(row["value"]) / part, "seconds") for part in (1, int(row["block"])))
        rows.append(Row(header=str(row["arm"]), cells=tuple(Cell(text=text) for text in texts)))
    return Table(
        caption="Copies started at once, until the last has answered",
        corner="backend",
        columns=tuple(Cell(text=text) for text in ("at once", "until the last has answered", "per copy")),
        rows=tuple(rows),
    )


def _residence(loaded: Loaded) -> Table:
    """What was in memory before the first and the last start of a stack, and what each then fetched."""
    rows = []
    for arm in loaded.all_arms:
        found = loaded.frame[(loaded.frame["arm"] == arm.label) & loaded.frame["value"].notna()]
        resident, read = (
            found[found["quantity"] == quantity].sort_values("block") for quantity in (RESIDENT, "density.read")
        )
        if not len(resident):
            continue
        cells = [Cell(text=format_value(float(resident["detail"].iloc[-1]["data_bytes"]), "bytes"))]
        for place in (0, -1):
            fetched = format_value(float(read["value"].iloc[place]), "bytes") + " fetched" if len(read) else ""
            stayed = format_value(float(resident["value"].iloc[place]), "bytes")
            cells.append(Cell(text=stayed, note=f"before copy {resident['block'].iloc[place]}; then {fetched}"))
        rows.append(Row(header=arm.label, note=stamp(arm), cells=tuple(cells)))
    columns = ("files to read", "in memory before the first", "in memory before the last")
    return Table(
        caption="What could not be evicted, and what was fetched from disks until it was ready", corner="backend",
        columns=tuple(Cell(text=text) for text in columns), rows=tuple(rows),
    )  # fmt: skip


def _draw(loaded: Loaded, directory: Path) -> tuple[Path, Path]:
    from matplotlib.ticker import MaxNLocator

    with style.canvas(14.2, 9.6, nrows=2, ncols=1, sharex=True) as (figure, (memory, start)):
        shown = (
            (memory, "density.charged", "-"),
            (memory, "density.available_change", ":"),
            (start, "density.start", "-"),
        )
        for above, arm in enumerate(reversed(loaded.all_arms)):
            for axes, quantity, dashes in shown:  # the later ones on top, so narrower: equal lines stay visible
                width = 2.0 + (1.6 * above if quantity == "density.charged" else 0.0)
                _line(axes, loaded, arm.label, quantity, dashes, style.colour(arm), width)
        for arm in loaded.all_arms:
            start.plot([], [], color=style.colour(arm), linewidth=3, label=f"{arm.label} ({stamp(arm)})")
        for axes, unit, title in (
            (memory, "bytes", "memory of all copies: solid as charged, dotted as the host lost it"),
            (start, "seconds", f"time until {boots_until(loaded.run)}, of the n-th copy (logarithmic)"),
        ):
            axes.set_title(title)
            style.ticks(axes.yaxis, unit)
            axes.grid(True, axis="y")
        start.set_yscale("log")
        style.logarithmic(start.yaxis, "seconds")
        start.set_xlabel("copies that stand")
        start.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.legend(loc="outside lower left", ncols=4)
        memory.set_ylim(bottom=0)
        title = f"How many copies fit: {loaded.run.title}"
        style.headline(figure, title, f"one after the other, each until {until_ready(loaded.run)}")
        return style.save(figure, directory, "density")


def _line(axes: Axes, loaded: Loaded, arm: str, quantity: str, dashes: str, colour: str, width: float) -> None:
    frame = loaded.frame
    rows = frame[(frame["arm"] == arm) & (frame["quantity"] == quantity) & frame["value"].notna()]
    rows = rows.sort_values("block")
    axes.plot(rows["block"], rows["value"], dashes, color=colour, linewidth=width, zorder=3 - width / 10)


class DensityReport(ArticleReport):
    """How many copies stood, what each more one cost, what broke first."""

    picture = "density"

    def describe(self, loaded: Loaded) -> Article:
        return describe(loaded)

    def draw(self, loaded: Loaded, directory: Path) -> tuple[Path, Path]:
        return _draw(loaded, directory)

    def data(self, loaded: Loaded) -> pd.DataFrame:
        columns = ["arm", "block", "quantity", "value", "unit", "status", "text"]
        return loaded.frame[columns].rename(columns={"block": "copies"})

    def said(self, loaded: Loaded) -> dict[str, Any]:
        bursts = loaded.frame[loaded.frame["quantity"] == "density.burst"]
        return {
            "stopped_by": loaded.run.settings.get("stopped_by", {}),
            "growth": [asdict(each) | {"claim": each.trend} for each in growths(loaded)],
            "bursts": [
                {"arm": row["arm"], "copies": row["block"], "seconds": row["value"], "failure": row["text"]}
                for row in bursts[["arm", "block", "value", "text"]].to_dict("records")
            ],
        }


REPORT = DensityReport()
