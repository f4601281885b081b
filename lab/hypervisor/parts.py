"""The files of one machine, made before it starts: its disks' writable layers, and what says who it is.

Its limits become RAM and vCPUs here (`memory_bytes`, `vcpus`), which `lab.hypervisor.domains.domain` writes down.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import LimitError
from lab.host.cgroup.control import ControlGroup
from lab.host.survey.checks import OVMF
from lab.hypervisor.commandline import command_line
from lab.hypervisor.domains.domain import DirectBoot, Disk, Interface, MachineSpec, MappedMemory
from lab.hypervisor.guest.artefacts import Guest, Layered
from lab.hypervisor.guest.handover import Handover
from lab.hypervisor.guest.loader import write_own_disk
from lab.hypervisor.kinds import Design, Firmware, UserSpace
from lab.hypervisor.memory import SavedMemory
from lab.hypervisor.snapshot import Snapshot
from lab.hypervisor.tsc import tsc_khz
from lab.model import Accelerator, Limits

INITRAMFS, OWN = "initramfs", "own.raw"  # what is a machine's own of what it boots from
DEFAULT_MEMORY_BYTES = 512 << 20
LEAST_MEMORY_BYTES = {UserSpace.IMAGE: 96 << 20, UserSpace.DEBIAN: 192 << 20}
LEAST_MEMORY_WITH_UEFI_BYTES = 256 << 20  # with less its boot loader finds no room for the kernel
DEFAULT_VCPUS = 1
NAMES = {UserSpace.IMAGE: "microvm", UserSpace.DEBIAN: "vm"}  # what their backends are called


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRequest:
    """One machine to start.

    ``directory`` is a new folder for its sockets and layers, short enough for socket paths; ``cgroup`` exists
    and is empty. Both are the machine's from now on and are removed when it stops. ``network_namespace`` is a
    descriptor of the namespace that holds the interface's tap. ``stdout`` and ``stderr`` receive the
    application's output besides the logs; ``stdin`` and resizing reach one whose handover is interactive. A
    ``detached`` machine can be adopted when this process was killed. Of a ``snapshot`` the machine goes on instead of
    booting; it must have been saved by one with the same design, accelerator, limits, image and process. One that
    shall be saved for others to map has ``memory`` to be its RAM.
    """

    name: str
    design: Design
    accelerator: Accelerator
    image_disk: Path
    handover: Handover
    directory: Path
    log_directory: Path
    cgroup: ControlGroup
    limits: Limits = field(default_factory=Limits)
    interface: Interface | None = None
    network_namespace: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    stdin: int | None = None
    detached: bool = False
    snapshot: Snapshot | None = None
    memory: SavedMemory | None = None


def memory_bytes(limits: Limits, design: Design) -> int:
    """The guest's RAM: the memory limit itself. Raises LimitError below the least that lab gives."""
    wanted = limits.memory_bytes or DEFAULT_MEMORY_BYTES
    least = least_memory_bytes(design)
    if wanted < least:
        what = f"{NAMES[design.user_space]} with {wanted >> 20} MiB"
        raise LimitError(
            f"lab starts no {what}: its own system needs too much of that",
            hint=f"--memory {least >> 20}M or more",
        )
    return wanted


def least_memory_bytes(design: Design) -> int:
    """The RAM below which such a machine can't be expected to boot."""
    least = LEAST_MEMORY_BYTES[design.user_space]
    return max(least, LEAST_MEMORY_WITH_UEFI_BYTES) if design.firmware is Firmware.OVMF else least


def vcpus(limits: Limits) -> int:
    """Virtual CPUs for a limit of so many CPUs, rounded up: half a vCPU does not exist."""
    return math.ceil(limits.cpus) if limits.cpus else DEFAULT_VCPUS


