"""THE STORY OF A VIRTUAL MACHINE: disk → domain → start → ready → stop.

    start    1  parts: writable layers over read-only disks, an archive that says what to run
             2  channels: lab listens where the guest's console, marks and output will arrive
             3  domain: all of it as libvirt's XML, and as orders what of the host QEMU may see
             4  launch: QEMU, in its cgroup and its jail, runs the vCPUs (jail/jail.c)
    ready    5  the guest's kernel, its init and the application report by themselves (guest/init.sh)
    stop     6  the stop signal, time to obey, the plug; then nothing may be left

A machine can also be saved while its application runs, and others be started from that: see snapshot.py.

Everything the guest does before step 5 ends is in guest/init.sh, which reads as the other half of this story.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Self
from uuid import uuid4

from lab.errors import LabError, LaunchError
from lab.host.clock import Timeline, now
from lab.hypervisor.boot import Boot, kernel_sign, remarks
from lab.hypervisor.channels.agent import BUSYBOX, GuestAgent
from lab.hypervisor.channels.commands import GuestCommand, GuestCommands
from lab.hypervisor.channels.keyboard import Keyboard
from lab.hypervisor.channels.ports import Channels
from lab.hypervisor.connection import Domain, Hypervisor
from lab.hypervisor.domain import Port, domain_xml, ports
from lab.hypervisor.ending import take_down
from lab.hypervisor.guest.artefacts import Guest
from lab.hypervisor.guest.handover import ENTER
from lab.hypervisor.jail.confinement import Confinement, require_confined
from lab.hypervisor.jail.orders import write_orders
from lab.hypervisor.launch import launch
from lab.hypervisor.parts import MachineRequest, make_parts
from lab.hypervisor.snapshot import STATE, Snapshot, keep, wake_order
from lab.model import Completed, Phase, Process, TerminalSize

CONNECT_TIMEOUT_SECONDS = 30.0
END_TIMEOUT_SECONDS = 10.0
BOOT_TIMEOUT_SECONDS = 180.0  # a full Debian, emulated, on a busy host


class Orphan:
    """The QEMU of an adopted machine: libvirt, which ran inside the process that was killed, knows it no more."""

    def __init__(self, process: int) -> None:
        self.process = process

    def destroy(self) -> None:
        """SIGKILL, if killing its cgroup was not enough."""
        with suppress(ProcessLookupError):
            os.kill(self.process, SIGKILL)


class Machine:
    """A running virtual machine. A context manager; leaving it stops the machine. Thread-safe."""

    @classmethod
    def start(cls, hypervisor: Hypervisor, guest: Guest, request: MachineRequest, timeline: Timeline) -> Self:
        """Start a machine and return as soon as its vCPUs run. Marks ISOLATED, and later KERNEL, INIT, EXECUTED; of
        one that is restored RESTORED instead of these three.

        Raises LabError when QEMU can't be started, LimitError when the guest can't boot in so little memory;
        nothing is left behind then.
        """
        with ExitStack() as undo:
            undo.callback(request.cgroup.remove)
            undo.callback(shutil.rmtree, request.directory, ignore_errors=True)
            with timeline.step("lab", Boot.PARTS):
                request.directory.mkdir(parents=True)
                spec = make_parts(request, guest, hypervisor.emulator)
                if timeline.listener is not None:
                    timeline.listener.remark(remarks(request, spec))
            with timeline.step("lab", Boot.CHANNELS):
                channels = Channels(
                    request.directory, timeline, request.log_directory, stdout=request.stdout, stderr=request.stderr,
                    kernel_sign=kernel_sign(request.design),
                    restored=request.snapshot is not None,
                )  # fmt: skip
                undo.callback(channels.close)
            with timeline.step("lab", Boot.DOMAIN):
                xml = domain_xml(spec)
                write_orders(spec, hypervisor.qemu, hypervisor.root, hypervisor.seccomp)
            undo.callback(request.cgroup.kill)
            with timeline.step("lab", Boot.LAUNCH):
                domain = launch(hypervisor, xml, request.network_namespace)
            timeline.mark(Phase.ISOLATED)
            require_confined(domain.process, request.name)
            undo.pop_all()
        machine = cls(request, timeline, channels, domain)
        if request.snapshot is not None:
            with suppress(LabError):  # it has died: whoever waits for its application is told
                domain.go_on()
            machine._wake()
        return machine

    @classmethod
    def adopt(cls, request: MachineRequest, process: int, timeline: Timeline) -> Self:
        """Take over a detached machine, whose QEMU is ``process``, from a lab that was killed.

        What the guest wrote to its ports meanwhile comes now; of the console it is lost. Raises LabError when it has
        ended, or does not connect again.
        """
        try:
            vmm = os.pidfd_open(process)
        except ProcessLookupError as error:
            raise LabError(f"{request.name} has ended") from error
        owner = Confinement.of(process).uid
        channels = Channels(
            request.directory, timeline, request.log_directory, vmm=vmm, owner=owner, kernel_sign=None
        )  # fmt: skip

        def connected() -> bool:
            wanted = ports(interactive=request.handover.interactive)
            return channels.ended or all(channels.connection(port) for port in wanted)

        if not channels.wait(connected, CONNECT_TIMEOUT_SECONDS):
            raise LabError(f"the machine of {request.handover.hostname} does not connect again")
        return cls(request, timeline, channels, Orphan(process))

    def __init__(
        self, request: MachineRequest, timeline: Timeline, channels: Channels, domain: Domain | Orphan
    ) -> None:
        self.request = request
        self.timeline = timeline
        self.process = domain.process  # QEMU's pid
        self._channels = channels
        self._domain = domain
        self._started = now()
        self._agent: GuestAgent | None = None
        self._commands: GuestCommands | None = None
        self._keyboard = Keyboard(request.stdin, self._input) if request.handover.interactive else None
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

        def ended() -> bool:
            return channels.ended or channels.exit_code is not None

        channels.wait(
            lambda: ended() or self._executed(), _until(latest if deadline is None else min(latest, deadline))
        )
        if not ended() and not self._executed() and now() >= latest:
            raise self._late(BOOT_TIMEOUT_SECONDS)
        channels.wait(ended, None if deadline is None else _until(deadline))
        if channels.exit_code is None and channels.ended:
            if self.timeline.at(Phase.STOPPING) is not None:
                return 128 + SIGKILL
            raise self._died()
        return channels.exit_code

    def signal(self, number: int) -> None:
        """Send a signal to the application, by an order to the guest's own scripts."""
        self._channels.order(f"signal {number}")

    def execute(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0, in_image: bool = True
    ) -> Completed:
        """Run a command as root with the image as its root, or, without ``in_image``, in the guest around it.

        Starts the guest's agent the first time. Raises LabError as `GuestAgent.execute` does.
        """
        words = [BUSYBOX, "sh", ENTER, *argv] if in_image else list(argv)
        environment = {**self.request.handover.process.environment} if in_image else {}
        environment.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        return self._guest_agent().execute(
            words, environment=environment, stdin=stdin, timeout_seconds=timeout_seconds
        )

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

    # Save

    def save(self, directory: Path, *, release: Callable[[], None] | None = None) -> Snapshot:
        """Pause the machine, write it into ``directory``, and stop it: nobody goes on with it but those who are
        restored from there. Raises LabError when QEMU can't; it is stopped all the same. ``release`` as for `stop`.
        """
        assert isinstance(self._domain, Domain)
        try:
            with (directory / STATE).open("wb") as state:
                self._domain.write_state(state.fileno())
            self._pull_the_plug()
            return keep(self.request.directory, self.request.log_directory, directory)
        finally:
            self.stop(grace_seconds=0, release=release)

    # Stop

    def stop(
        self, grace_seconds: float = 10.0, stop_signal: int = SIGTERM, *, release: Callable[[], None] | None = None
    ) -> None:
        """Ask the application, wait, pull the plug, remove everything and verify. Idempotent.

        ``release`` lets go of what else of the host belongs to it (its tap) once QEMU is dead, before GONE.
        Marks STOPPING and GONE. Raises LabError if something survived.
        """
        with self._lock:
            if self._stopped:
                return
            self.timeline.mark(Phase.STOPPING)
            self._ask_to_end(grace_seconds, stop_signal)
            take_down(self.request, [self._pull_the_plug, self._close_streams, self._channels.close], release)
            self._stopped = True
            self.timeline.mark(Phase.GONE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # Details

    def _executed(self) -> bool:
        return self.timeline.running() is not None

    def _wake(self) -> None:
        """Tell a restored guest who it is; it answers with the mark that is RESTORED."""
        with suppress(LaunchError):  # it has died: whoever waits for its application is told
            self._connection(Port.ORDERS)
        self._channels.order(wake_order(self.request.handover))

    def _ask_to_end(self, grace_seconds: float, stop_signal: int) -> None:
        channels = self._channels
        if grace_seconds > 0 and self._executed():
            self.signal(stop_signal)
            channels.wait(lambda: channels.ended or channels.exit_code is not None, grace_seconds)

    def _guest_agent(self) -> GuestAgent:
        with self._lock:
            if self._agent is None:
                connection = self._connection(Port.AGENT)
                self._channels.order("agent")
                self._agent = GuestAgent(connection)
            return self._agent

    def _served(self) -> GuestCommands:
        with self._lock:
            if self._commands is None or not self._commands.lives:
                connection = self._connection(Port.SESSIONS)
                word = f"lab-{uuid4().hex}"
                self._channels.order(f"sessions {word}")
                self._commands = GuestCommands(connection, word)
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
        return LaunchError(f"the guest of {self.request.name} died: {reason}", detail=self.console_tail())

    def _late(self, seconds: float) -> LaunchError:
        return LaunchError(
            f"{self.request.name} did not start its application within {seconds:g} s", detail=self.console_tail()
        )

    def _not_executable(self, errno: int) -> LaunchError:
        program = self.request.handover.process.argv[0]
        code = 127 if errno == 2 else 126
        return LaunchError(f"{program} can't be executed: {os.strerror(errno)}", exit_code=code)

    def _pull_the_plug(self) -> None:
        """End QEMU at once; libvirt notices by itself, and puts its books in order without us waiting for it."""
        self.request.cgroup.kill()
        if not self._channels.wait(lambda: self._channels.ended, END_TIMEOUT_SECONDS):
            self._domain.destroy()


def _until(deadline: float) -> float:
    return max(0.0, deadline - now())
