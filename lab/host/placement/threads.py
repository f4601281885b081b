"""Keeping lab's own threads to some CPUs (sched_setaffinity(2)). It ends with the process, whatever ends it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def kept_to(cpus: Collection[int]) -> Iterator[None]:
    """All threads of this process, and those that they start meanwhile; then where they might run before."""
    before = os.sched_getaffinity(0)
    _move_all(cpus)
    try:
        yield
    finally:
        _move_all(before)


def keep_this_thread_to(cpus: Collection[int]) -> None:
    """The calling thread, and what it starts from now on. Nothing without ``cpus``."""
    if cpus:
        os.sched_setaffinity(0, cpus)


def _move_all(cpus: Collection[int]) -> None:
    """A thread that another one starts meanwhile has the affinity of either: those are moved in a second look."""
    moved: set[int] = set()
    while new := {int(task.name) for task in Path("/proc/self/task").iterdir()} - moved:
        for thread in new:
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(thread, cpus)
        moved |= new
