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
import signal
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from enum import StrEnum
from errno import ENOENT
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab import record
from lab.backends.bubble.options import OPTIONS, command, options
from lab.errors import LabError, LaunchError
from lab.host import procstat
from lab.host.clock import Listener, Timeline, now
from lab.host.execution import terminals
from lab.host.survey.patience import Deadline
from lab.images.tree import Tree
from lab.inside import build
from lab.instance import INSIDE
from lab.model import Completed, Phase, Process, TerminalSize
from lab.runtime import bundle
from lab.runtime.config.model import User
from lab.runtime.launcher import execs
from lab.runtime.launcher.descriptors import memory_file, pipe
from lab.runtime.launcher.spec import Spec
from lab.runtime.plan import CgroupsPlan, Enter
from lab.runtime.planning import translate
from lab.runtime.rootfs import streams
from lab.runtime.rootfs.layers import Overlay
from lab.runtime.seccomp import compiler

if TYPE_CHECKING:
    from lab.backends.support.programs.fetched import Program
    from lab.host.cgroup.control import ControlGroup
    from lab.runtime.launcher.execs import Exec
    from lab.runtime.launcher.launcher import Container, Launcher

TIMEOUT_SECONDS = 30.0
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
EXECUTED = "0"
POINTS, POINTS_FOLDER = ("proc", "dev"), "points"
"""Folders that bwrap would make in what the image holds, where that has none."""


class Made(StrEnum):
    """The steps of a start that are bwrap's, as far as they show."""

    NAMESPACES = "let bwrap make namespaces"
    SANDBOX = "let bwrap set up the sandbox"


class Sandbox:
    """A running one: what `lab.runtime.launcher.launcher.Container` is for lab's own runtime."""

    def __init__(self, spec: Spec, bwrap: Container, first: int, timeline: Timeline) -> None:
        """``first`` is its first process inside, which may have ended."""
        self.name = spec.name
        self.spec = spec
        self.cgroup = bwrap.cgroup
        self.launcher: Launcher = bwrap.launcher
        self.timeline = timeline
        self.pid = first
        self.pidfd = _opened(first, bwrap.cgroup)
        self._bwrap = bwrap

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
                words = [*options(spec.config, root, survives=spec.survives), *_directory(spec)]
                given = [told_end, stdio[0], info_end, memory_file(_listed(words), opened)]
                if spec.config.linux.seccomp:
                    given.append(memory_file(compiler.compile(spec.config.linux.seccomp), opened))
                around = _around(program, spec, len(given), launcher.scratch)
                bwrap = _start(launcher, around, given, stdio, timeline)
                undo.callback(bwrap.close)
            finally:
                os.close(told_end)
                os.close(info_end)
            with timeline.step(program.path.name, Made.NAMESPACES):
                first = _first_told(info, bwrap)
            if first > 0:
                timeline.mark(Phase.ISOLATED)
            with timeline.step(program.path.name, Made.SANDBOX):
                text, at = _heard(told, bwrap).decode(), now()
            if text != EXECUTED:
                raise _failure(spec, text, bwrap, errors)
            timeline.mark(Phase.EXECUTED, at)
            sandbox = cls(spec, bwrap, first, timeline)
            undo.pop_all()
        return sandbox

    @classmethod
    def take_over(cls, spec: Spec, bwrap: Container, timeline: Timeline) -> Self:
        """What a process of lab's has launched that was killed. Raises LabError when it has ended."""
        first = next((pid for pid in bwrap.cgroup.processes() if _parent(pid) == bwrap.pid), -1)
        if first < 0:
            raise LabError(f"sandbox {spec.name} has ended")
        return cls(spec, bwrap, first, timeline)

    def placement(self) -> CgroupsPlan:
        """Where its processes are placed."""
        return self._bwrap.placement()

    def name_execution(self) -> str:
        """A name for one more process in it."""
        return self._bwrap.name_execution()

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        """Run a command as root, with what the sandbox's root has. See `lab.instance.Instance.execute`."""
        self._require_running()
        process = execs.exec_process(self.spec.config, argv, User(uid=0, gid=0), "/")
        return execs.run(self, process, stdin=stdin, timeout_seconds=timeout_seconds)

    def begin(self, process: Process, stdio: Sequence[int], *, terminal: TerminalSize | None = None) -> Exec:
        """Start one more process in it; see `lab.runtime.launcher.execs.start`."""
        self._require_running()
        return execs.start(self, execs.resolved(self.spec.config, process), stdio, terminal=terminal)

    def _require_running(self) -> None:
        if self._bwrap.wait(0) is not None or self.pidfd < 0:
            raise LabError(f"sandbox {self.name} has ended")

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n), or None when the time ran out first."""
        return self._bwrap.wait(timeout_seconds)

    def signal(self, number: int) -> None:
        """To its first process, the helper, which forwards it: bwrap does not. No error if it has ended."""
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Kill what still runs and remove everything that was made for it, verified. Idempotent."""
        try:
            self._bwrap.close()
        finally:
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1


