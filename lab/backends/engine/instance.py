"""One container of the Engine's, from the request to the verified end.

1. a group of lab's, whose limits are unlimited: Docker makes its own below, with the limits
2. ``create``: Docker writes down what is wanted and makes a writable layer; nothing runs, no boundary exists yet
3. ``attach``: where the output will come from
4. ``start``: overlay, network, shim, runc, execve, all in one call    → ISOLATED and EXECUTED when it is answered
5. the ports, since Docker alone decides which address it has

The clock can't tell more: the Engine answers when all is done, and the application may have run for some
milliseconds by then. How long Docker took for each of the two calls is kept beside.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

from lab.backends.engine.attachment import Attachment
from lab.backends.engine.client import Client, Refused
from lab.backends.engine.engine import Engine
from lab.backends.engine.execution import DockerExecution
from lab.backends.support.launched import LaunchedInstance
from lab.backends.support.output import DRAIN_SECONDS, Outputs
from lab.backends.support.programs.anothers import GroupAround, not_started
from lab.backends.support.resources import InstanceResources
from lab.errors import ExitUnknown, LabError
from lab.host import waits
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import Unused
from lab.host.clock import Timeline, now
from lab.host.session.engines import LABEL
from lab.images.tree import Tree
from lab.inside.build import program as helper
from lab.instance import INSIDE, Companion, LaunchRequest, Survivor
from lab.model import Accelerator, Completed, Limits, Phase, Process, TerminalSize
from lab.runtime.launcher.descriptors import memory_file
from lab.runtime.launcher.handle import MOST_BYTES

KILL_SECONDS = 10.0
LOOK_SECONDS = 0.25  # how often what a command has written is looked at


class Call(StrEnum):
    """The steps of a start, as far as they can be seen from outside."""

    CREATE = "let Docker create it"
    ATTACH = "attach to its output"
    START = "let Docker start it"


@dataclass(slots=True)
class Parts:
    """What an instance is made of, in the order in which it is made."""

    identity: str
    cgroup: ControlGroup
    resources: InstanceResources
    outputs: Outputs
    attachment: Attachment


class Serving(Protocol):
    """What of an engine a container is watched by; ``depth`` is how far below lab's its namespace of processes is."""

    client: Client
    depth: int


