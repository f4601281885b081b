"""RUN for image builds: each step a container of lab's own runtime, on the host's network or on none."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from lab.errors import LabError, LaunchError
from lab.images.runner import BindMount, StepMount, TmpfsMount
from lab.images.tree import Tree
from lab.model import Process
from lab.runtime import bundle
from lab.runtime.config.model import MountConfig
from lab.runtime.launcher.launcher import Container, Launcher, Overlay, Spec

NOT_EXECUTABLE = (126, 127)  # Docker's exit codes for a program that can't be run, or is not there
NETWORK_FILES = (Path("/etc/resolv.conf"), Path("/etc/hosts"))
HOSTNAME = "build"


class ContainerSteps:
    """Implements `lab.images.runner.StepRunner` with a session's launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._numbers = itertools.count(1)
        self._running: set[Container] = set()
        self._lock = threading.Lock()

    def run(
        self,
        process: Process,
        *,
        lower_directories: Sequence[Path],
        upper_directory: Path,
        work_directory: Path,
        output: Callable[[bytes], None],
        mounts: Sequence[StepMount] = (),
        network: bool = True,
    ) -> int:
        """See `StepRunner`. No limits: a compiler takes what it needs. Raises LaunchError when the runtime fails."""
        tree = Tree(lower_directories)
        network_files = [bundle.bind(file.resolve(), str(file)) for file in NETWORK_FILES if file.exists()]
        spec = Spec(
            name=f"build-{next(self._numbers)}",
            config=bundle.container_config(
                process,
                hostname=HOSTNAME,
                network_namespace=bundle.HOST if network else None,
                extra_mounts=(*network_files, *(mount_config(one, tree) for one in mounts)),
            ),
            root=Overlay(lower=tuple(lower_directories), upper=upper_directory, work=work_directory),
        )
        with ExitStack() as opened:
            read, write = os.pipe2(os.O_CLOEXEC)
            opened.callback(os.close, read)
            try:
                container = opened.enter_context(self._launcher.launch(spec, stdout=write, stderr=write))
            except LaunchError as error:
                if error.exit_code not in NOT_EXECUTABLE:
                    raise
                output(f"{error.message}\n".encode())
                return error.exit_code
            finally:
                os.close(write)
            self._register(container, opened)
            # It ends when the step's PID 1 does: the kernel then kills whatever else holds the pipe.
            while data := os.read(read, 1 << 16):
                output(data)
            code = container.wait()
        assert code is not None, "wait without a time limit returns the exit code"
        return code

    def stop(self) -> None:
        """See `StepRunner`."""
        with self._lock:
            running = list(self._running)
        for container in running:
            try:
                container.kill()
            except LabError:  # it has just ended
                pass

    def _register(self, container: Container, opened: ExitStack) -> None:
        with self._lock:
            self._running.add(container)

        def forget() -> None:
            with self._lock:
                self._running.discard(container)

        opened.callback(forget)


def mount_config(mount: StepMount, tree: Tree) -> MountConfig:
    """A step's mount as the runtime wants it; links on the way to its target are followed inside ``tree``."""
    if isinstance(mount, BindMount):
        return bundle.bind(mount.source, mount.target, read_only=mount.read_only)
    target = "/" + os.fsdecode(tree.resolve(os.fsencode(mount.target))[0])
    if isinstance(mount, TmpfsMount):
        options = ["mode=1777", *([] if mount.size_bytes is None else [f"size={mount.size_bytes}"])]
        return MountConfig(destination=target, type="tmpfs", source="tmpfs", options=("nosuid", "nodev", *options))
    options = [f"lowerdir={':'.join(map(str, mount.lower))}"]
    if mount.upper is None or mount.work is None:
        options.append("ro")
    else:
        options += [f"upperdir={mount.upper}", f"workdir={mount.work}"]
    return MountConfig(destination=target, type="overlay", source="overlay", options=("nosuid", "nodev", *options))
