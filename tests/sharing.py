"""How several processes share the tests (pytest-xdist, ``-n 3``): who runs which file, who keeps others waiting."""

from __future__ import annotations

import fcntl
import time
from io import TextIOWrapper
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

DOOR, ROOM = Path(__file__), Path(__file__).with_name("conftest.py")
"""Two files that all processes have in common and that are there anyway, to lock."""


TYPED = frozenset(f"tests/unit/test_{name}.py" for name in ("style", "docs_adding"))
"""Both ask mypy, which the second time knows what it found out of all that others wrote."""


MACHINES_TOO = frozenset(
    f"tests/vm/test_{name}.py"
    for name in ("compare_all", "detached_machines", "knobs_of_machines", "own_disks")
)  # fmt: skip
"""About half of what machines take: another process's, since all have one guest."""


WITH_SOME_ALONE = frozenset(
    f"tests/container/test_{name}.py"
    for name in ("backends_bwrap", "backends_gvisor", "backends_nspawn", "detached_faults", "instruments",
                 "instruments_of_crossings", "oci_containerd", "oci_path", "oci_podman", "run_foreground",
                 "runtime_failures", "tracing")
)  # fmt: skip
"""In them are tests that run alone: one after the other in one process, which waits for the others once for all."""


ON_DEBIAN = frozenset(
    f"tests/container/test_{name}.py"
    for name in ("criu_check", "exercises_graded", "images_bases", "ready", "scenario_documented", "study_documented")
)
"""They need an image of Debian, or of Python on it: half a minute for whoever makes it."""


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist says nothing of its types
    """A file at a time; those that need machines go to two processes, others that share what is slow to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        if file in ON_DEBIAN:
            return "on Debian"
        if file in TYPED:
            return "typed"
        if file in WITH_SOME_ALONE:
            return "alone"
        if file in MACHINES_TOO:
            return "machines too"
        folder = "/".join(nodeid.split("/")[:2])
        return folder if folder in ("tests/vm", "tests/machines") else file


HEAD_START_SECONDS = 1.0


class Turn:
    """This process's: beside the tests of others or, ``alone``, when there are none.

    A process that runs alone is first, when there is nobody to be waited for: the others begin a moment later.
    """

    def __init__(self) -> None:
        self.alone = self._had_one = False
        self._room: TextIOWrapper | None = None

    def take(self, *, alone: bool) -> None:
        """Wait for it, unless it was kept. Who waits stands in the door, so that nobody overtakes: flock(2) itself
        keeps no order.
        """
        if self._room is not None and self.alone == alone:
            return
        self.give()
        if not (alone or self._had_one):
            time.sleep(HEAD_START_SECONDS)
        self._had_one = True
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
