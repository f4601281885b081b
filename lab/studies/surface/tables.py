"""What ``lab isolation surface`` prints: tables of at most 100 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.analysis.loaded import Loaded
from lab.studies.surface.analyse import INSTANCE, OUTCOMES, PER, STATES, Exposed
from lab.studies.surface.words import SIDE_NAMES, number

if TYPE_CHECKING:
    from rich.table import Table


SHORTER = {"by argument": "by args", "not called": "uncalled"}
"""Words that fit a column."""


def terminal(loaded: Loaded, *, each_call: bool = False) -> None:
    """Print what becomes of system calls, and what was made of the host."""
    from rich.console import Console
    from rich.text import Text

    found = Exposed(loaded)
    console = Console(highlight=False, width=None if Console().is_terminal else 100)
    console.print()
    console.print(_outcomes(found))
    for reach in found.reaches:
        if reach.failure:
            console.print(Text(f"! {reach.arm.label}: {reach.failure}", style="yellow"))
        for each in reach.disagreements:
            what = f"! {reach.arm.label}: the filter says {each.said}, inside it is {each.seen}: "
            what += ", ".join(each.names)
            console.print(Text(what, style="yellow"))
            console.print(Text(f"  {each.reason}", style="dim"))
    if each_call:
        console.print(_calls(found))
    skipped = ", ".join(found.settings.get("not_called") or {})
    console.print(Text(f"Not called, for they can't be made harmless: {skipped}.", style="dim"))
    if found.works:
        console.print(_works(found))
        for work in found.works:
            for failure in work.failures:
                console.print(Text(f"! {work.arm.label}, {work.state}: {failure}", style="yellow"))
            if work.lost:
                many = f"! {work.arm.label}, {work.state}: {work.lost} events were lost; its numbers are too low"
                console.print(Text(many, style="yellow"))
    if found.functions:
        console.print(_functions(found))
    for what, why in found.not_measurable.items():
        console.print(Text(f"Not measurable here: {what}: {why}", style="dim"))


def _grid(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)


def _outcomes(found: Exposed) -> Table:
    grid = _grid("System calls: what becomes of them")
    grid.add_column("backend", no_wrap=True)
    for outcome in OUTCOMES:
        grid.add_column(SHORTER.get(outcome, outcome), justify="right", no_wrap=True)
    grid.add_column("agree", justify="right", no_wrap=True)
    for reach in found.reaches:
        kernel = "[dim]its own kernel's[/dim]" if reach.own_kernel else "[dim]the host's[/dim]"
        cells = [str(count or "·") for count in reach.outcomes.values()]
        agreeing, both = reach.agreeing
        last = "failed" if reach.failure else "–" if not both else "all" if agreeing == both else f"{agreeing}/{both}"
        grid.add_row(f"{reach.arm.label}\n{kernel}", *cells, last)
    return grid


def _works(found: Exposed) -> Table:
    grid = _grid("System calls made of the host, by name; medians")
    grid.add_column("backend", no_wrap=True)
    grid.add_column("who", no_wrap=True)
    grid.add_column("calls", justify="right", no_wrap=True)
    grid.add_column("different", justify="right", no_wrap=True)
    grid.add_column("the most frequent", ratio=1)
    for state in STATES:
        grid.add_section()
        grid.add_row(f"[bold]{PER[state]}[/bold]")
        for work in found.works:
            if work.state != state:
                continue
            most = ", ".join(f"{name} {number(value)}" for name, value in work.most[:3])
            exits = f"; {number(work.exits)} exits" if work.exits else ""
            name = SIDE_NAMES[work.side] if work.side != INSTANCE else "the instance"
            grid.add_row(
                work.arm.label, name, number(work.total) if work.n else "failed", str(work.distinct), most + exits
            )
    return grid


def _functions(found: Exposed) -> Table:
    grid = _grid("Functions of the host's kernel that were entered")
    for name in ("backend", "state", "who"):
        grid.add_column(name, no_wrap=True)
    for name in ("different", f"not by {found.loaded.baseline}", "lost"):
        grid.add_column(name, justify="right")
    for each in found.functions:
        beyond = str(len(each.beyond)) if each.arm.label != found.loaded.baseline else "·"
        grid.add_row(
            each.arm.label, each.state, SIDE_NAMES[each.side], str(len(each.names)), beyond, str(each.lost or "·")
        )
    return grid


def _calls(found: Exposed) -> Table:
    grid = _grid("Every system call")
    grid.add_column("number", justify="right")
    grid.add_column("system call", no_wrap=True)
    measured = [reach for reach in found.reaches if reach.calls]
    for reach in measured:
        grid.add_column(reach.arm.label, no_wrap=True)
    for row in zip(*(reach.calls for reach in measured), strict=True):
        grid.add_row(str(row[0].number), row[0].name, *(f"{call.outcome} ({call.seen})" for call in row))
    return grid
