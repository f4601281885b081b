"""The story of one container of nspawn's: its group and root by lab → systemd-nspawn → the helper inside → the
application.

    1. a socket for nspawn to tell that it is ready; pipes, and the environment in a file in memory
    2. lab's small process starts a shell in the instance's group and network, where the overlay is mounted and
       nothing of it shows elsewhere on the host. It hides the host's /run, and becomes nspawn
    3. nspawn makes namespaces, mounts, two groups below the instance's, and names the first process    → ISOLATED
    4. it drops capabilities, installs its filters, executes lab's helper, which tells of execve(2)      → EXECUTED

nspawn stays, and waits for that first process: its exit code is the application's.

Source: systemd-nspawn(1); sd_notify(3).
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.backends.support.programs.enclosed import (
    EXECUTED,
    Enclosed,
    around,
    failure,
    heard,
    start,
    working_directory,
)
from lab.backends.systemd.learned import learned
from lab.backends.systemd.options import (
    ENCLOSE,
    GIVEN,
    NO_FILTER,
    OWN,
    POINTS,
    RUN,
    SYSTEMS_RUN,
    VARIABLES,
    command,
    options,
)
from lab.backends.systemd.origin import environment
from lab.errors import LabError, LaunchError
from lab.host.cgroup.hierarchy import host_hierarchies
from lab.host.clock import Timeline, now
from lab.host.execution import terminals
from lab.images.tree import Tree
from lab.model import Completed, Phase, Process, TerminalSize
from lab.record import replace
from lab.runtime.launcher.descriptors import memory_file, pipe
from lab.runtime.launcher.spec import Spec
from lab.runtime.planning import translate
from lab.runtime.rootfs import streams
from lab.runtime.rootfs.layers import Overlay

if TYPE_CHECKING:
    from lab.backends.support.programs.fetched import Program
    from lab.runtime.config.model import MountConfig
    from lab.runtime.launcher.execs import Exec
    from lab.runtime.launcher.launcher import Container, Launcher
    from lab.runtime.plan import CgroupsPlan

NSPAWN = "systemd-nspawn"
PAYLOAD = "payload"
"""The group below the instance's in which nspawn puts what it contains; it waits in another one beside."""

LEADER = b"X_NSPAWN_LEADER_PID="
"""What nspawn says, besides other things, when the namespaces and what is mounted in them are there."""

READY = b"READY=1"
READY_SECONDS = 2.0

VISIBLE_GROUPS = Path("/sys/fs/cgroup")

IN_RUN = b"run"
NSPAWNS = (b"proc", b"sys", b"dev")
"""What nspawn mounts anew besides, with all that is below."""


class Made(StrEnum):
    """The steps of a start that are nspawn's, as far as they show."""

    BOUNDARY = "let nspawn set up the container"
    APPLICATION = "let nspawn start its first process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What is asked of nspawn besides: its filter, as it has one by itself, and Docker's capabilities or its own."""

    filtered: bool
    dockers_capabilities: bool


class NspawnContainer(Enclosed):
    """One of nspawn's."""

    kind = "container"

    def __init__(self, spec: Spec, outer: Container, first: int, timeline: Timeline) -> None:
        super().__init__(spec, outer, first, timeline)
        self._learning = threading.Lock()
        self._learned = False

    @classmethod
    def launch(
        cls,
        launcher: Launcher,
        program: Program,
        levels: Levels,
        spec: Spec,
        stdio: Sequence[int],
        timeline: Timeline,
        errors: Path,
    ) -> Self:
        """Start it and return once the application has been executed; ``errors`` is where nspawn complains.

        Raises LaunchError; nothing is left behind then.
        """
        program.binary.require_unchanged()
        with ExitStack() as opened, ExitStack() as undo:
            notified, place = opened.enter_context(_notified(launcher, spec.name))
            told, told_end = pipe(opened)
            streams.give_pipes(translate.process_plan(spec.config, init=True), list(stdio))
            try:
                variables = memory_file(_variables(spec), opened)
                words = _words(launcher, program, levels, spec, place)
                known = {**VARIABLES, **({} if levels.filtered else NO_FILTER), **environment(program.libraries)}
                outer = around(spec, words, GIVEN, launcher, _points(spec), known)
                nspawn = start(launcher, outer, [told_end, stdio[0], variables], stdio, timeline)
                undo.callback(nspawn.close)
            finally:
                os.close(told_end)
            with timeline.step(NSPAWN, Made.BOUNDARY):
                first, told_of = _first_told(notified, nspawn)
            if first > 0:
                timeline.mark(Phase.ISOLATED)
            with timeline.step(NSPAWN, Made.APPLICATION):
                text, at = heard(told, nspawn, NSPAWN).decode(), now()
            if text != EXECUTED:
                raise failure(spec, NSPAWN, text, nspawn, errors)
            timeline.mark(Phase.EXECUTED, at)
            _await_ready(notified, nspawn, told_of)
            container = cls(spec, nspawn, first, timeline)
            undo.pop_all()
        return container

    def placement(self) -> CgroupsPlan:
        """Where what it contains is placed: nspawn has made a group for it."""
        found = super().placement()
        return replace(found, unified=f"{found.unified}/{PAYLOAD}" if found.unified else "")

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        self._learn()
        return super().execute(argv, stdin=stdin, timeout_seconds=timeout_seconds)

    def begin(self, process: Process, stdio: Sequence[int], *, terminal: TerminalSize | None = None) -> Exec:
        self._learn()
        return super().begin(process, stdio, terminal=terminal)

    def _learn(self) -> None:
        """Once, before the first command: what nspawn has left its first process."""
        self._require_running()
        with self._learning:
            if self._learned:
                return
            try:
                self.spec = learned(self.spec, self.pid)
            except OSError as error:
                raise LabError(f"container {self.name} has ended") from error
            self._learned = True


