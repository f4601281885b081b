"""What the verbs about detached instances have in common: several names at once, tables, completion.

Completion runs at every press of a key: it reads folders' names and imports nothing heavy.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from lab.errors import LabError, NoInstance

if TYPE_CHECKING:
    from lab.supervisor.record import Record

MOST_TOGETHER = 32


def each(
    names: Sequence[str],
    do: Callable[[Record], None],
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

    from lab.cli.main import report_error
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


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def ago(moment: float) -> str:
    """How long ago a time of day was, in one unit: ``5 minutes``."""
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a second"


def status(record: Record) -> str:
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


def ports(record: Record) -> list[str]:
    """``127.0.0.1:8080->80/tcp`` each, as `docker ps` writes them."""
    return [f"127.0.0.1:{port.host_port}->{port.instance_port}/tcp" for port in record.published]


# Completion


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted(word for word in words if word.startswith(incomplete))


def complete_instance(incomplete: str) -> list[str]:
    """Names of detached instances."""
    import os

    from lab.host.home import home

    try:
        return _beginning((name for name in os.listdir(home() / "instances") if name[0] != "."), incomplete)  # noqa: PTH208
    except OSError:
        return []


def complete_backend(incomplete: str) -> list[str]:
    """Names of backends, which are those of the modules that define one."""
    import re
    from pathlib import Path

    import lab

    sources = (Path(lab.__file__).parent / "backends").glob("*.py")
    found = (re.search(r'^    name = "(\w+)"', source.read_text(), re.MULTILINE) for source in sources)
    return _beginning((match[1] for match in found if match), incomplete)


def complete_backends(incomplete: str) -> list[str]:
    """Names of backends, joined by commas: the last one is completed."""
    before, comma, last = incomplete.rpartition(",")
    chosen = before.split(",")
    return [before + comma + name for name in complete_backend(last) if name not in chosen]


def complete_image(incomplete: str) -> list[str]:
    """Names of images in the store, without the tag that goes without saying."""
    from lab.host.home import home

    try:
        entries = json.loads((home() / "images" / "index.json").read_text())["manifests"]
        names = {entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries}
    except (OSError, ValueError, KeyError):
        return []
    return _beginning((name.removesuffix(":latest") for name in names), incomplete)


def complete_scenario(incomplete: str) -> list[str]:
    """Names of the scenarios that come with lab."""
    from pathlib import Path

    import lab

    shipped = Path(lab.__file__).resolve().parent.parent / "scenarios"
    return _beginning((file.parent.name for file in shipped.glob("*/Dockerfile")), incomplete)


def complete_runnable(incomplete: str) -> list[str]:
    """What `lab run` takes: scenarios and images."""
    return sorted({*complete_scenario(incomplete), *complete_image(incomplete)})
