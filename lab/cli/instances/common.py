"""What the verbs about detached instances have in common: several names at once, tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from lab.errors import LabError, NoInstance

if TYPE_CHECKING:
    from lab.supervisor.record import InstanceRecord

MOST_TOGETHER = 32


def each(
    names: Sequence[str],
    do: Callable[[InstanceRecord], object],
    *,
    say: bool = True,
    together: bool = False,
    absent_ok: bool = False,
) -> None:
    """Do it to every instance named, and print the name as Docker does; one that fails does not stop the others.

    ``together`` does it to all at once, where each takes its time; they are told in the order given all the same.
    ``absent_ok`` says of a name that nobody has, but counts it as done.
    Ends with exit code 1 if one failed.
    """
    from concurrent.futures import ThreadPoolExecutor

    from lab.cli.app import report_error
    from lab.supervisor.record import find

    def find_and_do(name: str) -> None:
        do(find(name))

    code = 0
    with ThreadPoolExecutor(min(len(names), MOST_TOGETHER) if together else 1) as threads:
        for name, future in [(name, threads.submit(find_and_do, name)) for name in names]:
            try:
                future.result()
            except LabError as error:
                sys.stdout.flush()
                failed = report_error(error)
                code = code if absent_ok and isinstance(error, NoInstance) else failed
            else:
                if say:
                    print(name, flush=True)
    if code:
        raise typer.Exit(code)


def show(rows: Sequence[Sequence[str]]) -> None:
    """A table whose first row is its head; columns are as wide as they need."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def ago(moment: float) -> str:
    """How long ago a time of day was, in one unit: ``5 minutes``."""
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a second"


def status(record: InstanceRecord) -> str:
    """How it is, in Docker's words where Docker has them."""
    from lab.supervisor.record import Condition

    match record.condition:
        case Condition.RUNNING:
            health = f" ({record.health})" if record.health else ""
            return f"Up {ago(record.started)}{health}"
        case Condition.LOST:
            return f"Up {ago(record.started)} (supervisor lost)"
        case Condition.EXITED:
            code = "?" if record.exit_code is None else record.exit_code
            since = f" {ago(record.ended)} ago" if record.ended else ""
            return f"Exited ({code}){since}"
        case Condition.STARTING:
            return "Starting"
        case _:
            return "Never started"


def ports(record: InstanceRecord) -> list[str]:
    """``127.0.0.1:8080->80/tcp`` each, as `docker ps` writes them."""
    return [f"{port.host}->{port.instance_port}/tcp" for port in record.published]
