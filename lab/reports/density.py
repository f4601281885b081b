"""The report of a density run: how many copies stood, what each more one cost, what broke first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.analysis.data import Loaded
from lab.analysis.density import Growth, growths
from lab.analysis.quantities import format_value
from lab.reports import style
from lab.reports.material import stamp

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KIND = "density"
TITLES = {
    "density.charged": "memory of all copies, as charged to their cgroups",
    "density.available_change": "memory that the host has less",
    "density.start": "time to the first answer of the n-th copy",
    "density.pss": "PSS of the newest copy",
}
UNITS = {"density.charged": "bytes", "density.available_change": "bytes", "density.start": "seconds"}


def is_density(settings: object) -> bool:
    """Whether a run's settings are those of a density run."""
    return isinstance(settings, dict) and settings.get("kind") == KIND


def write(loaded: Loaded) -> list[Path]:
    """plots/density.png and .svg, density.csv and report.md, from the folder alone."""
    plots = loaded.path / "plots"
    plots.mkdir(exist_ok=True)
    found = growths(loaded)
    written = list(_draw(loaded, plots))
    data = loaded.path / "density.csv"
    columns = ["arm", "block", "quantity", "value", "unit", "status", "text"]
    data.write_text(loaded.frame[columns].rename(columns={"block": "copies"}).to_csv(index=False), encoding="utf-8")
    page = loaded.path / "report.md"
    page.write_text("\n".join(lines(loaded, found)) + "\n", encoding="utf-8")
    return [*written, data, page]


def lines(loaded: Loaded, found: Sequence[Growth]) -> list[str]:
    """The report as Markdown."""
    run = loaded.run
    settings: dict[str, Any] = dict(run.settings)
    stopped = settings.get("stopped_by", {})
    said = [
        f"# How many copies of {run.title or run.scenario} fit",
        "",
        f"One backend after the other, each copy until its first correct answer. Floor of free memory: "
        f"{format_value(float(settings.get('floor_bytes', 0)), 'bytes')}; {run.started[:16].replace('T', ' ')} UTC.",
        "",
        "![Memory and start time against the number of copies](plots/density.png)",
        "",
        "| backend | copies | ended by | memory of all | the next copy costs | the n-th start |",
        "| --- | ---: | --- | ---: | --- | --- |",
    ]
    by = {(each.arm, each.quantity): each for each in found}
    for arm in loaded.all_arms:
        charged, start = by.get((arm.label, "density.charged")), by.get((arm.label, "density.start"))
        if charged is None or start is None:
            said.append(f"| {arm.label} ({stamp(arm)}) | 0 | {stopped.get(arm.label, 'not measured')} | – | – | – |")
            continue
        said.append(
            f"| {arm.label} ({stamp(arm)}) | {charged.copies} | {stopped.get(arm.label, 'interrupted')} "
            f"| {format_value(charged.last, 'bytes')} | {charged} | {format_value(start.first, 'seconds')} first, "
            f"{format_value(start.last, 'seconds')} last; {start} |"
        )
    bursts = loaded.frame[loaded.frame["quantity"] == "density.burst"]
    if len(bursts):
        said += ["", "## Started at once", "", "| backend | at once | until the last has answered | per copy |"]
        said.append("| --- | ---: | ---: | ---: |")
        for row in bursts[["arm", "block", "value", "text"]].to_dict("records"):
            if row["text"]:
                said.append(f"| {row['arm']} | {row['block']} | failed: {row['text']} | – |")
                continue
            whole, each = (format_value(float(row["value"]) / part, "seconds") for part in (1, int(row["block"])))
            said.append(f"| {row['arm']} | {row['block']} | {whole} | {each} |")
    said += [
        "",
        "## What you may not conclude",
        "",
        "- That so many copies *work*: they stand idle. Under load they would compete for the CPUs long before.",
        "- That memory charged and memory gone are one number: shared pages are charged once, to whoever was first,",
        "  and the kernel's own structures are partly charged to nobody. The plot shows both.",
        "- Anything about limits that were not reached: the table says what ended each backend.",
    ]
    if any(arm.accelerator.value == "tcg" for arm in loaded.all_arms):
        said.append("- How fast virtual machines start: TCG emulated them.")
    return said


def _draw(loaded: Loaded, directory: Path) -> tuple[Path, Path]:
    with style.canvas(14.2, 9.6, nrows=2, ncols=1, sharex=True) as (figure, (memory, start)):
        shown = (
            (memory, "density.charged", "-"),
            (memory, "density.available_change", ":"),
            (start, "density.start", "-"),
        )
        for arm in loaded.all_arms:
            for axes, quantity, dashes in shown:
                _line(axes, loaded, arm.label, quantity, dashes, style.colour(arm))
            start.plot([], [], color=style.colour(arm), linewidth=3, label=f"{arm.label} ({stamp(arm)})")
        for axes, unit, title in (
            (memory, "bytes", "memory of all copies: solid as charged, dotted as the host lost it"),
            (start, "seconds", "time to the first answer of the n-th copy (logarithmic)"),
        ):
            axes.set_title(title)
            style.ticks(axes.yaxis, unit)
            axes.grid(True, axis="y")
        start.set_yscale("log")
        style.logarithmic(start.yaxis, "seconds")
        start.set_xlabel("copies that stand")
        start.legend(loc="upper left")
        memory.set_ylim(bottom=0)
        title = f"How many copies fit: {loaded.run.title}"
        style.headline(figure, title, "one after the other, each until it answers")
        return style.save(figure, directory, "density")


def _line(axes: Axes, loaded: Loaded, arm: str, quantity: str, dashes: str, colour: str) -> None:
    frame = loaded.frame
    rows = frame[(frame["arm"] == arm) & (frame["quantity"] == quantity) & frame["value"].notna()]
    rows = rows.sort_values("block")
    axes.plot(rows["block"], rows["value"], dashes, color=colour, linewidth=2.2)
