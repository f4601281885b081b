"""A measurement as another process hears of it: lines of JSON into a pipe, one way. Nothing is read from there.

Set once, by a process that measures for another (`Audience.told`); `lab.commands.progress` and `lab compare` tell it
what they show. When nobody listens any more, this process asks itself to end, as SIGTERM would.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.experiment.watch import Watch
from lab.host.command import run

LONGEST_SECONDS = 180.0


class Audience:
    """Who hears of what this process measures; nobody unless it was said."""

    told: Telling | None = None


class Telling:
    """The end of the pipe that is written to."""

    def __init__(self, descriptor: int, lesson: Path) -> None:
        self._descriptor, self._lesson = descriptor, lesson
        self._guard: threading.Thread | None = None

    def begin(self, what: str) -> None:
        """The first line: ``what`` is made ready. Only later ones notice that nobody listens: a launcher is forked by
        a process of one thread.
        """
        self._write(json.dumps({"event": "doing", "what": what}))

    def tell(self, event: str, **more: Any) -> None:
        """One line. Whoever is gone hears nothing."""
        self._line(json.dumps({"event": event, **more}))

    def answers(self, folder: Path, *, more: bool) -> None:
        """What the run in ``folder`` answers by now: found out by a process of its own, so that nothing of it stays.

        A run that has answered nothing yet tells nothing.
        """
        words = [str(self._lesson), str(folder), "more" if more else "over"]
        try:
            done = run(
                [sys.executable, "-m", "lab.classroom.questions.telling", *words], timeout_seconds=LONGEST_SECONDS
            )
        except LabError as error:
            self.tell("doing", what=f"can't be told: {error.message}")
            return
        self._line(done.stdout.decode().strip())

    def _line(self, text: str) -> None:
        if self._guard is None:
            self._guard = threading.Thread(target=_end_when_nobody_listens, args=(self._descriptor,), daemon=True)
            self._guard.start()
        self._write(text)

    def _write(self, text: str) -> None:
        data = memoryview(f"{text}\n".encode())
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BrokenPipeError:
            pass  # the guard has noticed it too


def _end_when_nobody_listens(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # of what was not asked for, POLLERR is told: no reader is left (pipe(7), poll(2))
    while not any(found & select.POLLERR for _, found in poll.poll()):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def heard(watch: Watch) -> Watch:
    """``watch``, and whoever else hears of it."""
    return watch if Audience.told is None else _Both(watch, Audience.told)


def heard_after_blocks(usual: Callable[[float, float], None], folder: Path) -> Callable[[float, float], None]:
    """``usual`` after each block, and then what the run answers by now, where somebody hears of it."""
    told = Audience.told
    if told is None:
        return usual

    def after(seconds: float, left: float) -> None:
        usual(seconds, left)
        told.answers(folder, more=left > 0)

    return after


class _Both:
    def __init__(self, watch: Watch, told: Telling) -> None:
        self._watch, self._told = watch, told

    def doing(self, what: str) -> None:
        self._watch.doing(what)
        self._told.tell("doing", what=what)

    def progress(self, done: int, expected: int) -> None:
        self._watch.progress(done, expected)
        self._told.tell("progress", done=done, expected=expected)

    def note(self, sentence: str) -> None:
        self._watch.note(sentence)