@contextmanager
def _notified(launcher: Launcher, name: str) -> Iterator[tuple[int, Path]]:
    """A socket that sd_notify(3) speaks to, and its file, whose path may be too long for an address (unix(7))."""
    place = launcher.scratch / f"notify-{name}"
    folder = os.open(launcher.scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(f"/proc/self/fd/{folder}/{place.name}")
            try:
                yield listening.fileno(), place
            finally:
                place.unlink()
    finally:
        os.close(folder)


def _first_told(notified: int, nspawn: Container) -> tuple[int, bytes]:
    """The pid of the first process inside, -1 when nspawn has failed instead; and all that it said until then."""
    seen = b""
    while text := heard(notified, nspawn, NSPAWN):
        seen += text
        for line in text.split(b"\n"):
            if line.startswith(LEADER):
                return int(line.removeprefix(LEADER)), seen
    return -1, seen


def _await_ready(notified: int, nspawn: Container, seen: bytes) -> None:
    """Until nspawn has told that it is ready, right after the pid: where nobody listens, it complains on what is the
    application's standard error.
    """
    deadline = time.monotonic() + READY_SECONDS
    while READY not in seen and (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([notified, nspawn.pidfd], [], [], left)
        if notified not in ready:
            return
        with suppress(BlockingIOError):
            seen += os.read(notified, 1 << 12)


def _variables(spec: Spec) -> bytes:
    return b"".join(os.fsencode(variable) + b"\0" for variable in spec.config.process.env)


def _words(launcher: Launcher, program: Program, levels: Levels, spec: Spec, notify: Path) -> list[str]:
    """The shell's, and then nspawn's."""
    run = SYSTEMS_RUN if Path(SYSTEMS_RUN).is_dir() else RUN
    unified = host_hierarchies().unified
    groups = "" if unified in (None, VISIBLE_GROUPS) else str(unified)
    root = launcher.scratch / "root"
    assert isinstance(spec.root, Overlay)
    tree = Tree(spec.root.lower)
    terminal = terminals.as_option(spec.terminal) if spec.terminal else []
    told = options(
        spec.config,
        f"{run}/{OWN}/root",
        shown=[(f"{root}/run/{name}", f"/run/{name}") for name in shown_in_run(tree, spec.config.mounts)],
        dockers_capabilities=levels.dockers_capabilities,
    )
    return [
        "/bin/sh", "-c", ENCLOSE, NSPAWN, run, str(notify), str(root), groups,
        str(program.path), *told, "--", *command(spec.config.process, terminal),
    ]  # fmt: skip


def shown_in_run(tree: Tree, mounts: Sequence[MountConfig]) -> list[str]:
    """What the image has in /run, and what lab mounts there: nspawn hides it behind a /run of its own.

    Each is given to nspawn by its path on the host, where an image's links would lead out of the image. So a link is
    left out, and where a mount comes to lie is found as it is made: by links within the root alone. Raises
    LaunchError for a mount that nspawn would hide.
    """
    own = tree.lookup(IN_RUN)
    if own is not None and own.is_symlink:
        raise LaunchError("nspawn mounts a /run of its own, and the image's is a link", hint="--on container")
    shown = {name for name in tree.names(IN_RUN) if not _is_link(tree, name)}
    for mount in mounts:
        first, *rest = _placed(tree, mount).split(b"/")
        if first in NSPAWNS or (first == IN_RUN and not rest):
            raise LaunchError(f"nspawn would hide what is mounted at {mount.destination}", hint="--on container")
        if first == IN_RUN:
            shown.add(rest[0])
    return sorted(os.fsdecode(name) for name in shown - {b"host"})


def _placed(tree: Tree, mount: MountConfig) -> bytes:
    """Where it comes to lie, below the root. Raises LaunchError where the way there is by a link that is left out."""
    parts = [part for part in os.fsencode(mount.destination).split(b"/") if part]
    try:
        for count, name in enumerate(parts):
            above, _ = tree.resolve(b"/".join(parts[:count]))
            if above == IN_RUN and (entry := tree.lookup(IN_RUN + b"/" + name)) and entry.is_symlink:
                raise LaunchError(
                    f"nspawn would hide what is mounted at {mount.destination}, behind a link of the image's in /run",
                    hint="--on container",
                )
        return tree.resolve(b"/".join(parts))[0]
    except OSError as error:
        raise LaunchError(f"{mount.destination} of the image can't be followed: {error.strerror}") from error


def _is_link(tree: Tree, name: bytes) -> bool:
    entry = tree.lookup(IN_RUN + b"/" + name)
    return entry is None or entry.is_symlink


def _points(spec: Spec) -> list[str]:
    """Folders that nspawn would make, and a working directory that the image lacks, which is made everywhere."""
    return [*POINTS, *working_directory(spec)]