def make_parts(request: MachineRequest, guest: Guest, emulator: Path) -> MachineSpec:
    """Write the machine's own files into its folder and say what QEMU shall be told."""
    for log in request.snapshot.logs if request.snapshot else ():
        shutil.copy(log, request.log_directory)  # what it goes on with has a beginning
    words = command_line(request.design, tsc_khz=tsc_khz() if request.accelerator is Accelerator.TCG else None)
    loaders = _loaders(request, guest, words)
    direct = None if loaders else _direct(request, guest, words)
    return MachineSpec(
        name=request.name,
        machine=request.design.machine,
        accelerator=request.accelerator,
        memory_bytes=memory_bytes(request.limits, request.design),
        vcpus=vcpus(request.limits),
        emulator=emulator,
        direct=direct,
        disks=_disks(request, guest) + loaders,
        sockets=request.directory,
        cgroups=request.cgroup.directories,
        interface=request.interface,
        uefi=OVMF if request.design.firmware is Firmware.OVMF else None,
        interactive=request.handover.interactive,
        memory=_memory(request),
        incoming=request.snapshot.state if request.snapshot else None,
        reconnect=request.detached,
    )


def files_of(design: Design, guest: Guest, image_disk: Path) -> list[Path]:
    """What `make_parts` copies for a machine of that design, and what QEMU opens as it is."""
    kernel = [guest.loader_disk] if guest.loader_disk else [guest.kernel, guest.initramfs]
    shared = [*kernel, image_disk]
    if design.user_space is UserSpace.DEBIAN:
        return [*shared, guest.system.template, guest.system.base]
    return [*shared, guest.scratch.template, guest.scratch.base]


def _memory(request: MachineRequest) -> MappedMemory | None:
    saved = request.snapshot.memory if request.snapshot else None
    memory = saved or request.memory
    return MappedMemory(path=memory.path, private=saved is not None) if memory else None


def _direct(request: MachineRequest, guest: Guest, words: str) -> DirectBoot:
    return DirectBoot(kernel=guest.kernel, initramfs=_initramfs(request, guest), command_line=words)


def _disks(request: MachineRequest, guest: Guest) -> tuple[Disk, ...]:
    image = Disk(serial="lab-image", path=request.image_disk)
    if request.design.user_space is UserSpace.DEBIAN:
        return (_layer("lab-os", guest.system, request), image)
    return (image, _layer("lab-scratch", guest.scratch, request))


def _loaders(request: MachineRequest, guest: Guest, words: str) -> tuple[Disk, ...]:
    """The disks that firmware and boot loader read, where it is not QEMU that loads the kernel."""
    if guest.loader_disk is None:
        return ()
    own = _path(OWN, request)
    if request.snapshot is None:
        write_own_disk(request.handover, words, own)
    return (
        Disk(serial="lab-loader", path=guest.loader_disk, boot_order=1),
        Disk(serial="lab-own", path=own, boot_order=2),
    )


def _path(name: str, request: MachineRequest) -> Path:
    """Where a file is that the machine boots from; the saved one's, if there is one, fills the same device."""
    return request.snapshot.parts[name] if request.snapshot else request.directory / name


def _layer(serial: str, layered: Layered, request: MachineRequest) -> Disk:
    path = request.directory / f"{serial}.qcow2"
    shutil.copyfile(layered.template, path)
    saved = request.snapshot.parts[path.name] if request.snapshot else None
    return Disk(serial=serial, path=path, backing=layered.base, between=saved)


def _initramfs(request: MachineRequest, guest: Guest) -> Path:
    """The shared archive followed by this machine's own: the kernel unpacks one after the other."""
    path = _path(INITRAMFS, request)
    if request.snapshot is not None:
        return path
    with guest.initramfs.open("rb") as shared, path.open("wb") as whole:
        os.sendfile(whole.fileno(), shared.fileno(), 0, guest.initramfs.stat().st_size)
        whole.seek(0, os.SEEK_END)
        whole.write(request.handover.archive())
    return path
