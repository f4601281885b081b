"""A scenario's own work: one command, inside an instance or in a copy of the image beside it, timed by the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.host.clock import now
from lab.instance import Instance
from lab.model import Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How the command ended, and for how long it ran by the host's clock."""

    completed: Completed
    seconds: float


Beside = Callable[[Sequence[str], float], Done]
"""Runs a command with a time limit in seconds; raises LabError when it can't be run or does not end in time."""


def run_inside(instance: Instance, argv: Sequence[str], timeout_seconds: float) -> Done:
    """Run ``argv`` in the instance. The way in and out is part of the time: for a guest, its agent's polling too."""
    began = now()
    completed = instance.execute(argv, timeout_seconds=timeout_seconds)
    return Done(completed=completed, seconds=now() - began)