class DockerInstance(LaunchedInstance):
    """A container that Docker runs, and lab watches."""

    accelerator = Accelerator.NATIVE

    def __init__(
        self, backend: str, request: LaunchRequest, engine: Serving, parts: Parts, timeline: Timeline, layers: Tree
    ) -> None:
        super().__init__(backend, request, parts.resources, layers, timeline=timeline, cgroup=parts.cgroup)
        self._engine = engine
        self._identity = parts.identity
        self._outputs = parts.outputs
        self._attachment = parts.attachment
        self._exit_code: int | None = None
        self._ended = threading.Event()
        self._stopped = False
        threading.Thread(target=self._watch, name="lab-docker-wait", daemon=True).start()

    @classmethod
    def launch(cls, backend: str, request: LaunchRequest, engine: Engine, runtime: str) -> DockerInstance:
        """Raises LaunchError; nothing is left then."""
        site, client = engine.site, engine.client
        image = engine.load(request.image)  # before the clock, where `Backend.prepare` did not do it
        used = engine.cgroup.cpu().total_seconds
        timeline = Timeline(request.listener)
        timeline.mark(Phase.REQUESTED)
        with ExitStack() as undo:
            resources = InstanceResources(site, request)
            undo.callback(resources.release)
            outputs = undo.enter_context(Outputs())
            path = group_of(site.session.id, request.name)
            resources.stack.callback(ControlGroup.open(path, hierarchies=Unused.detect()).remove, keep_parents=True)
            made = resources.make_control_group(Limits())
            cgroup = GroupAround(made.path, made.hierarchies)
            body = description(request, image, site.session.id)
            body["HostConfig"] |= {"CgroupParent": f"/{path}", "Runtime": runtime}

            def created(identity: str) -> None:
                cgroup.below = ControlGroup.open(f"{path}/{identity}")

            begun = begin(client, request, request.name, body, timeline, undo, outputs, created=created)
            resources.publish_at(_address(client, begun.identity))
            parts = Parts(begun.identity, cgroup, resources, outputs, begun.attachment)
            layers = Tree(site.store.lower_directories(request.image))
            instance = cls(backend, request, engine, parts, timeline, layers)
            instance.bundle = engine.bundle(begun.identity)
            instance.companion = Companion(
                title=f"Docker Engine {engine.version}",
                cgroup=engine.cgroup,
                processes=engine.processes,
                calls={"create": begun.create_seconds, "start": begun.start_seconds},
                cpu_before_seconds=used,
                alone_bytes=engine.alone_bytes,
            )
            if request.terminal:
                instance.resize(request.terminal)
            undo.pop_all()
        return instance

    @classmethod
    def adopt(
        cls, backend: str, request: LaunchRequest, engine: Engine, survivor: Survivor, layers: Tree
    ) -> DockerInstance:
        """What was launched by a process that was killed. Raises LabError when it has ended."""
        found = engine.client.inspect(request.name)
        if not found["State"]["Running"]:
            raise LabError(f"container {request.name} has ended")
        identity, path = str(found["Id"]), group_of(engine.site.session.id, request.name)
        outputs = Outputs()
        logs = [request.log_directory / name for name in ("stdout.log", "stderr.log")]
        written = [log.stat().st_size if log.exists() else 0 for log in logs]
        stdout, stderr = (outputs.open(log) for log in logs)
        stream = engine.client.attach(identity, stdin=False, replay=True)  # what nobody has read meanwhile, too
        attachment = Attachment(
            stream, stdout.descriptor, stderr.descriptor,
            terminal=bool(found["Config"]["Tty"]), written=(written[0], written[1]),
        )  # fmt: skip
        resources = InstanceResources.adopt(engine.site, request, survivor.address)
        made = ControlGroup.open(path)
        resources.stack.callback(made.remove, keep_parents=True)
        resources.stack.callback(ControlGroup.open(path, hierarchies=Unused.detect()).remove, keep_parents=True)
        cgroup = GroupAround(made.path, made.hierarchies)
        cgroup.below = ControlGroup.open(f"{path}/{identity}")
        parts = Parts(identity, cgroup, resources, outputs, attachment)
        return cls(backend, request, engine, parts, survivor.timeline, layers)

    def _watch(self) -> None:
        """In a thread: until Docker says that it has ended, or nothing any more."""
        try:
            self._exit_code = self._engine.client.wait(self._identity)
        except LabError:
            pass
        self._ended.set()

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        process = replace(
            self.request.process, argv=tuple(argv), uid=0, gid=0, additional_gids=(), working_directory="/"
        )
        with ExitStack() as opened:
            source = memory_file(stdin, opened)
            out, err = (opened.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            begun = self._begin(process, stdin=source, stdout=out.fileno(), stderr=err.fileno())
            opened.callback(begun.close)
            deadline, code = now() + timeout_seconds, None
            while code is None:
                left = deadline - now()
                code = begun.wait(max(min(LOOK_SECONDS, left), 0.0))
                if max(os.fstat(file.fileno()).st_size for file in (out, err)) > MOST_BYTES:
                    raise LabError(f"{argv[0]} in container {self.name} wrote more than {MOST_BYTES >> 20} MiB")
                if code is None and left <= 0:
                    raise LabError(f"{argv[0]} in container {self.name} did not end within {timeout_seconds:g} s")
            out.seek(0)
            err.seek(0)
            return Completed(exit_code=code, stdout=out.read(), stderr=err.read())

    def _begin(
        self, process: Process, *, stdin: int | None, stdout: int, stderr: int, terminal: TerminalSize | None = None
    ) -> DockerExecution:
        if self._ended.is_set():
            raise LabError(f"container {self.name} has ended")
        return DockerExecution.start(
            self._engine.client, self.cgroup, self._identity, process.argv,
            stdin=stdin, stdout=stdout, stderr=stderr, terminal=terminal,
            environment=_environment(process), user=f"{process.uid}:{process.gid}",
            directory=process.working_directory, depth=self._engine.depth,
        )  # fmt: skip

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        deadline = waits.deadline_of(timeout_seconds)
        if not self._ended.wait(timeout_seconds):
            return None
        if self._exit_code is None:
            raise ExitUnknown(f"the exit code of {self.name} is not known: its Docker Engine has ended")
        while not self._attachment.drain(DRAIN_SECONDS) and self._outputs.is_busy:
            if waits.left(deadline) == 0:
                return None
        return self._exit_code if self._outputs.drain(waits.left(deadline)) else None

    def signal(self, number: int) -> None:
        if not self._ended.is_set():
            self._engine.client.kill(self._identity, number)

    def pause(self) -> None:
        self._engine.client.pause(self._identity)

    def resume(self) -> None:
        self._engine.client.resume(self._identity)

    def resize(self, size: TerminalSize) -> None:
        if self.request.terminal:
            with suppress(Refused):  # it has ended
                self._engine.client.resize(self._identity, size.rows, size.columns)

    def stop(self, grace_seconds: float = 10.0) -> None:
        self.timeline.mark(Phase.STOPPING)
        if grace_seconds > 0 and not self._ended.is_set():
            with suppress(Refused):
                self.signal(self._stop_signal)
                self._ended.wait(grace_seconds)
        if not self._stopped:
            with ExitStack() as each:  # in reverse order, whatever the others raise
                each.callback(self._verify_gone)
                each.callback(self._resources.release)
                each.callback(self._outputs.close)
                each.callback(self._attachment.close)
                each.callback(self._remove)
            self._stopped = True
        self.timeline.mark(Phase.GONE)

    def _remove(self) -> None:
        """Killed and removed by Docker. If that has ended, its containers have ended with it."""
        with suppress(Refused):
            if not self._ended.is_set():
                if not self._outputs.drain(DRAIN_SECONDS):
                    self._outputs.give_up()  # dockerd answers only once a killed one's output has been taken
                self._engine.client.kill(self._identity, 9)
                self._ended.wait(KILL_SECONDS)
            self._attachment.drain(DRAIN_SECONDS)
            self._engine.client.remove(self._identity)

    def _verify_gone(self) -> None:
        if self.cgroup.exists():
            raise LabError(f"cgroup {self.cgroup.path} survived its instance", hint="lab clean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A container that was started, and how long two of the calls for it took."""

    identity: str
    attachment: Attachment
    create_seconds: float
    start_seconds: float


def begin(
    client: Client, request: LaunchRequest, name: str, body: Mapping[str, Any], timeline: Timeline, undo: ExitStack,
    outputs: Outputs, *, created: Callable[[str], None] = lambda _: None,
) -> Begun:  # fmt: skip
    """Create a container that is called ``name``, attach to it, start it; ``created`` is told its id as soon as there
    is one. ``undo`` removes it again, ``outputs`` closes its logs. Raises LaunchError.
    """
    stdout = outputs.open(request.log_directory / "stdout.log", request.stdout)
    stderr = outputs.open(request.log_directory / "stderr.log", request.stderr)
    began = now()
    with timeline.step("docker", Call.CREATE):
        identity = refused(request, lambda: client.create(name, body))
    create_seconds = now() - began
    undo.callback(client.remove, identity)
    created(identity)
    with timeline.step("docker", Call.ATTACH):
        stream = client.attach(identity, stdin=request.stdin is not None, replay=False)
    attachment = Attachment(
        stream, stdout.descriptor, stderr.descriptor,
        stdin=request.stdin, terminal=request.terminal is not None,
    )  # fmt: skip
    undo.callback(attachment.close)
    attached = now()
    with timeline.step("docker", Call.START):
        refused(request, lambda: client.start(identity))
    started = now()
    timeline.mark(Phase.ISOLATED, started)
    timeline.mark(Phase.EXECUTED, started)
    return Begun(
        identity=identity, attachment=attachment, create_seconds=create_seconds, start_seconds=started - attached
    )


def description(request: LaunchRequest, image: str, session: str) -> dict[str, Any]:
    """The container as Docker's API describes one ("ContainerCreate"): what ``docker run`` would ask for."""
    process, limits = request.process, request.limits
    mounts = [_bind(str(helper().parent), str(Path(INSIDE).parent), read_only=True)]
    mounts += [_bind(each.source, each.target, read_only=each.read_only) for each in request.volumes]
    memory = limits.memory_bytes or 0
    return {
        "Image": image,
        "Hostname": request.name,
        "Entrypoint": list(process.argv),
        "Cmd": [],
        "Env": _environment(process),
        "WorkingDir": process.working_directory,
        "User": f"{process.uid}:{process.gid}",
        "Tty": request.terminal is not None,
        "OpenStdin": request.stdin is not None,
        "StdinOnce": request.stdin is not None,
        "AttachStdin": request.stdin is not None,
        "AttachStdout": True,
        "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},  # lab asks by itself, on whatever backend
        "Labels": {LABEL: session},
        "HostConfig": {
            "GroupAdd": [str(gid) for gid in process.additional_gids],
            "Memory": memory,
            "MemorySwap": memory,  # no swap on top, as on the other backends
            "Mounts": mounts,
            "NanoCpus": round((limits.cpus or 0) * 1_000_000_000),
            "NetworkMode": "bridge",
            "PidsLimit": limits.pids or 0,
        },
    }


def _bind(source: str, target: str, *, read_only: bool) -> dict[str, Any]:
    """Docker makes the mount itself read-only, and none below it: so what is mounted below one is not shown."""
    options = {"Propagation": "rprivate", "NonRecursive": read_only}
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only, "BindOptions": options}


def _environment(process: Process) -> list[str]:
    return [f"{name}={value}" for name, value in process.environment.items()]


def _address(client: Client, identity: str) -> IPv4Address:
    """On lab's bridge; of what has ended already there is none any more."""
    found = client.inspect(identity)["NetworkSettings"]["Networks"].get("bridge", {}).get("IPAddress")
    return IPv4Address(found or 0)


def refused(request: LaunchRequest, call: Any) -> Any:
    """The call's answer. Raises LaunchError with the exit code that ``docker run`` would end with."""
    try:
        return call()
    except Refused as error:
        raise not_started("Docker", request.name, error.message.splitlines()[0]) from error
