"""The one door for external commands: a line one can paste in the log, LANG fixed, a time limit."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lab.errors import CommandError
from lab.host.installed import BOOTSTRAP
from lab.model import Completed

log = logging.getLogger(__name__)

TAIL_LINES = 20
SYSTEM_FOLDERS = "/usr/sbin:/sbin"
"""Not in an ordinary user's PATH on Debian, yet mke2fs and ldconfig live there."""
_running: set[subprocess.Popen[bytes]] = set()


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
    called: str = "",
) -> Completed:
    """Run ``argv`` to its end and return its output.

    ``environment`` is added to lab's own, after ``LANG=C.UTF-8``; `SYSTEM_FOLDERS` end its PATH. ``hint`` is the
    remedy to print if the program is missing or fails, ``called`` what a complaint names where ``argv`` begins with a
    program in front of the one that is meant. Raises CommandError when it is missing, exits with another code than 0
    (unless ``check`` is False) or runs longer than ``timeout_seconds``. It is then killed, as when this process is
    interrupted, with all that it started: it is in a session of its own (setsid(2)).
    """
    words = [str(word) for word in argv]
    name = called or words[0]
    log.debug("+ %s", shlex.join(words))
    merged = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(environment or {})}
    merged["PATH"] = f"{merged.get('PATH') or os.defpath}:{SYSTEM_FOLDERS}"
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=merged, cwd=directory,
            pass_fds=tuple(pass_fds), start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise CommandError(f"{words[0]} is not installed", hint=hint or f"{BOOTSTRAP}lab doctor") from error
    _running.add(process)
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout_seconds)
        except BaseException as error:
            _send(process, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise CommandError(
                f"{name} did not finish within {timeout_seconds:g} s",
                hint=hint,
                detail=tail(error.stderr or b""),
            ) from error
        finally:
            _running.discard(process)
    code = process.returncode
    if check and code != 0:
        raise CommandError(f"{name} failed with exit code {code}", hint=hint, detail=tail(stderr or stdout))
    return Completed(exit_code=code, stdout=stdout, stderr=stderr)


def pass_on(number: int) -> None:
    """Send a signal to whatever `run` has begun, in any thread: no terminal does, since each has its own session."""
    for process in list(_running):
        if process.returncode is None:
            _send(process, number)


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    """To its whole group. Nobody else can have its number while any of them lives, or before it was waited for."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def tail(output: bytes, lines: int = TAIL_LINES) -> str:
    """The last lines of a program's output, decoded as far as it decodes."""
    return "\n".join(output.decode("utf-8", "replace").rstrip().splitlines()[-lines:])
