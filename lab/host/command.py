"""The one door for external commands: a line one can paste in the log, LANG fixed, a time limit."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import CommandError
from lab.model import Completed

log = logging.getLogger(__name__)

TAIL_LINES = 20


def run(
    argv: Sequence[str | Path],
    *,
    timeout_seconds: float,
    check: bool = True,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    pass_fds: Sequence[int] = (),
    hint: str = "",
) -> Completed:
    """Run ``argv`` to its end and return its output.

    ``environment`` is added to lab's own, after ``LANG=C.UTF-8``. ``hint`` is the remedy to print if the
    program is missing or fails. Raises CommandError when it is missing, exits with another code than 0
    (unless ``check`` is False) or runs longer than ``timeout_seconds``; it is then killed.
    """
    words = [str(word) for word in argv]
    log.debug("+ %s", shlex.join(words))
    merged = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(environment or {})}
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, timeout=timeout_seconds, env=merged, cwd=directory,
            pass_fds=tuple(pass_fds), check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise CommandError(f"{words[0]} is not installed", hint=hint or "./bootstrap lab doctor") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(
            f"{words[0]} did not finish within {timeout_seconds:g} s", hint=hint, detail=tail(error.stderr or b"")
        ) from error
    if check and done.returncode != 0:
        raise CommandError(
            f"{words[0]} failed with exit code {done.returncode}", hint=hint, detail=tail(done.stderr or done.stdout)
        )
    return Completed(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def tail(output: bytes, lines: int = TAIL_LINES) -> str:
    """The last lines of a program's output, decoded as far as it decodes."""
    return "\n".join(output.decode("utf-8", "replace").rstrip().splitlines()[-lines:])
