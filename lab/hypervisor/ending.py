"""The end of a machine, whatever it booted: all of it is tried, whatever fails, and then verified."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from lab.errors import LabError
from lab.host.cgroup.control import ControlGroup


class Made(Protocol):
    """What was made on the host for a machine."""

    @property
    def name(self) -> str: ...
    @property
    def directory(self) -> Path: ...
    @property
    def cgroup(self) -> ControlGroup: ...


def take_down(made: Made, closing: Sequence[Callable[[], None]], release: Callable[[], None] | None) -> None:
    """Call each of ``closing``, which end QEMU and what talks to it, remove what was ``made``, and ``release`` the
    rest.

    Raises LabError if something survived.
    """
    with ExitStack() as acts:  # the last of them is done first
        acts.callback(_verify_gone, made)
        if release is not None:
            acts.callback(release)
        acts.callback(made.cgroup.remove)
        acts.callback(shutil.rmtree, made.directory, ignore_errors=True)
        for close in reversed(closing):
            acts.callback(close)


def _verify_gone(made: Made) -> None:
    left = [str(made.directory)] if made.directory.exists() else []
    left += [f"cgroup {made.cgroup.path}"] if made.cgroup.exists() else []
    if left:
        raise LabError(f"{made.name} left behind: {', '.join(left)}", hint="lab clean")
