"""``lab cp``: files and folders into a detached instance and out of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.completion import complete_instance
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.supervisor.record import InstanceRecord


def cp(
    source: Annotated[
        str, typer.Argument(metavar="NAME:SRC|SRC|-", autocompletion=lambda incomplete: complete_place(incomplete))
    ],
    destination: Annotated[
        str, typer.Argument(metavar="NAME:DEST|DEST|-", autocompletion=lambda incomplete: complete_place(incomplete))
    ],
    archive: Annotated[
        bool, typer.Option("--archive", "-a", help="Keep owners, by their numbers, and all of the mode.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow-link", "-L", help="If SRC is a link, copy what it leads to.")
    ] = False,
) -> None:
    """Copy files between a running instance and this host.

    One of the two may be -, a tar archive. A folder goes into a DEST that exists, and becomes DEST otherwise; SRC/.
    means what is in SRC.
    """
    from lab.supervisor import transfer

    options = transfer.Options(archive=archive, follow=follow)
    ours, theirs = split(source), split(destination)
    if (ours is None) == (theirs is None):
        raise UsageError(
            "one of the two has to be in an instance, and only one",
            hint="lab cp FILE NAME:/tmp/ or lab cp NAME:FILE .",
        )
    if theirs is not None:
        transfer.send(running(theirs[0]), source, theirs[1], options)
        return
    assert ours is not None
    record = running(ours[0])
    if destination == "-":
        if sys.stdout.isatty():
            raise UsageError("an archive does not belong on a terminal", hint="lab cp NAME:SRC - | tar xf -")
        transfer.stream(record, ours[1], sys.stdout.fileno(), options)
        return
    for name in transfer.fetch(record, ours[1], destination, options):
        print(f"lab: left out, since it is a device: {name.partition('/')[2] or name}", file=sys.stderr)


def split(word: str) -> tuple[str, str] | None:
    """NAME and PATH of ``NAME:PATH``; None for a path of the host's, which may hold a colon after a / or a dot."""
    name, colon, path = word.partition(":")
    if not colon or not name or "/" in name or word.startswith("."):
        return None
    return name, path or "/"


def running(name: str) -> InstanceRecord:
    """The instance. Raises UsageError when there is none, or it does not run: its files are gone then."""
    from lab.supervisor.record import find

    record = find(name)
    if not record.runs:
        raise UsageError(
            f"instance {record.name} does not run, and with it ended its files", hint="lab cp needs one that runs"
        )
    return record


def complete_place(incomplete: str) -> list[str]:
    """``NAME:``; what comes after it is not looked up."""
    return [f"{name}:" for name in complete_instance(incomplete)]
