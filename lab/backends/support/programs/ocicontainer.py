"""One container made by a program with the OCI command line, as a manager of runc's makes it.

`OciContainer.launch` reads like what containerd's shim is elsewhere:

1. the group with its limits, the bundle
2. in a thread with mounts of its own: the overlay, then ``runc create``      → ISOLATED when that ends
3. ``runc start``                                                             → EXECUTED, as the helper tells

Source: OCI runtime-spec, runtime.md "Lifecycle"; runc(8), runc-create(8), runc-exec(8), crun(1).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from enum import StrEnum
from errno import ENOENT
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lab.backends.support.programs import children
from lab.backends.support.programs.children import KILL_SECONDS, RUNTIME_FAILED, TIMEOUT_SECONDS, Child
from lab.backends.support.programs.ociprogram import Runtime, hide, through_groups
from lab.errors import ExitUnknown, LabError, LaunchError, LimitError
from lab.host import syscalls
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Unused
from lab.host.cgroup.systemd import Scope
from lab.host.clock import Timeline, now
from lab.host.execution import terminals
from lab.host.execution.told import errno_told
from lab.host.identity import privilege
from lab.host.survey.patience import Deadline
from lab.instance import INSIDE, Survivor
from lab.model import Completed, Phase, Process, TerminalSize
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.cgroup import resources
from lab.runtime.cgroup.instances import limited
from lab.runtime.config.model import Config, ProcessConfig, User, to_json
from lab.runtime.launcher.descriptors import pipe
from lab.runtime.launcher.execs import exec_process, resolved
from lab.runtime.launcher.spec import Spec, with_helper
from lab.runtime.oci.store import OWN
from lab.runtime.plan import Before
from lab.runtime.rootfs import layers
from lab.runtime.rootfs.mounts import DirectoryRoot, OverlayRoot
from lab.runtime.within import pid_of

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts

FOLDER = "oci"  # in the launcher's scratch space: a folder per container, with its bundle and the runtime's state
STATUS = 3  # in the container: the first descriptor that --preserve-fds lets through
NOT_FOUND, NOT_EXECUTABLE = 127, 126
SIGNALLED = 128
COMPLAINTS = ("error", "fatal", "panic", "critical")


class Made(StrEnum):
    """The steps of a start, as far as they can be seen from outside."""

    BUNDLE = "write the bundle"
    CREATE = "let it create the container"
    START = "let it start the application"


class OciContainer:
    """One container of another's: what `lab.runtime.launcher.launcher.Container` is for lab's own runtime."""

    creating: ClassVar[tuple[str, ...]] = ("create", "--preserve-fds=1")  # the verb that makes it, and its options
    namespaces: ClassVar[tuple[str, ...]] = tuple(OWN.values())  # that hold its processes and no others
    leaves_others: ClassVar[bool] = False  # the runtime leaves more than the application to this process

    def __init__(
        self, runtime: Runtime, spec: Spec, config: Config, place: Path, cgroup: ControlGroup, timeline: Timeline
    ) -> None:
        self.name = spec.name
        self.runtime = runtime.name
        self.config = config
        self.cgroup = cgroup
        self.timeline = timeline
        self._program = (runtime.binary.path, *runtime.options)
        self._state = place / "state" if runtime.states is None else runtime.states / spec.name
        self._terminal = spec.terminal
        self._hidden = runtime.hidden()
        self._is_put_into_group = runtime.is_put_into_group()
        self._place = place
        self._pidfd = -1
        self._orphans: set[int] | None = None
        self._exit_code: int | None = None
        self._unknown = False  # it has ended as somebody else's child
        self._reaping = threading.Lock()
        self._closing = threading.Lock()
        self._owned = ExitStack()

    @classmethod
    def launch(
        cls, runtime: Runtime, site: SharedParts, spec: Spec, stdio: Sequence[int], timeline: Timeline
    ) -> Self:
        """Start it and return once the application has been executed; see
        `lab.runtime.launcher.launcher.Launcher.launch`.
        """
        runtime.binary.require_unchanged()
        with ExitStack() as undo:
            path, wanted = group_of(site.session.id, spec.name), spec.config.linux.resources
            with timeline.step("lab", Before.CGROUP):
                cgroup = limited(path, wanted)
            undo.callback(cgroup.remove, keep_parents=True)
            undo.callback(ControlGroup.open(path, hierarchies=Unused.detect()).remove, keep_parents=True)
            held = resources.held(cgroup.group, wanted)
            place = site.launcher.scratch / FOLDER / spec.name
            place.mkdir(parents=True)
            undo.callback(shutil.rmtree, place)
            with timeline.step("lab", Made.BUNDLE):
                config = with_helper(spec)
                root = layers.prepare(spec.root, spec.name, config.mounts, site.launcher.scratch, undo)
                supervised = replace(config, process=cls._supervised(config.process, spec.terminal))
                groups = f"/{path}"
                if privilege.is_rootless():
                    groups, supervised = "", bundle.without_group(supervised)
                bundle.write(supervised, place, root=root.target, cgroups_path=groups)
            container = cls(runtime, spec, config, place, cgroup, timeline)
            undo.callback(container._end)
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            undo.callback(os.close, null)
            status, status_end = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, status)
            try:
                container._create(site, root, [*stdio, status_end])
            finally:
                os.close(status_end)
            if (theirs := resources.held(cgroup.group, wanted)) != held:
                raise LimitError(f"{container.runtime} set other limits than {held}: {theirs}")
            container._start(status, null)
            container._owned = undo.pop_all()
        return container

    @classmethod
    def take_over(cls, runtime: Runtime, site: SharedParts, spec: Spec, survivor: Survivor) -> Self:
        """What a process has launched that was killed: it was the parent, and alone would know the exit code."""
        path = group_of(site.session.id, spec.name)
        cgroup, place = ControlGroup.open(path), site.launcher.scratch / FOLDER / spec.name
        container = cls(runtime, spec, with_helper(spec), place, cgroup, survivor.timeline)
        try:
            container._pidfd = os.pidfd_open(survivor.pid)
        except ProcessLookupError as error:
            raise LabError(f"container {spec.name} has ended") from error
        container._follow()
        container._owned.callback(cgroup.remove, keep_parents=True)
        container._owned.callback(ControlGroup.open(path, hierarchies=Unused.detect()).remove, keep_parents=True)
        container._owned.callback(shutil.rmtree, place)
        container._owned.callback(container._end)
        return container

    def _create(self, site: SharedParts, root: OverlayRoot | DirectoryRoot, descriptors: list[int]) -> None:
        """``create``: when it has ended, the container exists and waits, and is a child of this process."""
        (verb, *options), pid_file = self._making(), self._place / "pid"
        words = self._words(verb, "--bundle", self._place, "--pid-file", pid_file, *options, self.name)

        before = set[int]()

        def create() -> int:
            before.update(children.own())
            pid = self._spawn(words, descriptors, root=root, contains=True)
            site.session.process(pid)
            return pid

        with self.timeline.step(self.runtime, Made.CREATE):
            code, at, self._pidfd = children.adopt(create, pid_file, f"{self.runtime} {verb}")
        if code != 0 or self._pidfd < 0:
            raise LaunchError(
                f"{self.runtime} can't create container {self.name}: {self._complaint(code)}",
                exit_code=RUNTIME_FAILED,
            )
        if self.leaves_others and privilege.is_rootless():  # whom no group would tell later
            self._orphans = children.own() - before - {pid_of(self._pidfd)}
        self._follow()
        self.timeline.mark(Phase.ISOLATED, at)

    def _making(self) -> tuple[str, ...]:
        """The verb that makes this one, and its options."""
        return self.creating

    def _follow(self) -> None:
        """Where an ordinary user has been given no group: by its namespaces and its descent."""
        self.cgroup.group.follow(pid_of(self._pidfd), self.namespaces, self._orphans or ())

    def _spawn(
        self,
        words: list[str],
        descriptors: list[int],
        *,
        root: OverlayRoot | DirectoryRoot | None = None,
        contains: bool = False,
    ) -> int:
        """Start the runtime; in mounts of its own, where it is to see others than the host's. Its pid.

        ``contains``: what it leaves is a process of the container.
        """
        with ExitStack() as opened:
            if contains and self._is_put_into_group:
                words, descriptors = self._through_group(words, descriptors, opened)

            def in_mounts_of_its_own() -> int:
                """What a thread unshares is its own (unshare(2)), and what it starts inherits that."""
                syscalls.unshare(syscalls.CLONE_NEWNS)
                syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
                if root is not None:
                    os.close(root.mount())
                self._surround()
                if self._hidden is not None:
                    hide(self._hidden)
                return children.spawn(words, descriptors)

            if root is None and self._hidden is None:
                return children.spawn(words, descriptors)
            thread = opened.enter_context(ThreadPoolExecutor(1, f"lab-{self.runtime}"))
            return thread.submit(in_mounts_of_its_own).result()

    def _surround(self) -> None:
        """What else it has to see otherwise than the host, in a thread with mounts of its own. By default nothing."""

    def _through_group(
        self, words: list[str], descriptors: list[int], opened: ExitStack
    ) -> tuple[list[str], list[int]]:
        """The same, by way of a shell that enters the group; opened here, since a runtime may not see it."""
        group = self.cgroup.group
        Scope(self.cgroup.path.parts[0]).open_to_children()
        directories = group.directories if privilege.is_rootless() else tuple(filter(None, [group.unified]))
        return through_groups(directories, words, descriptors, opened)

    def _start(self, status: int, null: int) -> None:
        """``start``; the helper's status pipe reaches its end when the application is executed."""
        with self.timeline.step(self.runtime, Made.START):
            pid = self._spawn(self._words("start", self.name), [null] * 3)
            starting = os.pidfd_open(pid)
            try:
                text = self._read_status(status, starting)
                at = now()
            finally:
                os.close(starting)
                code = children.wait_child(pid, TIMEOUT_SECONDS, f"{self.runtime} start")
        if text:
            raise self._not_executed(self.config.process.args[0], errno_told(text))
        if code != 0 or self._errors():
            raise LaunchError(
                f"{self.runtime} can't start container {self.name}: {self._complaint(code)}", exit_code=RUNTIME_FAILED
            )
        self.timeline.mark(Phase.EXECUTED, at)

    def _read_status(self, status: int, starting: int) -> bytes:
        """Everything the helper says, until its end, or until ``start`` has failed without reaching it."""
        deadline = Deadline(TIMEOUT_SECONDS)
        text, watched = b"", [status, starting]
        while True:
            ready = deadline.ready(watched)
            if status in ready:
                part = os.read(status, 64)
                if not part:
                    return text
                text += part
            elif ready:
                watched.remove(starting)
                ended = os.waitid(os.P_PIDFD, starting, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if self._errors() or (ended and ended.si_status != 0):
                    return text
            else:
                raise LaunchError(f"container {self.name} did not start within {deadline.seconds:g} s")

    def _not_executed(self, program: str, number: int) -> LaunchError:
        return LaunchError(
            f"container {self.name}: execve: {program}: {os.strerror(number)}",
            exit_code=NOT_FOUND if number == ENOENT else NOT_EXECUTABLE,
            hint="does the image hold that program?",
        )

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        """Run a command as root, with the container's own bounding set, filter and limits. See `Instance.execute`."""
        process = exec_process(self.config, argv, User(uid=0, gid=0), "/")
        what = f"{argv[0]} in container {self.name}"
        return children.complete(lambda stdio: self._exec(process, stdio), what, stdin, timeout_seconds)

    def begin(self, process: Process, stdio: Sequence[int], *, terminal: TerminalSize | None = None) -> Child:
        """Start one more process; see `lab.runtime.launcher.execs.start`, whose terminal it makes in the same way."""
        return self._exec(resolved(self.config, process), stdio, terminal)

    def _exec(self, process: ProcessConfig, stdio: Sequence[int], terminal: TerminalSize | None = None) -> Child:
        """``exec``, which leaves lab's helper behind, which says whether the command could be executed."""
        if self.wait(0) is not None:
            raise LabError(f"container {self.name} has ended")
        with tempfile.TemporaryDirectory(dir=self._place) as name, ExitStack() as opened:
            folder = Path(name)
            self._write_process(folder, process, terminal)
            status, status_end = pipe(opened)
            options = ("--detach", "--preserve-fds=1", "--process", folder / "process.json")
            words = self._words("exec", *options, "--pid-file", folder / "pid", self.name, log=folder / "log")
            try:
                code, _, pidfd = children.adopt(
                    lambda: self._spawn(words, [*stdio, status_end], contains=True),
                    folder / "pid",
                    f"{self.runtime} exec",
                )
            finally:
                os.close(status_end)
            if code != 0 or pidfd < 0:
                complaint = self._complaint(code, folder / "log")
                raise LaunchError(
                    f"{process.args[0]} can't be executed in container {self.name}: {complaint}",
                    exit_code=RUNTIME_FAILED,
                )
            child = Child(pidfd)
            if text := os.read(status, 64):
                child.close()
                raise self._not_executed(process.args[0], errno_told(text))
        return child

    def _write_process(self, folder: Path, process: ProcessConfig, terminal: TerminalSize | None) -> None:
        whole = to_json(replace(self.config, process=self._supervised(process, terminal)))
        (folder / "process.json").write_text(json.dumps(whole["process"]))

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n), or None when the time ran out first.

        Raises ExitUnknown when it has ended as somebody else's child.
        """
        if self._exit_code is None and self._pidfd >= 0:
            ended, _, _ = select.select([self._pidfd], [], [], timeout_seconds)
            with self._reaping:
                self._reap(bool(ended))
        if self._unknown:
            raise ExitUnknown(f"the exit code of {self.name} is not known: its parent was killed")
        return self._exit_code

    def _reap(self, ended: bool) -> None:
        if self._exit_code is None and self._pidfd >= 0:
            try:
                self._exit_code = children.reap(self._pidfd)
            except ChildProcessError:
                self._unknown = ended

    def signal(self, number: int) -> None:
        """To its first process, which forwards it. No error if it has ended."""
        with self._reaping:
            if self._pidfd >= 0 and self._exit_code is None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Kill what still runs and remove everything that was made for it, verified. Idempotent."""
        with self._closing:
            self._owned.close()

    def _end(self) -> None:
        """Killed and reaped by its parent, which this is, then ``delete``, as a shim does it."""
        self.signal(signal.SIGKILL)
        if self._pidfd < 0 or self.leaves_others:  # the former of a runtime that failed or was killed on its way
            self._note_orphans()
        self.cgroup.kill(KILL_SECONDS)
        if self._pidfd >= 0:
            with suppress(ExitUnknown):
                self.wait(KILL_SECONDS)
            with self._reaping:
                os.close(self._pidfd)
                self._pidfd = -1
        for pid in self._orphans or ():
            children.wait_orphan(pid, KILL_SECONDS)
        self._delete()

    def _note_orphans(self) -> None:
        """What its runtime has left to this process besides the application: once, before any command is executed."""
        with self._reaping:
            if self._orphans is None:
                application = {int((self._place / "pid").read_text())} if self._pidfd >= 0 else set[int]()
                self._orphans = children.in_group(self.cgroup.path) - application

    def _delete(self) -> None:
        """What it keeps besides its state, which lies in this container's folder, nobody but the runtime knows."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            pid = self._spawn(self._words("delete", "--force", self.name), [null] * 3)
            code = children.wait_child(pid, TIMEOUT_SECONDS, f"{self.runtime} delete")
            why = self._complaint(code) if code else ""
        except LabError as error:
            why = error.message
        finally:
            os.close(null)
        if why:
            raise LabError(
                f"container {self.name} was ended, but {self.runtime} did not delete it: {why}", hint="lab clean"
            )

    @classmethod
    def _supervised(cls, process: ProcessConfig, terminal: TerminalSize | None) -> ProcessConfig:
        """With lab's helper in front, as lab's own runtime puts it, that may make it a terminal."""
        options = ["--status-fd", str(STATUS), *(terminals.as_option(terminal) if terminal else [])]
        return replace(process, args=(INSIDE, "init", *options, "--", *process.args))

    def _words(self, verb: str, *arguments: str | Path, log: Path | None = None) -> list[str]:
        options = ["--root", self._state, "--log", log or self._place / "log", "--log-format", "json"]
        return [str(word) for word in (*self._program, *options, verb, *arguments)]

    def _errors(self, path: Path | None = None) -> list[str]:
        """What it complained about (runc(8), --log-format json)."""
        with suppress(FileNotFoundError):
            lines = (path or self._place / "log").read_text(errors="replace").splitlines()
            return [said for line in lines if (said := complaint(line))]
        return []

    def _complaint(self, code: int, path: Path | None = None) -> str:
        if errors := self._errors(path):
            return errors[-1]
        if code > SIGNALLED:
            return f"it was ended by signal {code - SIGNALLED}"
        left = f"it ended with exit code {code}, and gave no reason in its log"
        return left if code else "it ended as if all were well, and left no process"


def complaint(line: str) -> str:
    """What a line of a runtime's log complains about, "" if it does not.

    runc and crun write ``{"level": "error", "msg": …}``, youki ``{"level": "ERROR", "fields": {"message": …}}``.
    """
    try:
        entry: Any = json.loads(line)
        level, fields = str(entry["level"]).lower(), entry.get("fields")
        said = entry.get("msg") or (fields.get("message") if isinstance(fields, dict) else "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return " ".join(str(said or "").split()) if level in COMPLAINTS else ""
