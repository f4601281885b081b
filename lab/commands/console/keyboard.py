"""Keys as they are pressed, for what is drawn on a screen of its own; where nobody sits at a terminal, none."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

INPUT = 0
LONGEST = 64
ESCAPE = "\x1b"
NAMES = {
    " ": "space", "\r": "enter", "\n": "enter", ESCAPE: "escape",
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
}  # fmt: skip
"""What xterm and its kin send (ctlseqs, "PC-Style Function Keys"); any other letter is its own name."""


class Keyboard:
    """What was pressed. ``there`` says whether anything can be; without it time passes and nothing is."""

    def __init__(self, *, there: bool) -> None:
        self.there = there

    def pressed(self, within_seconds: float) -> list[str]:
        """The keys that are pressed until then, by name; returns as soon as there is one."""
        if not self.there:
            time.sleep(within_seconds)
            return []
        ready, _, _ = select.select([INPUT], [], [], within_seconds)
        if not ready:
            return []
        typed = os.read(INPUT, LONGEST).decode(errors="replace")
        if not typed:  # it has hung up
            self.there = False
        return list(_named(typed))


def _named(typed: str) -> Iterator[str]:
    while typed:
        length = next((length for length in (3, 1) if typed[:length] in NAMES), 1)
        word, typed = typed[:length], typed[length:]
        yield NAMES.get(word, word)


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """The terminal's, which shows no keys meanwhile and passes each on at once; restored after SIGKILL, too."""
    try:
        from lab.commands.console.terminal import Terminal
    except ModuleNotFoundError:  # termios, which is not everywhere
        yield Keyboard(there=False)
        return
    if not os.isatty(INPUT):
        yield Keyboard(there=False)
        return
    with Terminal(interactive=True, screen=True):
        yield Keyboard(there=True)
