"""``lab logs``: what a detached instance has written, from its files; no supervisor has to be there."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from lab.commands.completion import complete_instance
from lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from lab.supervisor.record import InstanceRecord

CHUNK_BYTES = 1 << 16
PAUSE_SECONDS = 0.1  # between two looks at the files; inotify(7) would tell a guest's output no sooner


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_instance)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    tail: Annotated[str, typer.Option("--tail", "-n", metavar="N", help="The last N lines of each stream.")] = "all",
    console: Annotated[bool, typer.Option("--console", help="A guest's console instead.")] = False,
) -> None:
    """Print what an instance has written.

    Its standard output goes to this one, its standard error to that one. Each is whole and in order; which line of
    the one came before which of the other is not recorded.
    """
    from lab.supervisor import client
    from lab.supervisor.record import Condition, find, folder

    lines = None if tail == "all" else _number(tail)
    record = find(name)
    place = folder(record.name)
    if console and not (place / "console.log").exists():
        raise LabError(f"instance {record.name} has no console", hint="only virtual machines have one")
    files = (
        [(place / "console.log", sys.stdout.buffer)]
        if console
        else [(place / "stdout.log", sys.stdout.buffer), (place / "stderr.log", sys.stderr.buffer)]
    )
    streams = [_Stream(path, sink, lines) for path, sink in files]
    for stream in streams:
        stream.copy()
    if not follow:
        return
    if record.condition is Condition.LOST:  # a guest's output waits for somebody who reads it
        client.supervisor_of(record).close()
    _follow(record, streams)


def _follow(record: InstanceRecord, streams: list[_Stream]) -> None:
    """Until it has ended and all has been read."""
    from lab.supervisor.record import read

    running = True
    while running:
        found = read(record.name)
        running = found is not None and found.id == record.id and found.runs
        for stream in streams:
            stream.copy()
        if running:
            time.sleep(PAUSE_SECONDS)


class _Stream:
    """One log file, and how much of it has been printed."""

    def __init__(self, path: Path, sink: BinaryIO, lines: int | None) -> None:
        self._sink = sink
        self._file: BinaryIO | None = None
        try:
            self._file = path.open("rb")
        except FileNotFoundError:  # it has not said anything yet, or had no such stream
            return
        if lines is not None:
            self._file.seek(_start_of_last(self._file, lines))

    def copy(self) -> None:
        """Print what has come since."""
        while self._file is not None and (chunk := self._file.read(CHUNK_BYTES)):
            self._sink.write(chunk)
        self._sink.flush()


def _start_of_last(file: BinaryIO, lines: int) -> int:
    """Where the last so many lines begin, read from the end; a last line without its end counts."""
    end = file.seek(0, os.SEEK_END)
    position, wanted, first = end, lines, True
    while position > 0 and wanted >= 0:
        start = max(0, position - CHUNK_BYTES)
        file.seek(start)
        block = file.read(position - start)
        for index in range(len(block) - 1, -1, -1):
            if block[index : index + 1] == b"\n" and not (first and start + index == end - 1):
                wanted -= 1
                if wanted == 0:
                    return start + index + 1
        first = False
        position = start
    return 0 if lines else end


def _number(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise UsageError(f"--tail {word}: not a number of lines", hint="--tail 20, or --tail all")
    return int(word)
