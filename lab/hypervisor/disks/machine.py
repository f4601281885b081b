"""The story of a machine that boots a disk of the user's: overlay → domain → start → stop.

Nothing of lab's is inside. What it says comes over the serial port, what it does is seen from outside. Its files are
read and never written to: it writes to an overlay, which ends with it.

It is shut in as lab's own machines are (lab/hypervisor/jail), with the disk's files, and no others, to read.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Self

from lab.errors import LaunchError
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Timeline
from lab.host.command import run
from lab.host.survey.checks import OVMF
from lab.host.units import format_bytes
from lab.hypervisor.boot import Boot
from lab.hypervisor.channels.ports import Channels
from lab.hypervisor.disks.own import OwnDisk
from lab.hypervisor.domains.connection import Domain, Hypervisor
from lab.hypervisor.domains.domain import CONSOLE, Disk, Interface, MachineSpec, domain_xml
from lab.hypervisor.domains.launch import inherited_filters, launch
from lab.hypervisor.ending import take_down
from lab.hypervisor.jail.confinement import require_confined
from lab.hypervisor.jail.orders import write_orders
from lab.hypervisor.kinds import Devices, MachineType
from lab.model import Accelerator, Phase

OVERLAY = "overlay.qcow2"
SERIAL = "lab-disk"
END_TIMEOUT_SECONDS = 10.0
NEWS_SECONDS = 5.0
LEAST_FREE_BYTES = 1 << 30
MORE_SPACE = "free some (lab clean; df -h), or set LAB_HOME to a larger disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRequest:
    """One machine to start from ``disk``; the other fields as in `lab.hypervisor.parts.MachineRequest`.

    What the serial port says goes to ``console`` besides the log.
    """

    name: str
    disk: OwnDisk
    accelerator: Accelerator
    memory_bytes: int
    vcpus: int
    uefi: bool
    devices: Devices
    directory: Path
    log_directory: Path
    cgroup: ControlGroup
    interface: Interface
    network_namespace: int
    console: int | None = None


class DiskMachine:
    """A running machine. A context manager; leaving it stops the machine. Thread-safe."""

    @classmethod
    def start(cls, hypervisor: Hypervisor, request: DiskRequest, timeline: Timeline) -> Self:
        """Start a machine and return as soon as its vCPUs run. Marks ISOLATED.

        Raises LabError when QEMU can't be started, or the disk was changed; nothing is left behind then.
        """
        with ExitStack() as undo:
            undo.callback(request.cgroup.remove)
            undo.callback(shutil.rmtree, request.directory, ignore_errors=True)
            with timeline.step("lab", Boot.PARTS):
                request.directory.mkdir(parents=True)
                request.disk.require_unchanged()
                require_space(request.disk, request.directory)
                spec = specification(request, hypervisor.emulator)
                make_overlay(request.disk, spec.disks[0].path)
            with timeline.step("lab", Boot.CHANNELS):
                channels = Channels(
                    request.directory, timeline, request.log_directory, stdout=request.console, console_alone=True
                )
                undo.callback(channels.close)
            with timeline.step("lab", Boot.DOMAIN):
                xml = domain_xml(spec)
                write_orders(spec, hypervisor.qemu, hypervisor.root, hypervisor.seccomp)
            undo.callback(request.cgroup.kill)
            with timeline.step("lab", Boot.LAUNCH):
                domain = launch(hypervisor, xml, request.network_namespace, spec.accelerator)
            timeline.mark(Phase.ISOLATED)
            domain.watch_ending(request.cgroup.kill)
            require_confined(domain.process, request.name, inherited_filters(spec.accelerator))
            undo.pop_all()
        return cls(request, timeline, channels, domain)

    def __init__(self, request: DiskRequest, timeline: Timeline, channels: Channels, domain: Domain) -> None:
        self.request = request
        self.timeline = timeline
        self.process = domain.process  # QEMU's pid
        self._channels = channels
        self._domain = domain
        self._lock = threading.Lock()
        self._stopped = False
        self._unplugged = False

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """0 once its system has switched it off, None when the time ran out first; 137, as after SIGKILL, when the
        plug was pulled. Raises LaunchError, with its last words, when QEMU has failed, or the host was full.
        """
        if not self._channels.wait(lambda: self._channels.ended, timeout_seconds):
            return None
        if self._domain.has_no_space:
            raise LaunchError(
                f"{self.request.name} has been unplugged: {self.request.directory.parent} has no space left for what "
                "its system writes",
                hint=MORE_SPACE,
                detail=self.console_tail(),
            )
        stopping = self.timeline.at(Phase.STOPPING) is not None or self._unplugged
        if not self._domain.switched_off(0.0 if stopping else NEWS_SECONDS):
            if stopping:
                return 128 + SIGKILL
            raise LaunchError(
                f"QEMU of {self.request.name} has failed",
                detail="\n".join(filter(None, (self._domain.log_tail(), self.console_tail()))),
            )
        return 0

    def pause(self) -> None:
        """Stop its vCPUs. Raises LabError."""
        self._domain.pause()

    def resume(self) -> None:
        """Let its vCPUs run again. Raises LabError."""
        self._domain.resume()

    def press_power_button(self) -> None:
        """Ask its system to end."""
        self._domain.press_power_button()

    def pull_the_plug(self) -> None:
        """End QEMU at once."""
        self._unplugged = True
        self.request.cgroup.kill()
        if not self._channels.wait(lambda: self._channels.ended, END_TIMEOUT_SECONDS):
            self._domain.destroy()

    def type(self, data: bytes) -> None:
        """Send what is typed to its serial port. Lost when the machine has ended."""
        with suppress(OSError, KeyError):
            self._channels.connections[CONSOLE].sendall(data)

    def console_tail(self) -> str:
        """The last lines that its serial port has said."""
        return self._channels.console_tail()

    def stop(self, grace_seconds: float = 10.0, *, release: Callable[[], None] | None = None) -> None:
        """Press the power button, wait, pull the plug, remove everything and verify. Idempotent.

        ``release`` lets go of what else of the host belongs to it once QEMU is dead. Marks STOPPING and GONE. Raises
        LabError if something survived.
        """
        with self._lock:
            if self._stopped:
                return
            self.timeline.mark(Phase.STOPPING)
            if grace_seconds > 0 and not self._channels.ended:
                self.press_power_button()
                self._channels.wait(lambda: self._channels.ended, grace_seconds)
            self._channels.give_up()
            take_down(self.request, [self.pull_the_plug, self._channels.close], release)
            self._stopped = True
            self.timeline.mark(Phase.GONE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def specification(request: DiskRequest, emulator: Path) -> MachineSpec:
    """What QEMU shall be told."""
    files, paths = request.disk.files, request.disk.paths
    disk = Disk(
        serial=SERIAL,
        path=request.directory / OVERLAY,
        boot_order=1,
        chain=tuple((file.path, file.format) for file in files),
        data=tuple(file.data for file in files if file.data),
        known=tuple((path, stamp[0], stamp[1]) for path, stamp in zip(paths, request.disk.stamps, strict=True)),
    )
    return MachineSpec(
        name=request.name,
        machine=MachineType.Q35,
        accelerator=request.accelerator,
        memory_bytes=request.memory_bytes,
        vcpus=request.vcpus,
        emulator=emulator,
        direct=None,
        disks=(disk,),
        sockets=request.directory,
        cgroups=request.cgroup.directories,
        interface=request.interface,
        uefi=OVMF if request.uefi else None,
        foreign=request.devices,
    )


def require_space(disk: OwnDisk, folder: Path) -> None:
    """Raises LaunchError when ``folder`` has neither room for all that a system can write nor for `LEAST_FREE_BYTES`.

    An overlay holds what was written, and never more than the disk's size and qcow2's tables, a hundredth of a per
    cent; all of it is seldom written, so there need not be room for it.
    """
    least, free = min(disk.size_bytes, LEAST_FREE_BYTES), shutil.disk_usage(folder).free
    if free < least:
        raise LaunchError(
            f"what a system writes to {disk.name} needs {format_bytes(least)} to begin with, and {folder.parent} has "
            f"{format_bytes(free)}",
            hint=MORE_SPACE,
        )


def make_overlay(disk: OwnDisk, path: Path) -> None:
    """An empty layer over the disk, whose size is known: qemu-img, which is not shut in, need not open it."""
    top = disk.files[0]
    words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", str(top.format), "-b", str(top.path), str(path)]
    run([*words, str(disk.size_bytes)], timeout_seconds=30, hint="apt-get install qemu-utils")
    path.chmod(0o600)
