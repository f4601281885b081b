"""An application in what a program without an OCI command line has made around it: bwrap, systemd-nspawn.

lab's runtime starts that program, a process of the host's root, in the instance's group and network, where the
overlay is mounted and nothing of it shows elsewhere on the host; its root stays the host's, since it is the program
that enters another. It stays, and waits for the first process inside, lab's helper: its exit code is the
application's. Commands beside the application are lab's own doing: lab enters the namespaces and gives away what the
program gave away.

Source: setns(2).
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from errno import ENOENT
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from lab import record
from lab.errors import LabError, LaunchError
from lab.host import procstat
from lab.host.clock import Listener, Timeline
from lab.host.execution.told import errno_told
from lab.host.survey.patience import Deadline
from lab.images.tree import Tree
from lab.inside import build
from lab.instance import INSIDE
from lab.model import Completed, Phase, Process, TerminalSize
from lab.runtime import bundle
from lab.runtime.config.model import User
from lab.runtime.launcher import execs
from lab.runtime.launcher.spec import Spec
from lab.runtime.plan import CgroupsPlan, Enter
from lab.runtime.rootfs.layers import Overlay

if TYPE_CHECKING:
    from lab.host.cgroup.control import ControlGroup
    from lab.runtime.launcher.execs import Exec
    from lab.runtime.launcher.launcher import Container, Launcher

TIMEOUT_SECONDS = 30.0
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
EXECUTED = "0"
POINTS_FOLDER = "points"


class Enclosed:
    """A running one: what `lab.runtime.launcher.launcher.Container` is for lab's own runtime."""

    kind: ClassVar[str]  # "sandbox"

    def __init__(self, spec: Spec, outer: Container, first: int, timeline: Timeline) -> None:
        """``outer`` is the program, ``first`` its first process inside, which may have ended."""
        self.name = spec.name
        self.spec = spec
        self.cgroup = outer.cgroup
        self.launcher: Launcher = outer.launcher
        self.timeline = timeline
        self.pid = first
        self.pidfd = _opened(first, outer.cgroup)
        self._outer = outer

    @classmethod
    def take_over(cls, spec: Spec, outer: Container, timeline: Timeline) -> Self:
        """What a process of lab's has launched that was killed. Raises LabError when it has ended."""
        first = first_below(outer)
        if first < 0:
            raise LabError(f"{cls.kind} {spec.name} has ended")
        return cls(spec, outer, first, timeline)

    def placement(self) -> CgroupsPlan:
        """Where its processes are placed."""
        return self._outer.placement()

    def name_execution(self) -> str:
        """A name for one more process in it."""
        return self._outer.name_execution()

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        """Run a command as root, with what its root has. See `lab.instance.Instance.execute`."""
        self._require_running()
        process = execs.exec_process(self.spec.config, argv, User(uid=0, gid=0), "/")
        return execs.run(self, process, stdin=stdin, timeout_seconds=timeout_seconds)

    def begin(self, process: Process, stdio: Sequence[int], *, terminal: TerminalSize | None = None) -> Exec:
        """Start one more process in it; see `lab.runtime.launcher.execs.start`."""
        self._require_running()
        return execs.start(self, execs.resolved(self.spec.config, process), stdio, terminal=terminal)

    def _require_running(self) -> None:
        if self._outer.wait(0) is not None or self.pidfd < 0:
            raise LabError(f"{self.kind} {self.name} has ended")

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n), or None when the time ran out first."""
        return self._outer.wait(timeout_seconds)

    def signal(self, number: int) -> None:
        """To its first process, the helper, which forwards it: the program around does not. No error if it has
        ended.
        """
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Kill what still runs and remove everything that was made for it, verified. Idempotent."""
        try:
            self._outer.close()
        finally:
            if self.pidfd >= 0:
                os.close(self.pidfd)
                self.pidfd = -1


