"""C programs of lab's own: compiled on this host once per source, and kept in lab's home."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.errors import CommandError, LabError
from lab.host.command import run
from lab.host.identity import private

REMEDY = "apt-get install gcc libc6-dev"
COMPILE_SECONDS = 120.0


def digest_of(command: Sequence[str], sources: Sequence[Path]) -> str:
    """SHA-256 over the compile command, the processor and the sources, 16 hex digits: the same digest, the same
    program, in a home that hosts of several kinds share, too.
    """
    whole = hashlib.sha256("\0".join((os.uname().machine, *command)).encode())
    for source in sources:
        whole.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return whole.hexdigest()[:16]


def compiled(
    finished: Path, command: Sequence[str], sources: Sequence[Path], *, libraries: Sequence[str] = ()
) -> Path:
    """The program ``finished``, compiled if it is not there yet, in a folder of its own within a folder of such.

    Safe against a second lab that compiles at the same time. Raises LabError, with the remedy, when there is no
    compiler or no static C library.
    """
    if finished.exists():
        return finished
    cellar = finished.parent.parent
    cellar.mkdir(parents=True, exist_ok=True)
    with os.fdopen(private.lock_file(cellar / ".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            from lab.host.survey.virtualisation import platform  # lab-oci, which finds it compiled, has no use for it

            seconds = platform().patience * COMPILE_SECONDS
            with tempfile.TemporaryDirectory(dir=cellar, prefix=".build-") as scratch:
                built = Path(scratch) / finished.name
                try:
                    run([*command, "-o", built, *sources, *libraries], timeout_seconds=seconds)
                except CommandError as error:
                    raise LabError(
                        "lab's helper program can't be compiled", hint=REMEDY, detail=error.detail or error.message
                    ) from error
                built.chmod(0o755)
                finished.parent.mkdir(exist_ok=True)
                finished.parent.chmod(0o755)
                built.rename(finished)
    return finished
