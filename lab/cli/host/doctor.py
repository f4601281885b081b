"""``lab doctor``: what this host offers, what it lacks, and the exact remedy for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands.completion import complete_backends
from lab.commands.options.brought import Brought
from lab.commands.output import JsonTo, Manner, patience, write_json
from lab.commands.privilege import become_root
from lab.errors import LabError
from lab.host.survey.checks import ALL
from lab.host.units import parse_words
from lab.model import Accelerator, Check, Kernel

if TYPE_CHECKING:
    from lab.backends.support.base import SiteBackend
    from lab.instance import Backend

OK, LACKING, BROKEN = "[green]✓[/green]", "[yellow]![/yellow]", "[red]✗[/red]"
OWN_NAMESPACE = "your user namespace"
"""What an ordinary user's lab could not enter."""
FALLING_BACK = "falling back to TCG, QEMU's emulation, whose figures say nothing about KVM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether this host can run one backend; ``obstacles`` are the names of the checks that failed."""

    name: str
    title: str
    kernel: Kernel
    obstacles: tuple[str, ...]

    @property
    def usable(self) -> bool:
        return not self.obstacles


def doctor(
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="A,B,…",
            help="Judge only these backends, oci:PATH among them. Default: all of lab's.",
            autocompletion=complete_backends,
        ),
    ] = "",
    as_json: JsonTo = "",
    prove: Annotated[
        bool, typer.Option("--prove", help="Boot a guest under KVM anew, whatever was found out before.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write what a bug report needs, without what names you."),
    ] = None,
) -> None:
    """Check this host, and print what to do about each lack.

    Exit code 1 when a backend is unusable, a reference aside unless --on names it.
    """
    from lab.backends.registry import available, find
    from lab.cli.host import bugreport
    from lab.host.survey.checks import host_checks

    obstacles = []
    try:
        become_root()
    except LabError as error:
        obstacles = [Check(name=OWN_NAMESPACE, ok=False, found=error.message, remedy=error.hint, required_by=ALL)]
    if report is not None:
        bugreport.require_new(report)
    named = parse_words(Brought.admitted(on).on)
    kinds = sorted({find(name) for name in named}, key=lambda kind: kind.order) if named else available()
    with _saying("looking at this host"):
        host = [*obstacles, *host_checks()]
        checks, verdicts = _judged(kinds, host)
    accelerator, accelerator_note = _accelerate(verdicts, again=prove)
    checks, verdicts = _judged(kinds, host)  # some may ask whether KVM was proven
    if as_json:
        write_json(_everything(checks, verdicts, accelerator, accelerator_note), as_json)
    else:
        _print_tables(checks, verdicts, accelerator, accelerator_note)
    if report is not None:
        bugreport.write(report, _everything(checks, verdicts, accelerator, accelerator_note))
    references = {kind.name for kind in kinds if kind.reference and not named}
    if not all(verdict.usable for verdict in verdicts if verdict.name not in references):
        raise typer.Exit(1)


def _judged(kinds: Sequence[type[SiteBackend]], host: Sequence[Check]) -> tuple[list[Check], list[Verdict]]:
    from lab.backends.registry import checks_of

    own = {kind.name: checks_of(kind) for kind in kinds}
    checks = merge([*host, *(check for each in own.values() for check in each)])
    return checks, [judge(kind, checks, own[kind.name]) for kind in kinds]


def merge(checks: Iterable[Check]) -> list[Check]:
    """One check per name, in the order of first appearance; one that failed wins over one that did not."""
    kept: dict[str, Check] = {}
    for check in checks:
        if check.name not in kept or (kept[check.name].ok and not check.ok):
            kept[check.name] = check
    return list(kept.values())


def judge(kind: type[Backend], checks: Sequence[Check], own: Sequence[Check]) -> Verdict:
    """A backend is unusable when one of its own checks failed, or one of the host's that it requires."""
    required = {check.name for check in own}
    failed = [check.name for check in checks if not check.ok and _concerns(check, kind.name, required)]
    return Verdict(name=kind.name, title=kind.title, kernel=kind.kernel, obstacles=tuple(failed))


