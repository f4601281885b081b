"""RUN for image builds: each step a container of lab's own runtime, on the host's network."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from lab.errors import LaunchError
from lab.model import Process
from lab.runtime import bundle
from lab.runtime.launcher import Launcher, Overlay, Spec

NOT_EXECUTABLE = (126, 127)  # Docker's exit codes for a program that can't be run, or is not there
NETWORK_FILES = (Path("/etc/resolv.conf"), Path("/etc/hosts"))
HOSTNAME = "build"


class ContainerSteps:
    """Implements `lab.images.build.StepRunner` with a session's launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._numbers = itertools.count(1)

    def run(
        self,
        process: Process,
        *,
        lower_directories: Sequence[Path],
        upper_directory: Path,
        work_directory: Path,
        output: Callable[[bytes], None],
    ) -> int:
        """See `StepRunner`. No limits: a compiler takes what it needs. Raises LaunchError when the runtime fails."""
        mounts = tuple(bundle.bind(file.resolve(), str(file)) for file in NETWORK_FILES if file.exists())
        spec = Spec(
            name=f"build-{next(self._numbers)}",
            config=bundle.container_config(
                process, hostname=HOSTNAME, network_namespace=bundle.HOST, extra_mounts=mounts
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
            # It ends when the step's PID 1 does: the kernel then kills whatever else holds the pipe.
            while data := os.read(read, 1 << 16):
                output(data)
            code = container.wait()
        assert code is not None, "wait without a time limit returns the exit code"
        return code
