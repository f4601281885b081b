"""A live race for browsers: another process, which is not root's, shows it; this one races, and tells that one.

    python -m lab.commands.race.serving LISTENING HEARD STARTS

is that process, of a socket and the ends of two pipes: what it hears, and where it says that a round is to start.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lab.classroom.race.model import Race, Round
from lab.commands.output import say
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.commands.race.heat import Heat

FRAME_SECONDS = 0.1
"""Telling takes time from the copies that run."""
PATIENCE_SECONDS = 30.0


class Page:
    """What browsers see of the race, from the side that races."""

    def __init__(self, process: subprocess.Popen[bytes], telling: int, starts: int, link: str) -> None:
        self.link = link
        self._process, self._telling, self._starts = process, telling, starts
        self._last = ""

    def tell(self, **news: Any) -> None:
        """What has changed. Raises LabError where the page's server has ended."""
        line = json.dumps(news)
        if line == self._last:
            return
        self._last = line
        data = memoryview(f"{line}\n".encode())
        try:
            while data:
                data = data[os.write(self._telling, data) :]
        except BrokenPipeError as error:
            raise self._ended() from error

    def wait(self) -> None:
        """Until somebody starts a round. Raises LabError where the page's server has ended."""
        if not os.read(self._starts, 1):
            raise self._ended()

    def wait_for_its_end(self) -> None:
        """Until a signal comes."""
        self._process.wait()

    def _ended(self) -> LabError:
        return LabError("what serves the race's page has ended", hint="the same command begins another race")


@contextmanager
def served(listening: socket.socket, page: str, address: str) -> Iterator[Page]:
    """``page`` at ``listening``, which is at ``address``; afterwards nobody serves it any more."""
    heard, telling = os.pipe()
    waiting, starts = os.pipe()
    given = (listening.fileno(), heard, starts)
    words = [sys.executable, "-m", "lab.commands.race.serving", *map(str, given)]
    try:
        process = subprocess.Popen(
            words, pass_fds=given, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0
        )  # a Ctrl-C is this process's alone: the page is there until the copies are gone
    finally:
        os.close(heard)
        os.close(starts)
    key = secrets.token_urlsafe(32)
    showing = Page(process, telling, waiting, f"{address}/#{key}")
    try:
        showing.tell(key=key, page=page)  # by the pipe: whoever lists processes sees their words
        yield showing
    finally:
        os.close(telling)  # which it notices: it ends
        os.close(waiting)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_served(
    showing: Page, heat_of: Callable[[int], Heat], rounds: int, race_of: Callable[[Sequence[Round]], Race]
) -> Race:
    """All rounds, each of which waits until somebody starts it; then the page shows them again as often as somebody
    likes, until a signal comes.

    Raises LabError; when it returns or raises every copy is gone.
    """
    from lab.classroom.race.told import data

    done: list[Round] = []

    def tell(state: str, one: Round | None, at: float) -> None:
        race = data(race_of([*done, *([one] if one else [])]))
        place = len(done) if one else len(done) - 1
        showing.tell(race=race, place=place, rounds=rounds, state=state, at=at)

    for number in range(1, rounds + 1):
        heat = heat_of(number)
        tell("ready", heat.round(), -1.0)
        showing.wait()
        say(f"lab: round {number} of {rounds}")
        _race(heat, tell)
        done.append(heat.round())
    tell("done", None, -1.0)
    say("That was the race. The page shows it again; Ctrl-C ends it.")
    try:
        showing.wait_for_its_end()
    except KeyboardInterrupt:
        pass  # nothing is left to be stopped
    return race_of(done)


def _race(heat: Heat, tell: Callable[[str, Round, float], None]) -> None:
    last: Round | None = None
    with heat:
        while not heat.is_over:
            if (now := heat.round()) != last:
                tell("running", now, time.monotonic() - heat.began)
                last = now
            time.sleep(FRAME_SECONDS)
        tell("stopping", heat.round(), time.monotonic() - heat.began)


def main() -> None:
    """Be the server."""
    from lab.classroom.web.racing import serve_race

    listening, heard, starts = map(int, sys.argv[1:])
    with socket.socket(fileno=listening) as at:
        serve_race(at, heard, starts)


if __name__ == "__main__":
    main()
