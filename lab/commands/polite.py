"""What measures in the background waits for others who measure and for a quiet host, and runs lab as a process of its
own, so that the hundredth measurement begins like the first.
"""

from __future__ import annotations

import fcntl
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.commands.output import say
from lab.host.home import home
from lab.host.identity import private
from lab.host.survey import quiet

LAB = (sys.executable, "-m", "lab.cli.main")
LOOK_SECONDS = 5.0
"""How long others are watched before a host is called quiet."""
PAUSE_SECONDS = 60.0
"""Between two looks at a busy host."""
ENDS_WITHIN_SECONDS = 120.0


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two that measure disturb each other: of all that wait here with one LAB_HOME, one goes on at a time."""
    home().mkdir(parents=True, exist_ok=True)
    lock = private.lock_file(home() / "watch.lock")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("lab: another lab watch or lab sweep measures here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def becomes_quiet(busy: float, patience_seconds: float) -> bool:
    """Whether others use at most ``busy`` processors on average, now or before the patience is at its end. Where the
    kernel does not tell, the host counts as quiet; and where there are no more, nobody has to look.
    """
    if busy >= (os.cpu_count() or math.inf):
        return True
    deadline, told = time.monotonic() + patience_seconds, False
    while True:
        before = quiet.read()
        time.sleep(LOOK_SECONDS)
        used = quiet.read().busy_since(before)
        if used is None or used <= busy:
            return True
        if time.monotonic() + PAUSE_SECONDS > deadline:
            return False
        if not told:
            say(f"lab: others use {used:.1f} processors; waiting until they use {busy:g} at most")
            told = True
        time.sleep(PAUSE_SECONDS)


def apart(words: Sequence[str | Path], directory: Path, lab: Sequence[str] = LAB) -> tuple[int, bytes]:
    """Run ``lab WORDS`` in ``directory`` to its end: its exit code, and what it wrote to standard output.

    It is in a process group of its own: a Ctrl-C is passed on once, and waited for. The death of the thread that
    called ends it as well (PR_SET_PDEATHSIG of prctl(2)).
    """
    with subprocess.Popen(
        ["setpriv", "--pdeathsig=TERM", "--", *lab, *map(str, words)],
        cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, process_group=0,
    ) as process:  # fmt: skip
        try:
            told, _ = process.communicate()
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=ENDS_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return process.returncode, told
