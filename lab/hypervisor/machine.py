"""THE STORY OF A VIRTUAL MACHINE: disk → domain → start → ready → stop.

    start    1  parts: writable layers over read-only disks, an archive that says what to run
             2  channels: lab listens where the guest's console, marks and output will arrive
             3  domain: all of it as libvirt's XML, and as orders what of the host QEMU may see
             4  launch: QEMU, in its cgroup and its jail, runs the vCPUs (jail/jail.c)
    ready    5  the guest's kernel, its init and the application report by themselves (guest/init.sh)
    stop     6  the stop signal, time to obey, the plug; then nothing may be left (running.py, as step 5)

A machine can also be saved while its application runs, and others be started from that: see snapshot.py.

Everything the guest does before step 5 ends is in guest/init.sh, which reads as the other half of this story.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Self

from lab.errors import LabError, LaunchError
from lab.host.clock import Timeline
from lab.hypervisor.boot import Boot, kernel_sign, remarks
from lab.hypervisor.channels.ports import Channels
from lab.hypervisor.domains.connection import Domain, Hypervisor
from lab.hypervisor.domains.domain import Port, domain_xml, ports
from lab.hypervisor.domains.launch import inherited_filters, launch
from lab.hypervisor.guest.artefacts import Guest
from lab.hypervisor.jail.confinement import Confinement, require_confined
from lab.hypervisor.jail.orders import write_orders
from lab.hypervisor.parts import MachineRequest, make_parts
from lab.hypervisor.running import CONNECT_TIMEOUT_SECONDS, RunningGuest
from lab.hypervisor.snapshot import STATE, Snapshot, keep, wake_order
from lab.model import Phase

END_TIMEOUT_SECONDS = 10.0


class Orphan:
    """The QEMU of an adopted machine: libvirt, which ran inside the process that was killed, knows it no more."""

    def __init__(self, process: int) -> None:
        self.process = process

    def pause(self) -> None:
        """All of QEMU, since nobody can ask it for its vCPUs alone."""
        self._send(SIGSTOP)

    def resume(self) -> None:
        self._send(SIGCONT)

    def destroy(self) -> None:
        """SIGKILL, if killing its cgroup was not enough."""
        self._send(SIGKILL)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process, number)


class Machine(RunningGuest):
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
                domain = launch(hypervisor, xml, request.network_namespace, spec.accelerator)
            timeline.mark(Phase.ISOLATED)
            request.cgroup.group.follow(domain.process or 0)
            require_confined(domain.process, request.name, inherited_filters(spec.accelerator))
            undo.pop_all()
        machine = cls(request, timeline, channels, domain)
        if request.snapshot is not None:
            with suppress(LabError):  # it has died: whoever waits for its application is told
                if request.snapshot.memory is not None:
                    domain.read_state()
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
        super().__init__(request, timeline, channels)
        self.request = request
        self.process = domain.process  # QEMU's pid
        self._domain = domain

    # Pause and save

    def pause(self) -> None:
        """Stop its vCPUs. Raises LabError."""
        self._domain.pause()

    def resume(self) -> None:
        """Let its vCPUs run again. Raises LabError."""
        self._domain.resume()

    def save(self, directory: Path, *, release: Callable[[], None] | None = None) -> Snapshot:
        """Pause the machine, write it into ``directory``, and stop it: nobody goes on with it but those who are
        restored from there. Raises LabError when QEMU can't; it is stopped all the same. ``release`` as for `stop`.
        """
        assert isinstance(self._domain, Domain)
        try:
            with (directory / STATE).open("wb") as state:
                self._domain.write_state(state.fileno(), memory=self.request.memory is None)
            self._pull_the_plug()
            return keep(self.request.directory, self.request.log_directory, directory, self.request.memory)
        finally:
            self.stop(grace_seconds=0, release=release)

    # Details

    def _wake(self) -> None:
        """Tell a restored guest who it is; it answers with the mark that is RESTORED."""
        with suppress(LaunchError):  # it has died: whoever waits for its application is told
            self._connection(Port.ORDERS)
        self._channels.order(wake_order(self.request.handover))

    def _pull_the_plug(self) -> None:
        """End QEMU at once; libvirt notices by itself, and puts its books in order without us waiting for it."""
        self.request.cgroup.kill()
        if not self._channels.wait(lambda: self._channels.ended, END_TIMEOUT_SECONDS):
            self._domain.destroy()
