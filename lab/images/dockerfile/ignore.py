"""``.dockerignore``: which files of the context an image can't see (Dockerfile reference, ".dockerignore file").

A pattern a line, relative to the context; ``#`` in the first column starts a comment, blank lines mean nothing, ``!``
takes files back. What a pattern is, `lab.images.dockerfile.globs` says.
"""

from __future__ import annotations

from pathlib import Path

from lab.errors import UsageError
from lab.images.dockerfile.globs import BadPattern, Patterns


def parse(text: str, name: str = ".dockerignore") -> Patterns:
    """The rules of a .dockerignore file's text. Raises UsageError with the line of a malformed pattern."""
    lines: list[str] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.strip()
        if not line or raw.startswith("#"):
            continue
        try:
            Patterns.of([line])
        except BadPattern:
            raise UsageError(
                f"{name}:{number}: {line!r} is no pattern", hint="close the [, or quote it with a backslash"
            ) from None
        lines.append(line)
    return Patterns.of(lines)


def read(context: Path, dockerfile: Path) -> Patterns:
    """``<dockerfile>.dockerignore`` where it exists, else ``.dockerignore`` of the context, else nothing."""
    for candidate in (dockerfile.with_name(dockerfile.name + ".dockerignore"), context / ".dockerignore"):
        if candidate.is_file():
            return parse(candidate.read_text("utf-8", "surrogateescape"), candidate.name)
    return Patterns()
