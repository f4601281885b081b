"""What the backends on the host's kernel share: an Instance over a container of lab's runtime."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lab.backends.support.base import SiteBackend, raise_as_launch_error
from lab.backends.support.launched import LaunchedInstance
from lab.backends.support.output import DRAIN_SECONDS, Outputs
from lab.backends.support.resources import InstanceResources
from lab.backends.support.saving import Savable
from lab.backends.support.streams import Begun, HostExecution, Streams
from lab.errors import ExitUnknown, LabError
from lab.host import waits
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Timeline
from lab.host.identity import privilege
from lab.host.survey import checks
from lab.images.store import Image
from lab.images.tree import Tree
from lab.instance import NO_KNOBS, LaunchRequest, Survivor
from lab.model import Accelerator, Check, Completed, Kernel, Phase, Process, TerminalSize, Volume

if TYPE_CHECKING:
    from lab.runtime.config.model import Config, MountConfig
    from lab.runtime.launcher.checkpoint import Checkpoint
    from lab.runtime.launcher.launcher import Spec


LOGS = ("stdout.log", "stderr.log")
INTERPRETED = (
    "Its start, as far as that is lab's work, is carried out by a copy of lab's interpreter, a container's by a "
    "small static program, which is quicker: by three milliseconds where both started the same container."
)
OWN_ROOT = (
    "Root inside is the ordinary user who runs lab, with capabilities that count in a user namespace alone, and its "
    "files lie on an overlay whose marks are the user's own (userxattr)."
)
"""Of an ordinary user's instances."""


class Contained(Protocol):
    """What runs an application behind a boundary of the host's kernel: lab's runtime, or a reference.

    The methods are those of `lab.runtime.launcher.launcher.Container`.
    """

    cgroup: ControlGroup

    @property
    def timeline(self) -> Timeline: ...
    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed: ...
    def begin(self, process: Process, stdio: Sequence[int], *, terminal: TerminalSize | None = None) -> Begun: ...
    def wait(self, timeout_seconds: float | None = None) -> int | None: ...
    def signal(self, number: int) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class SavesItself(Protocol):
    """A `Contained` of another's runtime that can be saved."""

    def save(self, directory: Path) -> Checkpoint:
        """Write it as it is into ``directory``, and end it; what it has written to its root, too. Raises LabError."""


class HostInstance(LaunchedInstance, Savable["Checkpoint"]):
    """One container, however much or little of a container its configuration makes it."""

    accelerator = Accelerator.NATIVE

    def __init__(
        self,
        backend: str,
        request: LaunchRequest,
        container: Contained,
        resources: InstanceResources,
        outputs: Outputs,
        streams: Streams,
        layers: Tree,
    ) -> None:
        super().__init__(backend, request, resources, layers, timeline=container.timeline, cgroup=container.cgroup)
        self.container = container
        self._outputs = outputs
        self._streams = streams

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        return self.container.execute(argv, stdin=stdin, timeout_seconds=timeout_seconds)

    def _begin(
        self, process: Process, *, stdin: int | None, stdout: int, stderr: int, terminal: TerminalSize | None = None
    ) -> HostExecution:
        with ExitStack() as undo:
            streams = undo.enter_context(Streams())
            if terminal:
                stdio = streams.terminal(stdin, stdout)
            else:
                stdio = [streams.input(stdin), streams.output(stdout), streams.output(stderr)]
            begun = self.container.begin(process, stdio, terminal=terminal)
            undo.callback(begun.close)
            streams.handed_over()
            undo.pop_all()
        return HostExecution(begun, streams)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        deadline = waits.deadline_of(timeout_seconds)
        code = self.container.wait(timeout_seconds)
        if code is None or not self._streams.drain(waits.left(deadline)):
            return None
        return code if self._outputs.drain(waits.left(deadline)) else None

    def signal(self, number: int) -> None:
        self.container.signal(number)

    def resize(self, size: TerminalSize) -> None:
        self._streams.resize(size)

    def stop(self, grace_seconds: float = 10.0) -> None:
        self.timeline.mark(Phase.STOPPING)
        with suppress(ExitUnknown):
            if grace_seconds > 0 and self.container.wait(0) is None:
                self.container.signal(self._stop_signal)
                self.container.wait(grace_seconds)
        with ExitStack() as each:  # in reverse order, whatever the others raise
            each.callback(self._verify_gone)
            each.callback(self._resources.release)
            each.callback(self._outputs.close)
            each.callback(self._streams.drain, DRAIN_SECONDS)
            each.callback(self.container.close)
        self.timeline.mark(Phase.GONE)

    def save(self, directory: Path) -> Checkpoint:
        from lab.runtime.launcher import checkpoint
        from lab.runtime.launcher.launcher import Container

        if isinstance(self.container, SavesItself):
            saved = self.container.save(directory)
        elif isinstance(self.container, Container):
            saved = checkpoint.save(self.container, directory)
        else:
            raise LabError(f"backend {self.backend} can't save what another's runtime made")
        self.stop(0)
        logs = (self.request.log_directory / name for name in LOGS)
        return replace(saved, logs=tuple(Path(shutil.copy(log, directory)) for log in logs))

    def _verify_gone(self) -> None:
        if self.cgroup.exists():
            raise LabError(f"cgroup {self.cgroup.path} survived its instance", hint="lab clean")


