"""How several processes share the tests (pytest-xdist, ``-n 2``): who runs which file, who keeps others waiting."""

from __future__ import annotations

import fcntl
from io import TextIOWrapper
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

DOOR, ROOM = Path(__file__), Path(__file__).with_name("conftest.py")
"""Two files that all processes have in common and that are there anyway, to lock."""


APART = ("tests/vm/test_own_disks.py",)
"""It takes a quarter of all that machines take, and little of that for the guest."""


ON_DEBIAN = frozenset(
    f"tests/container/test_{name}.py"
    for name in ("criu_check", "images_bases", "ready", "scenario_documented", "study_documented")
)
"""They need an image of Debian, or of Python on it: half a minute for whoever makes it."""


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist says nothing of its types
    """A file at a time; those that need a guest, a machine or Debian go to one process, which makes it once."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        if file in ON_DEBIAN:
            return "on Debian"
        folder = "/".join(nodeid.split("/")[:2])
        return folder if folder in ("tests/vm", "tests/machines") and file not in APART else file


class Turn:
    """This process's: beside the tests of others or, ``alone``, when there are none."""

    def __init__(self) -> None:
        self.alone = False
        self._room: TextIOWrapper | None = None

    def take(self, *, alone: bool) -> None:
        """Wait for it, unless it was kept. Who waits stands in the door, so that nobody overtakes: flock(2) itself
        keeps no order.
        """
        if self._room is not None and self.alone == alone:
            return
        self.give()
        with DOOR.open() as door:
            self._room, self.alone = ROOM.open(), alone
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(door, fcntl.LOCK_UN)

    def give(self) -> None:
        """Let others have it."""
        if self._room is not None:
            fcntl.flock(self._room, fcntl.LOCK_UN)  # a process that a test has forked may hold the file open
            self._room.close()
            self._room = None


TURN = Turn()
