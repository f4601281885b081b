"""Settings of the running kernel, changed for a while and put back after any end.

What is to be written back is on the disk before anything changes, in a file of the session's folder that its ledger
names. Leaving writes it back and removes the file; after a SIGKILL whoever cleans the session does the same. Once the
file is gone the settings are nobody's of lab's any more: what others make of them stays.

This lies on the path of ``lab run``: standard library only, and quick.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError

CHANGEABLE = ("/sys/kernel/mm/ksm/",)
"""Where the settings lie that lab may change; a file that names others is not obeyed."""

Write = tuple[str, str]
"""The path of a setting, and what is written to it."""


def save(file: Path, back: Sequence[Write]) -> None:
    """Note what `put_back` shall write, in that order."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(back))
    unfinished.rename(file)


def put_back(file: Path) -> None:
    """Write back what ``file`` says, and remove it. Nothing without it. Raises LabError, and then it stays."""
    try:
        writes = [(str(path), str(value)) for path, value in json.loads(file.read_text())]
    except FileNotFoundError:
        return
    except ValueError as error:
        raise LabError(f"{file} does not say what to write back", detail=str(error)) from error
    for path, _ in writes:
        if not path.startswith(CHANGEABLE) or ".." in Path(path).parts:
            raise LabError(f"{path} is no setting that lab changes")
    for path, value in writes:
        write(path, value)
    with suppress(FileNotFoundError):
        file.unlink()


def write(path: str, value: str) -> None:
    """Write one setting. Raises LabError when the kernel refuses it."""
    try:
        Path(path).write_text(value)
    except OSError as error:
        raise LabError(f"{path} can't be set to {value}: {error.strerror}") from error
