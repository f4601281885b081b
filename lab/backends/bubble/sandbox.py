"""The story of one sandbox: its group and root by lab → bwrap → the helper inside → the application.

    1. the words that bwrap is told, in files in memory; pipes to hear of it
    2. lab's small process starts bwrap in the instance's group and network, where the overlay is mounted and nothing
       of it shows elsewhere on the host; its root stays the host's, since it is bwrap that enters another
    3. bwrap makes the namespaces and says which process is the first in them         → ISOLATED
    4. it mounts, drops capabilities, executes lab's helper, which tells of execve(2)  → EXECUTED

bwrap stays, and waits for that first process: its exit code is the application's. Commands beside the application are
lab's own doing: it enters the namespaces and gives away what bwrap gave away, which has no way to run a second one.

Source: bwrap(1); setns(2).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.backends.bubble.options import OPTIONS, command, options
from lab.backends.support.programs.enclosed import (
    EXECUTED,
    Enclosed,
    around,
    failure,
    heard,
    start,
    working_directory,
)
from lab.errors import LaunchError
from lab.host.clock import Timeline, now
from lab.host.execution import terminals
from lab.model import Phase
from lab.runtime.launcher.descriptors import memory_file, pipe
from lab.runtime.launcher.spec import Spec
from lab.runtime.planning import translate
from lab.runtime.rootfs import streams
from lab.runtime.seccomp import compiler

if TYPE_CHECKING:
    from lab.backends.support.programs.fetched import Program
    from lab.runtime.config.model import User
    from lab.runtime.launcher.launcher import Container, Launcher

BWRAP = "bwrap"
POINTS = ("proc", "dev")
"""Folders that bwrap would make in what the image holds, where that has none."""


class Made(StrEnum):
    """The steps of a start that are bwrap's, as far as they show."""

    NAMESPACES = "let bwrap make namespaces"
    SANDBOX = "let bwrap set up the sandbox"


class Sandbox(Enclosed):
    """One of bwrap's."""

    kind = "sandbox"

    @classmethod
    def launch(
        cls, launcher: Launcher, program: Program, spec: Spec, stdio: Sequence[int], timeline: Timeline, errors: Path
    ) -> Self:
        """Start it and return once the application has been executed; ``errors`` is where bwrap complains.

        Raises LaunchError; nothing is left behind then.
        """
        program.binary.require_unchanged()
        with ExitStack() as opened, ExitStack() as undo:
            told, told_end = pipe(opened)
            info, info_end = pipe(opened)
            streams.give_pipes(translate.process_plan(spec.config, init=True), list(stdio))
            try:
                root = str(launcher.scratch / "root")
                words = options(spec.config, root, survives=spec.survives)
                given = [told_end, stdio[0], info_end, memory_file(_listed(words), opened)]
                if spec.config.linux.seccomp:
                    given.append(memory_file(compiler.compile(spec.config.linux.seccomp), opened))
                outer = around(spec, _words(program, spec), len(given), launcher, _points(spec), user=_roots(spec))
                bwrap = start(launcher, outer, given, stdio, timeline)
                undo.callback(bwrap.close)
            finally:
                os.close(told_end)
                os.close(info_end)
            with timeline.step(program.path.name, Made.NAMESPACES):
                first = _first_told(info, bwrap)
            if first > 0:
                timeline.mark(Phase.ISOLATED)
            with timeline.step(program.path.name, Made.SANDBOX):
                text, at = heard(told, bwrap, BWRAP).decode(), now()
            if text != EXECUTED:
                raise failure(spec, BWRAP, text, bwrap, errors)
            timeline.mark(Phase.EXECUTED, at)
            sandbox = cls(spec, bwrap, first, timeline)
            undo.pop_all()
        return sandbox


def _words(program: Program, spec: Spec) -> list[str]:
    """Its options it reads from a descriptor."""
    terminal = terminals.as_option(spec.terminal) if spec.terminal else []
    return [str(program.path), "--args", str(OPTIONS), "--", *command(spec.config.process, terminal)]


def _roots(spec: Spec) -> User | None:
    user = spec.config.process.user
    return user if user.uid == 0 else None


def _points(spec: Spec) -> list[str]:
    """Folders that bwrap would make, and a working directory that the image lacks, which is made everywhere: bwrap
    would follow the image's links to it on the host.
    """
    return [*POINTS, *working_directory(spec)]


def _listed(words: Sequence[str]) -> bytes:
    """Raises LaunchError for a word that bwrap would take for several."""
    if any("\0" in word for word in words):
        raise LaunchError("a NUL byte is in a variable or a folder", hint="execve(2) takes none")
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _first_told(info: int, bwrap: Container) -> int:
    """The pid of the first process inside, as bwrap tells it, in several pieces; -1 when it has failed instead."""
    said = b""
    while not said.rstrip().endswith(b"}"):
        part = heard(info, bwrap, BWRAP)
        if not part:
            return -1
        said += part
    return int(json.loads(said)["child-pid"])