def _concerns(check: Check, backend: str, own: set[str]) -> bool:
    return check.name in own or backend in check.required_by or check.required_by == ALL


def _accelerate(verdicts: Sequence[Verdict], *, again: bool = False) -> tuple[Accelerator | None, str]:
    """What runs guests here, proven by booting one; None, and why, when none can be booted at all."""
    from lab.backends.support.vmm import vmm_filter
    from lab.errors import LabError
    from lab.host.home import home
    from lab.host.survey.virtualisation import NESTED, Ground, platform
    from lab.hypervisor.accelerator import choose_accelerator

    if not any(verdict.kernel is Kernel.OWN for verdict in verdicts):
        return None, "how virtual machines run here was not asked: none of these is one"
    if not any(verdict.usable and verdict.kernel is Kernel.OWN for verdict in verdicts):
        return None, "no backend with a kernel of its own is usable"
    try:
        with _saying("booting a guest to see what runs it"):
            verdict = choose_accelerator(home(), vmm_filter(), again=again)
    except LabError as error:
        return None, str(error)
    if verdict.accelerator is not Accelerator.KVM:
        return verdict.accelerator, f"{verdict.reason}; {FALLING_BACK}"
    emulated = platform().ground is Ground.EMULATED
    return verdict.accelerator, f"{verdict.reason}; {NESTED}" if emulated else verdict.reason


def _saying(text: str) -> AbstractContextManager[object]:
    """A line on standard error while something takes its time; of a terminal's it goes when that is done."""
    from rich.console import Console

    console = Console(stderr=True, quiet=Manner.quiet)
    return console.status(text) if console.is_terminal else patience(f"lab: {text}")


def _everything(
    checks: Sequence[Check], verdicts: Sequence[Verdict], accelerator: Accelerator | None, note: str
) -> dict[str, Any]:
    from lab.host.survey.facts import provenance, versions

    return {
        "usable": all(verdict.usable for verdict in verdicts),
        "backends": [{**asdict(verdict), "usable": verdict.usable} for verdict in verdicts],
        "accelerator": accelerator,
        "accelerator_note": note,
        "checks": [asdict(check) for check in checks],
        "host": provenance(),
        "versions": versions(),
    }


def _print_tables(
    checks: Sequence[Check], verdicts: Sequence[Verdict], accelerator: Accelerator | None, note: str
) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    obstacles = {name for verdict in verdicts for name in verdict.obstacles}
    marks = {check.name: OK if check.ok else BROKEN if check.name in obstacles else LACKING for check in checks}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for overflow in ("ignore", "ignore", "fold"):  # a path is cut nowhere
        table.add_column(overflow=overflow)
    for check in checks:
        table.add_row(marks[check.name], check.name, escape(check.found))
    table.add_row()
    for verdict in verdicts:
        runs = accelerator or "-" if verdict.kernel is Kernel.OWN else Accelerator.NATIVE
        found = f"usable, {runs}" if verdict.usable else f"unusable: {', '.join(verdict.obstacles)}"
        table.add_row(OK if verdict.usable else BROKEN, f"[bold]{verdict.name}[/bold]", found)
    console.print(table)
    sign = OK if accelerator is Accelerator.KVM else LACKING
    console.print(f"\n{sign} {escape(note)}", soft_wrap=True)
    if failed := dearest_first(checks, verdicts):
        console.print("\n[bold]Remedies[/bold], for what costs most first")
        for check, lost in failed:
            console.print(f"  {marks[check.name]} {check.name}: {escape(check.remedy)}", soft_wrap=True)
            if lost:
                console.print(f"      without it: no {escape(lost)}", soft_wrap=True)


def dearest_first(checks: Sequence[Check], verdicts: Sequence[Verdict]) -> list[tuple[Check, str]]:
    """What failed, and what each costs: backends, then what else it names; "" where nothing is known to be lost."""
    lost = {check.name: [one.name for one in verdicts if check.name in one.obstacles] for check in checks}
    failed = [
        (check, ", ".join([*lost[check.name], *filter(None, [check.costs])])) for check in checks if not check.ok
    ]
    return sorted(failed, key=lambda pair: (-len(lost[pair[0].name]), not pair[1]))
