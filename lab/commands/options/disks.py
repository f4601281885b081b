"""Disks of the user's on the command line: what is said of them, and which word means one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.output import say
from lab.host.units import format_bytes

if TYPE_CHECKING:
    from lab.hypervisor.disks.own import OwnDisk

DiskFormat = Annotated[
    str,
    typer.Option(
        "--disk-format", metavar="FORMAT", help="A disk's format where its suffix does not say it: raw or qcow2."
    ),
]
Backing = Annotated[
    list[Path] | None,
    typer.Option("--backing", metavar="FILE", help="A file that a qcow2 disk may refer to; repeat for more."),
]


def is_meant(what: str, form: str) -> bool:
    """Whether ``what`` names a disk; a file that is not there can be seen by its suffix to be meant as one."""
    from lab.hypervisor.disks.own import SUFFIXES, is_disk

    return is_disk(what, form) or bool(form) or Path(what).suffix in set(SUFFIXES) - {".img"}


def tell_space(disk: OwnDisk, folder: Path) -> None:
    """Say so where ``folder`` has not the room for all that a system could write to ``disk``."""
    if (free := shutil.disk_usage(folder).free) < disk.size_bytes:
        say(
            f"lab: {disk.name} is a disk of {format_bytes(disk.size_bytes)}, and {folder} has {format_bytes(free)} "
            "for what is written to it; a machine that writes more is unplugged"
        )
