"""What measures for ``lab class serve --live``: ``lab compare``, which tells a pipe what it does and finds.

    python -m lab.cli.classroom.measuring DESCRIPTOR LESSON_FOLDER lab's words …

It keeps root, which the server gives up, and reads nothing from it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.commands.output import say

PATIENCE_SECONDS = 120.0


@contextmanager
def measuring(lesson: Path, words: Sequence[str]) -> Iterator[int]:
    """Meanwhile ``lab WORDS`` runs; yields where it is heard. Afterwards it has ended, and left nothing behind."""
    reading, writing = os.pipe()
    argv = [sys.executable, "-m", "lab.cli.classroom.measuring", str(writing), str(lesson.resolve()), *words]
    try:
        process = subprocess.Popen(argv, pass_fds=(writing,), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    finally:
        os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)  # which it notices: this process may have left root, and then can't signal it
        _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        say("waiting until what measures has cleaned up")
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"process {process.pid} still measures; end it: sudo kill {process.pid}")


def main() -> None:
    """Become ``lab`` with the words given, heard by the descriptor."""
    from lab.commands.telling import Audience, Telling

    descriptor, lesson, *words = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)
    told = Audience.told = Telling(int(descriptor), Path(lesson))
    told.begin("making ready what is measured")
    sys.argv = ["lab", *words]
    from lab.cli import app

    try:
        app.main()
    except SystemExit as end:
        if end.code in (0, None):
            told.tell("over")
        raise


if __name__ == "__main__":
    main()
