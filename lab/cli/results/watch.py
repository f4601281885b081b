"""``lab watch``: measure again when something changes, or at a time of day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.errors import ResultsError, UsageError

if TYPE_CHECKING:
    from lab.commands.watching.plan import Plan

FAIL_IF = "With --once: exit code 3 when something is proven to be: worse, or changed."


def watch(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A TOML file: what, when, how much is kept.")],
    once: Annotated[bool, typer.Option("--once", help="Look once, measure if it is time to, and leave.")] = False,
    fail_if: Annotated[str, typer.Option("--fail-if", metavar="WHAT", help=FAIL_IF)] = "",
    units: Annotated[
        str, typer.Option("--units", metavar="DIR", help="Write a service and a timer for systemd, and leave.")
    ] = "",
) -> None:
    """Measure again when something changes, or at a time of day.

    Something is what the plan names: kernel, packages, images, commits, the application's files, lab itself. One
    plan measures at a time, on a quiet host; each run is compared with the one before. docs/watching.md shows a plan.
    """
    from lab.cli.results.diff import FAILING
    from lab.commands.options.conditions import CONDITION_HOLDS
    from lab.commands.privilege import require_root
    from lab.commands.watching import plan as plans

    if fail_if not in ("", *FAILING):
        raise UsageError(f"--fail-if {fail_if} is unknown", hint=f"--fail-if {' or '.join(FAILING)}")
    if fail_if and not once:
        raise UsageError("--fail-if needs --once: without it there is no end", hint="add --once")
    wanted = plans.read(plan)
    if units:
        _write_units(wanted, Path(units))
        return
    require_root()
    from lab.commands.watching.causes import causes
    from lab.commands.watching.watch import check
    from lab.commands.watching.watch import watch as for_ever

    if not once:
        for_ever(wanted)
        return
    measured = check(wanted, causes(wanted))
    if measured is None:
        print(f"{wanted.name}: nothing was measured")
    elif fail_if and measured.changes & set(FAILING[fail_if]):
        raise typer.Exit(CONDITION_HOLDS)


def _write_units(plan: Plan, folder: Path) -> None:
    from lab.commands.watching.units import units

    for name, text in units(plan).items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ResultsError(f"{folder / name} can't be written: {error.strerror}", hint="--units DIR") from error
        print(folder / name)