def around(
    spec: Spec,
    words: Sequence[str],
    given: int,
    launcher: Launcher,
    points: Sequence[str],
    environment: Mapping[str, str] | None = None,
    user: User | None = None,
) -> Spec:
    """The process that is the program, called by ``words`` with ``given`` descriptors: root of the host's, in the
    host's root, with the root of ``spec`` mounted beside. ``points`` are folders that the program would make in what
    the image holds, where that has none. ``user`` is root with other groups.
    """
    process = Process(
        argv=(str(build.program()), "wire", str(given), "--", *words),
        environment={"PATH": bundle.DEFAULT_PATH, **(environment or {})},
    )
    network = next(each.path for each in spec.config.linux.namespaces if each.type == "network")
    bare = bundle.process_config(process, network_namespace=network)
    config = record.replace(
        bare,
        process=record.replace(bare.process, rlimits=spec.config.process.rlimits, user=user or bare.process.user),
        mounts=(*spec.config.mounts, bundle.bind(build.program().parent, str(Path(INSIDE).parent))),
        linux=record.replace(bare.linux, resources=spec.config.linux.resources),
    )
    assert isinstance(spec.root, Overlay)
    told = hashlib.sha256(b"\0".join(map(os.fsencode, points))).hexdigest()[:8]
    folder = launcher.scratch / f"{POINTS_FOLDER}-{told}"  # what is mounted may not be added to
    for name in points:
        (folder / name).mkdir(parents=True, exist_ok=True)
    root = replace(spec.root, lower=(*spec.root.lower, folder))
    return replace(spec, config=config, root=root, init=False, terminal=None, enter=Enter.STAY)


def working_directory(spec: Spec) -> list[str]:
    """Where the one that the image lacks is made, links followed within the image; nothing where it is there."""
    assert isinstance(spec.root, Overlay)
    try:
        path, entry = Tree(spec.root.lower).resolve(os.fsencode(spec.config.process.cwd))
    except OSError:
        return []
    return [os.fsdecode(path)] if entry is None else []


def start(
    launcher: Launcher, spec: Spec, given: Sequence[int], stdio: Sequence[int], timeline: Timeline
) -> Container:
    """Start it, and send it the descriptors meanwhile. What is a phase of the program's is none of the instance's."""
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


def heard(source: int, outer: Container, program: str) -> bytes:
    """The next that is written to that pipe, or sent to that socket; b"" when nobody will any more, or ``program``
    has ended. Raises LaunchError when neither happens in time.
    """
    deadline = Deadline(TIMEOUT_SECONDS)
    if not deadline.ready([source, outer.pidfd]):
        raise LaunchError(f"{program} did not start {outer.name} within {deadline.seconds:g} s", exit_code=FAILED)
    os.set_blocking(source, False)
    with suppress(BlockingIOError):
        return os.read(source, 1 << 12)
    return b""


def failure(spec: Spec, program: str, text: str, outer: Container, errors: Path) -> LaunchError:
    """What ``text``, an errno of the application's execve(2), means, or "": then ``program`` has complained."""
    application = spec.config.process.args[0]
    if text:
        number = errno_told(text)
        return LaunchError(
            f"container {spec.name}: execve: {application}: {os.strerror(number)}",
            exit_code=NOT_FOUND if number == ENOENT else NOT_EXECUTABLE,
            hint="does the image hold that program?",
        )
    code = outer.wait(TIMEOUT_SECONDS)
    said = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    why = said[-1].removeprefix(f"{program}: ") if said else f"it ended with exit code {code}, and gave no reason"
    return LaunchError(f"{program} can't start {spec.name}: {why}", exit_code=FAILED)


def first_below(outer: Container) -> int:
    """The pid of the first process inside, whose parent the program is; -1 of one that has ended."""
    return next((pid for pid in outer.cgroup.processes() if _parent(pid) == outer.pid), -1)


def _opened(pid: int, cgroup: ControlGroup) -> int:
    """A pidfd of a process of that group, -1 when it has ended: another one may have its number since."""
    if pid < 0:
        return -1
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
