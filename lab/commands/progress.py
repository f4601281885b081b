"""What is seen while `lab compare` measures: what is compared, what happens now, how much is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lab.commands.output import Manner, say
from lab.commands.telling import heard
from lab.host.survey.virtualisation import NESTED

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

    from lab.experiment.watch import Watch
    from lab.results.record import Run


@contextmanager
def watching(run: Run) -> Iterator[Watch]:
    """A live line and a bar on a terminal, else a plain line per instance."""
    from rich.console import Console

    from lab.experiment.watch import Silent

    if Manner.quiet:
        yield heard(Silent())
        return
    console = Console(stderr=True)
    console.print(
        f"[bold]{run.title}[/bold]  image {str(run.image['digest'])[:19]}…, base from {_origin(run)}", highlight=False
    )
    console.print(_arms(run), highlight=False, soft_wrap=not console.is_terminal)
    for line in _shape(run):
        console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
    if run.settings.get("factors"):
        console.print(_size(run), highlight=False)
    if run.emulated:
        console.print(f"  [yellow]![/yellow] this host is {run.host['platform']['title']}. {NESTED}", highlight=False)
    with _following(console) as watch:
        yield heard(watch)


@contextmanager
def following() -> Iterator[Watch]:
    """The same of what is no run: without a head."""
    from rich.console import Console

    from lab.experiment.watch import Silent

    if Manner.quiet:
        yield Silent()
        return
    with _following(Console(stderr=True)) as watch:
        yield watch


@contextmanager
def _following(console: Console) -> Iterator[Watch]:
    if not console.is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, progress.add_task("starting", total=None))


def _arms(run: Run) -> RenderableType:
    """What is compared: a line per backend, or a column of its own for what doesn't fit into one."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for arm in run.arms:
        if arm.is_reference and not arm.label.endswith("#aa"):
            how = "" if arm.accelerator.value == "native" else arm.accelerator.value.upper()
            table.add_row(Text(f"  {arm.label}"), Text(how), Text(arm.mechanism))
    for factor in run.settings.get("factors", []):
        table.add_row(Text(f"  {factor['name']}"), Text(), Text(f"{', '.join(factor['levels'])} {_of(run, factor)}"))
    return table


def _shape(run: Run) -> Iterator[str]:
    """What shapes the numbers to come, in lines: what is waited for and asked, and what is emulated."""
    from lab.analysis.readiness import until
    from lab.reports.words.statements import in_words

    settings = run.settings
    port = f" (port {settings['port']})" if settings.get("port") else ""
    yield f"  measured until: {until(run)}{port}: {in_words(settings.get('readiness')) or 'it executes'}"
    yield f"  load: {in_words(settings.get('load')) or 'none'}"
    yield from (f"  {sentence}" for sentence in settings.get("found", ()))
    emulated = [arm.label for arm in run.arms if arm.accelerator.value == "tcg" and not arm.label.endswith("#aa")]
    if emulated:
        yield f"  emulated: {', '.join(emulated)} run under TCG; that says nothing about KVM"


def _of(run: Run, factor: Mapping[str, Any]) -> str:
    """Which backends a factor applies to, where not to all."""
    backends = {arm.backend for arm in run.arms}
    return "" if backends <= set(factor["of"]) else f"({', '.join(factor['of'])} alone)"


def _size(run: Run) -> str:
    """``9 arms × 4 blocks, after 8 warm-ups``, when there are more arms than backends."""
    arms = len(run.arms)
    blocks = f"{run.blocks_planned} blocks" if run.blocks_planned else "as many blocks as the budget allows"
    return f"  {arms} arms, the A/A pair's second among them, × {blocks}, after {arms - 1} warm-ups"


def _origin(run: Run) -> str:
    base = run.image.get("base") or {}
    if run.image.get("origin") == "disk":
        return "no image, a disk"
    return f"{base['name']} ({base['origin']})" if base else "scratch"


class _Lines:
    """For logs: a line per instance, and one for all else that takes its time."""

    def __init__(self) -> None:
        self._subject, self._count = "", ""

    def doing(self, what: str) -> None:
        subject, colon, _ = what.partition(": ")
        if not colon or subject != self._subject:
            say(f"  {self._count if colon else ''}{subject}")
        self._subject = subject if colon else ""

    def progress(self, done: int, expected: int) -> None:
        self._subject, self._count = "", f"[{done + 1}/{expected}] " if done < expected else ""

    def note(self, sentence: str) -> None:
        say(f"  ! {sentence}")


class _Bar:
    """For terminals. Drawing is rich's own thread's work; here only two numbers and a text change."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def doing(self, what: str) -> None:
        self._progress.update(self._task, description=f"{what:<42.42}")

    def progress(self, done: int, expected: int) -> None:
        self._progress.update(self._task, completed=done, total=expected)

    def note(self, sentence: str) -> None:
        self._progress.console.print(f"! {sentence}", highlight=False, markup=False)
