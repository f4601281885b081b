"""How a command speaks: remarks on standard error, JSON where ``--json`` says, nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.errors import LabError

JSON_HELP = "JSON on standard output, or into FILE."
JsonTo = Annotated[str, typer.Option("--json", metavar="[=FILE]", help=JSON_HELP)]
"""Where a command's JSON goes: nowhere (empty), ``-`` for standard output, or a file's name."""
PATIENCE_SECONDS = 2.0


class Manner:
    """How lab speaks in this process; set once by the command line."""

    quiet = False


def say(sentence: str) -> None:
    """A remark on standard error, unless ``--quiet`` was given."""
    if not Manner.quiet:
        print(harmless(sentence), file=sys.stderr, flush=True)


def can_redraw() -> bool:
    """Whether standard output is a terminal that can take a line back (terminfo(5) calls the others dumb)."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def harmless(text: str) -> str:
    """``text`` without what a terminal would obey, or could not show. Files' names, and what a guest or a strange
    file says, stand in errors.
    """
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


@contextmanager
def patience(sentence: str) -> Iterator[None]:
    """Say ``sentence`` when what is done here takes longer than a person waits without a word."""
    timer = threading.Timer(PATIENCE_SECONDS, say, (sentence,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def write_text(where: str, text: str) -> None:
    """Put a file where an option says; - is standard output. Raises LabError when it can't be written."""
    if where == "-":
        sys.stdout.write(text)
        return
    try:
        Path(where).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise LabError(f"{where} can't be written: {error.strerror}", hint="name another file") from error
    say(where)


def write_json(value: Any, where: str) -> None:
    """Write ``value`` where ``--json`` says. Raises LabError when the file can't be written."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
    if where == "-":
        sys.stdout.write(text)
        return
    try:
        Path(where).write_text(text)
    except OSError as error:
        raise LabError(f"{where} can't be written: {error.strerror}", hint="--json=FILE, or --json alone") from error
