"""A guest that runs, whatever its kernel runs on: wait for its application, signal it, run commands, end it.

Whoever starts one makes the channels first, and derives from `RunningGuest` what it takes to pull the plug:
machine.py does it for virtual machines. Out of scope: how a guest came to run.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from signal import SIGKILL, SIGTERM
from typing import ClassVar, Protocol, Self
from uuid import uuid4

from lab.errors import LabError, LaunchError
from lab.host.clock import Timeline, now
from lab.hypervisor.channels.commands import GuestCommand, GuestCommands
from lab.hypervisor.channels.keyboard import Keyboard
from lab.hypervisor.channels.ports import Channels
from lab.hypervisor.domains.domain import Port
from lab.hypervisor.ending import Made, take_down
from lab.images.process import DEFAULT_PATH
from lab.model import Completed, Phase, Process, TerminalSize

CONNECT_TIMEOUT_SECONDS = 30.0
MOST_BYTES = 16 << 20
LOOK_SECONDS = 0.25  # how often what a command has written is looked at
BOOT_TIMEOUT_SECONDS = 180.0  # a full Debian, emulated, on a busy host


class Told(Protocol):
    """What of that which a guest was told is needed afterwards."""

    @property
    def process(self) -> Process: ...
    @property
    def interactive(self) -> bool: ...


class Wanted(Made, Protocol):
    """What of a request outlives its start."""

    @property
    def handover(self) -> Told: ...
    @property
    def stdin(self) -> int | None: ...


class RunningGuest(ABC):
    """A running guest. A context manager; leaving it stops the guest. Thread-safe."""

    most_untaken_bytes: ClassVar[int | None] = None
    """What a port of it may hold that nobody has taken, where more would be lost."""

    def __init__(self, request: Wanted, timeline: Timeline, channels: Channels) -> None:
        self.timeline = timeline
        self._wanted = request
        self._channels = channels
        self._started = now()
        self._commands: GuestCommands | None = None
        self._keyboard: Keyboard | None = None
        if request.handover.interactive:
            self._keyboard = Keyboard(request.stdin, self._input, most_untaken_bytes=self.most_untaken_bytes)
        self._lock = threading.Lock()
        self._stopped = False

    # Ready

    def wait_executed(self, timeout_seconds: float = BOOT_TIMEOUT_SECONDS) -> None:
        """Block until the application's execve(2) has happened, or it goes on after having been saved. Raises
        LaunchError, with the console's tail, when it can't be executed, the guest fails before, or the time runs out.
        """
        channels = self._channels
        reached = channels.wait(
            lambda: channels.ended or channels.failed_errno is not None or self._executed(), timeout_seconds
        )
        if self._executed():
            return
        if channels.failed_errno is not None:
            raise self._not_executable(channels.failed_errno)
        if reached:
            raise self._died()
        raise self._late(timeout_seconds)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n, 126 and 127 as in a shell), None when the time ran
        out first; 137, as after SIGKILL, when the plug was pulled before the application ended. Raises LaunchError,
        with the console's tail, when the guest ended without one by itself or has been booting for
        ``BOOT_TIMEOUT_SECONDS``.
        """
        channels = self._channels
        deadline = None if timeout_seconds is None else now() + timeout_seconds
        latest = self._started + BOOT_TIMEOUT_SECONDS
        channels.wait(
            lambda: self._has_ended() or self._executed(),
            _until(latest if deadline is None else min(latest, deadline)),
        )
        if not self._has_ended() and not self._executed() and now() >= latest:
            raise self._late(BOOT_TIMEOUT_SECONDS)
        channels.wait(self._has_ended, None if deadline is None else _until(deadline))
        if channels.exit_code is None and channels.ended:
            if self.timeline.at(Phase.STOPPING) is not None:
                return 128 + SIGKILL
            raise self._died()
        return channels.exit_code

    def signal(self, number: int) -> None:
        """Send a signal to the application, by an order to the guest's own scripts."""
        self._channels.order(f"signal {number}")

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        """Run a command as root with the image as its root and the application's environment.

        Raises as `begin` does, and LabError when it writes more than 16 MiB to a stream, or runs longer than
        ``timeout_seconds``; it is then killed.
        """
        environment = {"PATH": DEFAULT_PATH, **self._wanted.handover.process.environment}
        process = Process(argv=tuple(argv), environment=environment, working_directory="/", uid=0, gid=0)
        deadline = now() + timeout_seconds
        with ExitStack() as opened:
            source, out, err = (opened.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            source.write(stdin)
            source.seek(0)
            files = {"stdin": source.fileno(), "stdout": out.fileno(), "stderr": err.fileno()}
            command = opened.enter_context(self.begin(process, **files, terminal=None))
            code = None
            while code is None:
                code = command.wait(min(LOOK_SECONDS, _until(deadline)))
                if max(os.fstat(file.fileno()).st_size for file in (out, err)) > MOST_BYTES:
                    raise LabError(f"{' '.join(argv)} wrote more than {MOST_BYTES >> 20} MiB in {self._wanted.name}")
                if code is None and now() > deadline:
                    raise LabError(f"{argv[0]} did not end within {timeout_seconds:g} s in {self._wanted.name}")
            out.seek(0)
            err.seek(0)
            return Completed(exit_code=code, stdout=out.read(), stderr=err.read())

    def begin(
        self, process: Process, *, stdin: int | None, stdout: int, stderr: int, terminal: TerminalSize | None
    ) -> GuestCommand:
        """Start a command with streams or a terminal of its own, with the image as its root.

        Starts the guest's server of such commands the first time. Raises as `GuestCommands.begin` does.
        """
        return self._served().begin(
            process.argv,
            environment=process.environment,
            user=":".join(map(str, (process.uid, process.gid, *process.additional_gids))),
            directory=process.working_directory,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=terminal,
        )

    def resize(self, size: TerminalSize) -> None:
        """Give the application's terminal, if it has one, another size."""
        if self._keyboard is not None:
            self._keyboard.resize(size)

    def console_tail(self) -> str:
        """The last lines of the guest's console."""
        return self._channels.console_tail()

    # Stop

    def stop(
        self, grace_seconds: float = 10.0, stop_signal: int = SIGTERM, *, release: Callable[[], None] | None = None
    ) -> None:
        """Ask the application, wait, pull the plug, remove everything and verify. Idempotent.

        ``release`` lets go of what else of the host belongs to it (its tap) once its processes are dead, before GONE.
        Marks STOPPING and GONE. Raises LabError if something survived.
        """
        with self._lock:
            if self._stopped:
                return
            self.timeline.mark(Phase.STOPPING)
            self._ask_to_end(grace_seconds, stop_signal)
            self._channels.give_up()
            take_down(self._wanted, [self._pull_the_plug, self._close_streams, self._channels.close], release)
            self._stopped = True
            self.timeline.mark(Phase.GONE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # Details

    @abstractmethod
    def _pull_the_plug(self) -> None:
        """End it at once, with all of its processes on the host."""

    def _executed(self) -> bool:
        return self.timeline.running() is not None

    def _has_ended(self) -> bool:
        """The application, as far as the guest has said so, or the machine."""
        return self._channels.ended or self._channels.exit_code is not None

    def _ask_to_end(self, grace_seconds: float, stop_signal: int) -> None:
        if grace_seconds > 0 and self._executed() and not self._has_ended():
            self.signal(stop_signal)
            self._channels.wait(self._has_ended, grace_seconds)

    def _served(self) -> GuestCommands:
        with self._lock:
            if self._commands is None or not self._commands.lives:
                connection = self._connection(Port.SESSIONS)
                word = f"lab-{uuid4().hex}"
                self._channels.order(f"sessions {word}")
                self._commands = GuestCommands(connection, word, most_untaken_bytes=self.most_untaken_bytes)
            return self._commands

    def _connection(self, port: Port) -> socket.socket:
        channels = self._channels
        channels.wait(lambda: channels.ended or channels.connection(port) is not None, CONNECT_TIMEOUT_SECONDS)
        connection = channels.connection(port)
        if connection is None or channels.ended:
            raise self._died()
        return connection

    def _input(self) -> socket.socket | None:
        try:
            return self._connection(Port.INPUT)
        except LaunchError:  # who waits for the application is told
            return None

    def _close_streams(self) -> None:
        for streams in (self._commands, self._keyboard):
            if streams is not None:
                streams.close()

    def _died(self) -> LaunchError:
        reason = self._channels.failure() or "its console's last lines follow"
        return LaunchError(f"the guest of {self._wanted.name} died: {reason}", detail=self.console_tail())

    def _late(self, seconds: float) -> LaunchError:
        return LaunchError(
            f"{self._wanted.name} did not start its application within {seconds:g} s", detail=self.console_tail()
        )

    def _not_executable(self, errno: int) -> LaunchError:
        program = self._wanted.handover.process.argv[0]
        code = 127 if errno == 2 else 126
        return LaunchError(f"{program} can't be executed: {os.strerror(errno)}", exit_code=code)


def _until(deadline: float) -> float:
    return max(0.0, deadline - now())