def _volumes(request: LaunchRequest) -> list[MountConfig]:
    """The host's files with whatever is mounted below them, which is as read-only as they are.

    Programs that would change their user and device nodes are inert there.
    """
    from lab.runtime.config.model import MountConfig

    read_only = {False: (), True: ("rro",)}
    return [
        MountConfig(
            destination=volume.target,
            type="none",
            source=volume.source,
            options=("rbind", "rprivate", *read_only[volume.read_only], "rnosuid", "rnodev"),
        )
        for volume in request.volumes
    ]


class HostBackend(SiteBackend):
    """A backend whose instances are processes of the host's kernel. A subclass says what surrounds them."""

    kernel = Kernel.HOST

    @property
    def stays_in_chroot(self) -> bool:
        """Whether the root is entered by chroot(2) alone, which root can leave again: the control, no boundary."""
        return False

    @abstractmethod
    def config(self, request: LaunchRequest, network_namespace: Path, mounts: Sequence[MountConfig]) -> Config:
        """The OCI configuration of one instance: in that network namespace, with ``mounts`` besides its own."""

    @classmethod
    def check(cls) -> list[Check]:
        return [privilege.check(), checks.cgroup(), checks.namespaces(), checks.overlay()]

    @classmethod
    def check_volumes(cls, volumes: Sequence[Volume]) -> None:
        """Any, since they are mounted from the host's kernel, which is the instance's too."""

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """Unpacked layers, lab's helper program, the session's network."""
        from lab.inside.build import program

        self.site.store.lower_directories(image)
        program()
        _ = self.site.network

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """Unpacked layers, lab's helper program."""
        from lab.inside.build import program

        return [*self.site.store.lower_directories(image), program()]

    def launch(self, request: LaunchRequest) -> HostInstance:
        return self._launch(request)

    def _launch(
        self, request: LaunchRequest, checkpoint: Checkpoint | None = None, *, savable: bool = False
    ) -> HostInstance:
        """One that goes on from ``checkpoint``, or one that is executed, and can be saved if it is ``savable``."""
        timeline = Timeline(request.listener)
        timeline.mark(Phase.REQUESTED)
        resources, outputs, streams = InstanceResources(self.site, request), Outputs(), Streams()
        try:
            container = self._start(request, resources, outputs, streams, timeline, checkpoint, savable=savable)
        except BaseException as error:
            outputs.close()
            resources.release()
            raise_as_launch_error(error)
            raise
        layers = Tree(self.site.store.lower_directories(request.image))
        instance = HostInstance(self.name, request, container, resources, outputs, streams, layers)
        instance.snapshot_bytes = checkpoint.size_bytes if checkpoint else None
        return instance

    def adopt(self, request: LaunchRequest, survivor: Survivor) -> HostInstance:
        from lab.runtime.launcher.launcher import Overlay, Spec

        spec = Spec(
            name=request.name,
            config=self.config(request, Path(f"/proc/{survivor.pid}/ns/net"), ()),
            root=Overlay(lower=()),  # it is mounted, where no process of lab's can see it
            survives=True,
        )
        lost = self.site.network_lost
        resources = InstanceResources.adopt(self.site, request, survivor.address)
        if lost:
            resources.reconnect(survivor.pid)
        container = self._take_over(request, spec, survivor)
        streams, layers = Streams(), self.files_left(request)
        return HostInstance(self.name, request, container, resources, Outputs(), streams, layers)

    def _take_over(self, request: LaunchRequest, spec: Spec, survivor: Survivor) -> Contained:
        """What `_contain` made in another process."""
        from lab.runtime.launcher.adoption import adopt

        return adopt(self.site.launcher, spec, survivor.pid, survivor.timeline, parent=self.site.reconnected)

    def _start(
        self,
        request: LaunchRequest,
        resources: InstanceResources,
        outputs: Outputs,
        streams: Streams,
        timeline: Timeline,
        checkpoint: Checkpoint | None,
        *,
        savable: bool,
    ) -> Contained:
        from lab.runtime.launcher.launcher import Overlay, Spec
        from lab.runtime.plan import Before, Enter

        with timeline.step("lab", Before.NETWORK):
            network = self._connect(resources)
        mounts = [*self._surroundings(request, resources), *_volumes(request)]
        for log in checkpoint.logs if checkpoint else ():
            shutil.copy(log, request.log_directory)  # what it goes on with has a beginning
        stdout = outputs.open(request.log_directory / "stdout.log", request.stdout)
        stderr = outputs.open(request.log_directory / "stderr.log", request.stderr)
        written = (checkpoint.upper,) if checkpoint else ()
        spec = Spec(
            name=request.name,
            config=self.config(request, network, mounts),
            root=Overlay(lower=(*written, *self.site.store.lower_directories(request.image))),
            survives=request.detached,
            mergeable=request.mergeable,
            savable=savable,
            checkpoint=checkpoint,
            terminal=request.terminal,
            enter=Enter.CHROOT if self.stays_in_chroot else Enter.PIVOT_ROOT,
        )
        outputs.enter_context(streams)
        if request.terminal:
            stdio = streams.terminal(request.stdin, stdout.descriptor)
        else:
            stdio = [streams.input(request.stdin), stdout.descriptor, stderr.descriptor]
        with ExitStack() as undo:
            container = self._contain(spec, stdio, timeline, resources)
            undo.callback(container.close)
            stdout.handed_over()
            stderr.handed_over()
            streams.handed_over()
            undo.pop_all()
        return container

    def _connect(self, resources: InstanceResources) -> Path:
        """The network namespace that the instance will live in."""
        return resources.make_endpoint().path

    def _contain(self, spec: Spec, stdio: list[int], timeline: Timeline, resources: InstanceResources) -> Contained:
        """Start it. It brings its own cgroup and writable layer, both of the session's, and removes them itself."""
        stdin, stdout, stderr = stdio
        return self.site.launcher.launch(spec, stdin=stdin, stdout=stdout, stderr=stderr, timeline=timeline)

    def _contain_and_connect(
        self, spec: Spec, stdio: list[int], timeline: Timeline, resources: InstanceResources
    ) -> Contained:
        """Start what makes its network namespace itself, so that its user namespace owns it, and hold it until that
        is connected.
        """
        from lab.runtime.plan import Before

        stdin, stdout, stderr = stdio
        held = replace(spec, hold=True)
        with ExitStack() as undo:
            container = self.site.launcher.launch(held, stdin=stdin, stdout=stdout, stderr=stderr, timeline=timeline)
            undo.callback(container.close)
            with timeline.step("lab", Before.NETWORK):
                resources.plug_into(container.pid)
            container.proceed()
            undo.pop_all()
        return container

    def _surroundings(self, request: LaunchRequest, resources: InstanceResources) -> list[MountConfig]:
        """The three files of /etc that say where an instance is, the same text as a guest gets.

        An image without /etc gets none: a mount point made for them would be a file the image does not hold.
        """
        from lab.runtime import bundle

        if not _has_folder(self.site.store.lower_directories(request.image), b"etc"):
            return []
        folder = resources.make_scratch()
        texts = {
            "hostname": f"{request.name}\n",
            "hosts": resources.hosts(),
            "resolv.conf": "# lab gives its instances no name server\n",
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)
        return [bundle.bind(folder / name, f"/etc/{name}", read_only=False) for name in texts]


def _has_folder(lower: Sequence[Path], path: bytes) -> bool:
    """Whether an image has it, links followed within the image alone."""
    try:
        _, entry = Tree(lower).resolve(path)
    except OSError:
        return False
    return entry is not None and entry.is_directory