def _around(program: Program, spec: Spec, given: int, scratch: Path) -> Spec:
    """The process that is bwrap: root of the host's, in the host's root, with the sandbox's root mounted beside."""
    terminal = terminals.as_option(spec.terminal) if spec.terminal else []
    words = [str(program.path), "--args", str(OPTIONS), "--", *command(spec.config.process, terminal)]
    process = Process(
        argv=(str(build.program()), "wire", str(given), "--", *words), environment={"PATH": bundle.DEFAULT_PATH}
    )
    network = next(each.path for each in spec.config.linux.namespaces if each.type == "network")
    bare = bundle.process_config(process, network_namespace=network)
    config = record.replace(
        bare,
        process=record.replace(bare.process, rlimits=spec.config.process.rlimits),
        mounts=(*spec.config.mounts, bundle.bind(build.program().parent, str(Path(INSIDE).parent))),
        linux=record.replace(bare.linux, resources=spec.config.linux.resources),
    )
    assert isinstance(spec.root, Overlay)
    points = scratch / POINTS_FOLDER
    for name in POINTS:
        (points / name).mkdir(parents=True, exist_ok=True)
    root = replace(spec.root, lower=(*spec.root.lower, points))
    return replace(spec, config=config, root=root, init=False, terminal=None, enter=Enter.STAY)


def _start(
    launcher: Launcher, spec: Spec, given: Sequence[int], stdio: Sequence[int], timeline: Timeline
) -> Container:
    """Start it, and send it the descriptors meanwhile. What is a phase of bwrap's is none of the instance's."""
    steps = None if timeline.listener is None else _Steps(timeline.listener)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for descriptor in given:
            socket.send_fds(ours, [b"d"], [descriptor])
        output, errors = stdio[1:]
        return launcher.launch(spec, stdin=theirs.fileno(), stdout=output, stderr=errors, timeline=Timeline(steps))


class _Steps:
    """Passes on to ``listener`` what was done, and not what it means."""

    def __init__(self, listener: Listener) -> None:
        self.remark = listener.remark
        self.taken = listener.taken

    def marked(self, phase: Phase, at: float) -> None:
        """Not heard."""


def _directory(spec: Spec) -> list[str]:
    """A working directory that the image lacks is made, as everywhere."""
    assert isinstance(spec.root, Overlay)
    wanted = spec.config.process.cwd
    with suppress(OSError):
        if Tree(spec.root.lower).resolve(os.fsencode(wanted))[1] is not None:
            return []
    return ["--dir", wanted]


def _listed(words: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _heard(source: int, bwrap: Container) -> bytes:
    """The next that is written to that pipe, b"" when nobody will write to it any more, or bwrap has ended."""
    deadline = Deadline(TIMEOUT_SECONDS)
    if not deadline.ready([source, bwrap.pidfd]):
        raise LaunchError(f"bwrap did not start {bwrap.name} within {deadline.seconds:g} s", exit_code=FAILED)
    os.set_blocking(source, False)
    with suppress(BlockingIOError):
        return os.read(source, 1 << 12)
    return b""


def _first_told(info: int, bwrap: Container) -> int:
    """The pid of the first process inside, as bwrap tells it, in several pieces; -1 when it has failed instead."""
    said = b""
    while not said.rstrip().endswith(b"}"):
        part = _heard(info, bwrap)
        if not part:
            return -1
        said += part
    return int(json.loads(said)["child-pid"])


def _failure(spec: Spec, text: str, bwrap: Container, errors: Path) -> LaunchError:
    """What ``text``, an errno of the application's execve(2), means, or "": then bwrap has complained."""
    program = spec.config.process.args[0]
    if text:
        return LaunchError(
            f"container {spec.name}: execve: {program}: {os.strerror(int(text))}",
            exit_code=NOT_FOUND if int(text) == ENOENT else NOT_EXECUTABLE,
            hint="does the image hold that program?",
        )
    code = bwrap.wait(TIMEOUT_SECONDS)
    said = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    why = said[-1].removeprefix("bwrap: ") if said else f"it ended with exit code {code}, and gave no reason"
    return LaunchError(f"bwrap can't start {spec.name}: {why}", exit_code=FAILED)


def _opened(pid: int, cgroup: ControlGroup) -> int:
    """A pidfd of a process of that group, -1 when it has ended: another one may have its number since."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if pid in cgroup.processes():
        return pidfd
    os.close(pidfd)
    return -1


def _parent(pid: int) -> int:
    """0 of a process that has ended (proc_pid_stat(5))."""
    try:
        return int(procstat.fields(pid)[1])
    except (OSError, ValueError):
        return 0
