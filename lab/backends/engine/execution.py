"""``docker exec``: one more command in a container of the Engine's."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from lab.backends.engine.attachment import Attachment
from lab.backends.engine.client import Refused
from lab.backends.engine.engine import host_pid
from lab.errors import LabError, LaunchError
from lab.host.execution.contract import Execution
from lab.host.survey.patience import Deadline
from lab.model import TerminalSize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.backends.engine.client import Client, Stream
    from lab.host.cgroup.control import ControlGroup

FAILED = b"OCI runtime exec failed"
NOT_FOUND, NOT_EXECUTABLE = 127, 126
START_SECONDS, END_SECONDS = 30.0, 10.0
STEP_SECONDS = 0.005


class DockerExecution(Execution):
    """A command that runs; what it writes is passed on until it has ended."""

    def __init__(
        self, client: Client, cgroup: ControlGroup, identity: str, pid: int, attachment: Attachment, depth: int
    ) -> None:
        self._client = client
        self._identity = identity
        self._cgroup = cgroup
        self._pid = pid
        self._depth = depth
        self._attachment = attachment
        self._exit_code: int | None = None
        self._lock = threading.Lock()

    @classmethod
    def start(
        cls,
        client: Client,
        cgroup: ControlGroup,
        container: str,
        argv: Sequence[str],
        *,
        stdin: int | None,
        stdout: int,
        stderr: int,
        environment: Sequence[str],
        user: str,
        directory: str,
        terminal: TerminalSize | None = None,
        depth: int = 1,
    ) -> DockerExecution:
        """Returns once it is executed. Raises LaunchError (126, 127) when it can't be, LabError otherwise.

        ``depth`` is how far below this one the Engine's namespace of processes is.
        """
        identity = client.execution(
            container, argv, environment=environment, user=user, directory=directory,
            stdin=stdin is not None, terminal=terminal is not None,
        )  # fmt: skip
        stream = client.start_execution(identity, terminal=terminal is not None)
        try:
            pid = _executed(client, identity, stream, argv[0])
        except BaseException:
            stream.close()
            raise
        attachment = Attachment(stream, stdout, stderr, stdin=stdin, terminal=terminal is not None)
        begun = cls(client, cgroup, identity, pid, attachment, depth)
        if terminal:
            begun.resize(terminal)
        return begun

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The Engine ends the stream two seconds after the command at the latest, whoever still holds it."""
        if self._exit_code is None and self._attachment.drain(timeout_seconds):
            found = self._client.inspect_execution(self._identity)
            if found["Running"]:
                raise LabError("the stream of a command has ended before the command")
            self._exit_code = int(found["ExitCode"])
        return self._exit_code

    def signal(self, number: int) -> None:
        with self._lock, suppress(OSError):
            if self._exit_code is None and (pid := host_pid(self._cgroup, self._pid, self._depth)) is not None:
                os.kill(pid, number)

    def resize(self, size: TerminalSize) -> None:
        with suppress(Refused):  # it has ended
            self._client.resize_execution(self._identity, size.rows, size.columns)

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        self._attachment.drain(END_SECONDS)
        self._attachment.close()


def _executed(client: Client, identity: str, stream: Stream, program: str) -> int:
    """Its pid as the Engine has it, as soon as the Engine has it; 0 if it has ended by then."""
    deadline = Deadline(START_SECONDS)
    while True:
        found = client.inspect_execution(identity)
        if found.get("Pid"):
            return int(found["Pid"])
        if not found["Running"] and found["ExitCode"] is not None:
            break
        if not deadline.left():
            raise LaunchError(f"docker exec of {program} did not start within {deadline.seconds:g} s", exit_code=125)
        time.sleep(STEP_SECONDS)
    code = int(found["ExitCode"])
    if code in (NOT_FOUND, NOT_EXECUTABLE):
        said = stream.read(65536)
        if FAILED in said:
            text = said[said.index(FAILED) :].decode(errors="replace").strip()
            raise LaunchError(f"{program} can't be executed: {text}", exit_code=code)
        stream.unread(said)
    return 0
