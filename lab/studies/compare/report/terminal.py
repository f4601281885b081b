"""A run in the terminal: what each backend costs and stops, in at most 100 columns, then what to mind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab.analysis.findings import Finding, Severity
from lab.analysis.quantities import format_interval, format_value
from lab.analysis.readiness import leading, until
from lab.reports.charts import compared
from lab.reports.material import Material, stamp
from lab.reports.tables import tally
from lab.reports.words import debt
from lab.reports.words.crossings import table as table_of_crossings
from lab.reports.words.factors import statements
from lab.reports.words.statements import Statement
from lab.results.record import Arm
from lab.studies.compare.report.verdict import gravest_first

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {Severity.SERIOUS: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
WIDTH = 100
COLUMNS = (
    ("memory.pss", "idle", "PSS idle"),
    ("cpu.per_1000_requests", "", "CPU/1,000"),
    ("load.requests_per_second", "", "requests/s"),
    ("load.latency.p99", "", "p99"),
)


def show(run_folder: Path, console: Console | None = None) -> None:
    """Print the run. Raises ResultsError when the folder can't be read."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text

    out = console or Console(highlight=False, width=None if Console().is_terminal else WIDTH)
    material = Material.read(run_folder)
    grids = (table(material, columns) for columns in range(len(COLUMNS), 0, -1))
    roomy = out.options.update(max_width=10 * WIDTH)  # else the measure itself is cut to the console
    fitting = (each for each in grids if Measurement.get(out, roomy, each).minimum <= out.width)
    grid = next(fitting, table(material, 0))
    out.print()
    found = gravest_first(material.findings)
    first = [each for each in found[:1] if each.severity is Severity.SERIOUS]  # before any multiple is read
    for finding in first:
        _tell(out, finding)
    out.print(grid)
    if not material.loaded.answers.empty:
        key = "✗ reaches or shares the host's · ◐ its own only · ✓ stopped, or a limit that holds"
        out.print(Text(f"{key}. Counts of answers, not a score.", style="dim"))
    if material.has("crossings."):
        out.print(crossings(material, min(out.width, WIDTH)))
    for each in [*debt.statements(material), *debt.growth(material)]:
        _say(out, each)
    out.print()
    for finding in found[len(first) :]:
        _tell(out, finding)
    told = statements(material) if material.levels else []
    if told:
        out.print()
        at = f"the factors, compared with their first levels; above: {material.levels}"
        out.print(Text(at, style="dim"), width=min(out.width, WIDTH))
    for each in told:
        _say(out, each)
    report = run_folder / "report.html"
    if report.is_file():
        out.print()
        out.print(Text("report: ").append(str(report), style="bold"), soft_wrap=True)


def _say(out: Console, said: Statement) -> None:
    from rich.text import Text

    line = Text("• ", style="bold" if said.claim else "dim").append(said.sentence)
    out.print(line.append(f" {said.sure}", style="dim"), width=min(out.width, WIDTH))


def _tell(out: Console, finding: Finding) -> None:
    from rich.text import Text

    line = Text(f"{finding.severity}: ", style=STYLES[finding.severity])
    line.append(finding.sentence, style="default").append(f" {finding.advice}", style="dim")
    out.print(line, width=min(out.width, WIDTH))


def table(material: Material, columns: int = len(COLUMNS)) -> Table:
    """A row per backend; the first ``columns`` of COLUMNS, as far as some backend has a value."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    own = [(name, "", material.label(name)) for name in list(material.figures)[:2]]
    wanted = [*COLUMNS[:1], *own, *COLUMNS[1:]][:columns]
    shown = [each for each in wanted if any(_value(material, each[0], arm, each[1]) for arm in material.arms)]
    cold = ", cold starts" if material.run.host_levels.get("caches") == "cold" else ""
    title = (material.run.title or material.run.scenario) + cold
    grid = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    grid.add_column("backend", no_wrap=True, min_width=max(len(_kernel(arm)) for arm in material.arms))
    boots = [line for arm in material.arms for line in _boot(material, arm).splitlines()]
    first = f"until\n{until(material.run)}"
    grid.add_column(first, no_wrap=True, min_width=max(len(line) for line in (*first.splitlines(), *boots)))
    for quantity, state, title in shown:
        texts = [title, *(_value(material, quantity, arm, state) for arm in material.arms)]
        grid.add_column(title, justify="right", no_wrap=True, min_width=max(len(text) for text in texts))
    asked = not material.loaded.answers.empty
    if asked:
        grid.add_column("inside", no_wrap=True, min_width=6)
    for arm in material.arms:
        cells = [f"[bold]{escape(arm.label)}[/bold]\n{_kernel(arm)}", _boot(material, arm)]
        cells += [_value(material, quantity, arm, state) or "–" for quantity, state, _ in shown]
        grid.add_row(*cells, *([tally(material, arm).replace("  ", "\n")] if asked else []))
    return grid


def crossings(material: Material, width: int) -> Table:
    """A row per crossing; with how many times the baseline it takes as far as ``width`` columns allow."""
    from rich import box
    from rich.table import Table

    found = table_of_crossings(material)
    names = max(len(row.header) for row in found.rows)
    others = [column.text for column in found.columns if column.text != material.baseline]
    roomy = names + 10 + sum(max(17, len(name) + 2) for name in others) <= width
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="one operation", title_justify="left")
    grid.add_column("crossing", no_wrap=True)
    for column in found.columns:
        grid.add_column(column.text, justify="right", no_wrap=roomy)
    for row in found.rows:
        times = [cell.note.partition(" · ")[0].partition(",")[0] for cell in row.cells]
        shown = [f"{each if each.endswith('×') else '':>7}" if roomy else "" for each in times]
        cells = [
            cell.text + ("" if column.text == material.baseline else each)
            for cell, each, column in zip(row.cells, shown, found.columns, strict=True)
        ]
        grid.add_row(row.header, *cells)
    return grid


def _kernel(arm: Arm) -> str:
    return f"own kernel, {stamp(arm).split()[0]}" if arm.has_own_kernel else "host's kernel"


def _boot(material: Material, arm: Arm) -> str:
    quantity = leading(material.run)
    tried = material.attempts(quantity, arm.label)
    if tried is None:
        return "–"
    lines = [f"✗ {count} {word}" for count, word in ((tried.failed, "failed"), (tried.timeout, "timed out")) if count]
    value = material.value(quantity, arm.label)
    if value is not None:
        interval = format_interval(value.low, value.high, value.unit)
        against = compared(material, quantity, arm)
        against = against.replace("×", f"× {material.baseline}")
        sure = f"n = {value.n}" if interval == "–" else f"{interval}, n = {value.n}"
        lines = [format_value(value.median, value.unit), sure, against, *lines]
    return "\n".join(lines)


def _value(material: Material, quantity: str, arm: Arm, state: str) -> str:
    value = material.value(quantity, arm.label, state)
    if value is None or (quantity.endswith("p99") and not material.enough_requests(arm.label)):
        return ""
    return format_value(value.median, value.unit).removesuffix(" requests/s")
