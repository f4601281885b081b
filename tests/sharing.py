"""How several processes share the tests (pytest-xdist, ``-n 2``): who runs which file, who keeps others waiting."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

DOOR, ROOM = Path(__file__), Path(__file__).with_name("conftest.py")
"""Two files that all processes have in common and that are there anyway, to lock."""


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist says nothing of its types
    """A file at a time; those that need a guest go to one process, which makes the guest once in its LAB_HOME."""

    def _split_scope(self, nodeid: str) -> str:
        return "vm" if nodeid.startswith("tests/vm/") else str(super()._split_scope(nodeid))


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Run beside the tests of other processes or, ``alone``, when there are none.

    Who waits stands in the door, so that nobody overtakes: flock(2) itself keeps no order.
    """
    with DOOR.open() as door, ROOM.open() as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # a process that the test has forked may hold the file open
