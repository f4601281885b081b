"""A disk of the user's in an ordinary PC: any system that boots there, of which lab knows nothing.

Each disk is a backend of its own, made by `DiskBackend.of` and found by its name from then on: ``vm:debian12``.
Nothing of lab's is inside, so nobody can be asked there; what is seen from outside is measured.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, ClassVar, Self

from lab.backends import registry
from lab.backends.microvm import MEMORY_UNDER_TCG, OF_A_USER, VIRTUAL_CPU
from lab.backends.support.base import raise_as_launch_error
from lab.backends.support.brought import Brought
from lab.backends.support.guests.machine import LONGEST_DIRECTORY_BYTES, libvirt, tun
from lab.backends.support.resources import InstanceResources
from lab.errors import BackendUnavailable, LabError, LaunchError, LimitError, UsageError
from lab.host.clock import Timeline
from lab.host.identity import privilege
from lab.host.processor import check_machines, has_machines
from lab.host.survey import checks
from lab.hypervisor.kinds import Devices, Firmware
from lab.images.image import Image, Origin
from lab.instance import NO_KNOBS, Instance, Knob, LaunchRequest, Parity
from lab.model import Check, Completed, ImageConfig, Kernel, Limits, Phase, Process

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts
    from lab.hypervisor.disks.machine import DiskMachine
    from lab.hypervisor.disks.own import OwnDisk

WORDS_BETWEEN = ":"  # of vm:DISK:firmware=ovmf
EXAMPLE = "vm:./disk.qcow2:firmware=ovmf:devices=plain:format=raw"
DEFAULT_MEMORY_BYTES = 1 << 30
LEAST_MEMORY_BYTES = {Firmware.SEABIOS: 16 << 20, Firmware.OVMF: 256 << 20}
LAST_SECOND = 253_402_300_799  # of the year 9999; file systems know later ones
FIRMWARE = Knob(
    name="firmware",
    levels=(Firmware.SEABIOS, Firmware.OVMF),
    tells="what of a boot is the firmware's: a BIOS, or UEFI",
)
DEVICES = Knob(
    name="devices",
    levels=tuple(Devices),
    tells="what devices cost that are made like real ones, for a system without virtio",
)
NOBODY = "nothing of lab's is in there that could be asked"
DIFFERENCES = (
    "User space: a whole system that lab did not make. Which application answers, and what else runs, is not known: "
    "figures compare two systems, not two boundaries.",
    "Not asked inside: files, limits as they are seen there, memory as its kernel counts it, the fixed computation, "
    "the isolation questions.",
    "Memory: the limit is the guest's RAM, which holds its kernel and all of its system; without one it is 1 GiB.",
    MEMORY_UNDER_TCG,
    VIRTUAL_CPU,
    "Processes: no limit, since nobody is inside who could set it.",
    "Disk: what it writes goes to an overlay over the disk, and is cached twice, by the guest and by the host.",
    "Start: firmware and boot loader of the disk run, the latter as long as it waits for a key.",
    "Stop: its power button is pressed; a system that has not switched itself off after 10 s is unplugged.",
)
OF_LEVEL = {
    ("firmware", Firmware.OVMF.value): "Firmware: OVMF (UEFI, no settings kept), which starts EFI/BOOT/BOOTX64.EFI.",
    (
        "devices",
        Devices.VIRTIO.value,
    ): "Network: packets pass a virtio card and a tap where the others have a veth pair.",
    (
        "devices",
        Devices.PLAIN.value,
    ): "Devices: an AHCI disk, an e1000e and a VGA card, emulated register by register.",
}


class DiskInstance(Instance):
    """One machine that boots the disk."""

    opaque = True

    def __init__(
        self, backend: str, request: LaunchRequest, machine: DiskMachine, resources: InstanceResources
    ) -> None:
        self.name = request.name
        self.backend = backend
        self.request = request
        self.timeline = machine.timeline
        self.address = resources.address
        self.published = resources.published
        self.accelerator = machine.request.accelerator
        self.cgroup = machine.request.cgroup
        self.given = Limits(memory_bytes=machine.request.memory_bytes, cpus=machine.request.vcpus)
        self.machine = machine
        self._resources = resources

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        raise LabError(f"{argv[0]} can't be run in {self.name}: {NOBODY}", hint="ask over its network")

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """0 once its system has switched it off."""
        return self.machine.wait(timeout_seconds)

    def signal(self, number: int) -> None:
        """SIGKILL pulls the plug, any other signal presses the power button."""
        if number == SIGKILL:
            self.machine.pull_the_plug()
        else:
            self.machine.press_power_button()

    def pause(self) -> None:
        self.machine.pause()

    def resume(self) -> None:
        self.machine.resume()

    def stop(self, grace_seconds: float = 10.0) -> None:
        self.machine.stop(grace_seconds, release=self._resources.release)


class DiskBackend(Brought):
    """What the backends of all disks have in common; ``disk`` is the one that a class of its own boots."""

    prefix = "vm:"
    first_order = 51  # right behind lab's own vm
    kernel = Kernel.OWN
    opaque = True
    rootless = True
    disk: ClassVar[OwnDisk]
    knobs: ClassVar[tuple[Knob, ...]] = (FIRMWARE, DEVICES)
    parity = Parity(differences=DIFFERENCES, rootless=(OF_A_USER,), of_level=OF_LEVEL)

    def __init__(self, site: SharedParts) -> None:
        super().__init__(site)
        self._numbers = itertools.count(1)

    @classmethod
    def bring(cls, rest: str, *, form: str = "", backing: Sequence[Path] = ()) -> type[Self]:
        """``DISK:firmware=ovmf:devices=plain`` sets its knobs, ``format=raw`` its format, which else is ``form``."""
        from lab.hypervisor.disks.own import examine

        path, *settings = rest.split(WORDS_BETWEEN)
        if not path:
            raise UsageError(f"{cls.prefix} without a disk", hint="vm:./disk.qcow2")
        levels = dict(_setting(each, rest) for each in settings)
        disk = examine(Path(path), form=levels.pop("format", form), backing=backing)
        word = WORDS_BETWEEN.join((f"{cls.prefix}{Path(path).absolute()}", *settings))
        return cls.of(disk, levels, word)

    @classmethod
    def is_same(cls, other: type[Brought]) -> bool:
        return issubclass(other, DiskBackend) and cls.disk.files == other.disk.files

    @classmethod
    def of(cls, disk: OwnDisk, levels: Mapping[str, str] = NO_KNOBS, word: str = "") -> type[Self]:
        """The backend of ``disk``; ``levels`` are what its knobs are at when nobody sets them.

        Raises UsageError for levels that don't exist.
        """
        kind = registry.make(
            cls,
            disk.name.rpartition(".")[0] or disk.name,
            word=word or f"{cls.prefix}{disk.files[0].path}",
            title=f"virtual machine (QEMU) from {disk.name}",
            mechanism=f"a virtual PC that boots {disk.name}: a kernel and a system of its own, made by others",
            disk=disk,
            own_image=placeholder(disk),
        )
        kind.settle(levels)
        kind.knobs = tuple(
            Knob(name=knob.name, levels=_first(levels.get(knob.name), knob.levels), tells=knob.tells)
            for knob in DiskBackend.knobs
        )
        registry.admit(kind)
        return kind

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        levels = super().settle(knobs)
        if levels["firmware"] == Firmware.OVMF and not checks.OVMF.exists():
            raise BackendUnavailable(
                "firmware=ovmf can't be had here: it is not installed", hint="apt-get install ovmf"
            )
        return levels

    @classmethod
    def check_limits(cls, limits: Limits, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        least = LEAST_MEMORY_BYTES[Firmware(cls.settle(knobs)["firmware"])]
        if limits.memory_bytes is not None and limits.memory_bytes < least:
            raise LimitError(
                f"no system boots from a disk in {limits.memory_bytes >> 20} MiB",
                hint=f"--memory {least >> 20}M or more",
            )

    @classmethod
    def check(cls) -> list[Check]:
        if not has_machines():
            return [check_machines()]
        programs = ("qemu-system-x86_64", "qemu-img", "dnsmasq")
        tools = [checks.tool(tool) for tool in checks.TOOLS if tool.program in programs]
        own_ids = [checks.subordinate_ids()] if privilege.is_rootless() else []
        return [privilege.check(), check_machines(), checks.cgroup(), *own_ids, *tools, libvirt(), tun()]

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """What runs the vCPUs, libvirt's look at QEMU, the network. Of the disk nothing is made."""
        self.settle(knobs)
        self.disk.require_unchanged()
        _ = self.site.accelerator, self.site.hypervisor, self.site.network

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        """The disk's own."""
        return list(self.disk.paths)

    def launch(self, request: LaunchRequest) -> DiskInstance:
        from lab.hypervisor.parts import vcpus

        timeline = Timeline(request.listener)
        timeline.mark(Phase.REQUESTED)
        levels = self.settle(request.knobs)
        resources = InstanceResources(self.site, request)
        try:
            self.check_limits(request.limits, request.knobs)
            machine = self._start(request, levels, resources, timeline, vcpus(request.limits))
        except BaseException as error:
            resources.release()
            raise_as_launch_error(error)
            raise
        return DiskInstance(self.name, request, machine, resources)

    def _start(
        self,
        request: LaunchRequest,
        levels: Mapping[str, str],
        resources: InstanceResources,
        timeline: Timeline,
        vcpus: int,
    ) -> DiskMachine:
        from lab.hypervisor.disks.machine import DiskMachine, DiskRequest
        from lab.hypervisor.domains.domain import Interface
        from lab.runtime.plan import Before

        with timeline.step("lab", Before.NETWORK):
            tap = resources.make_tap()
            resources.lease(tap, lambda at: timeline.mark(Phase.ADDRESSED, at))
        # The guest is as large as the limits say; QEMU's own needs come on top and are measured.
        with timeline.step("lab", Before.CGROUP):
            group = resources.make_control_group(Limits())
        directory = self.site.scratch / request.name
        if len(os.fsencode(directory)) > LONGEST_DIRECTORY_BYTES:
            raise LaunchError(
                f"{directory} is too long a path for QEMU's sockets", hint="set LAB_HOME to a shorter one"
            )
        wanted = DiskRequest(
            name=f"lab-{self.site.session.id}-{next(self._numbers)}d{self.order - self.first_order}",
            disk=self.disk,
            accelerator=self.site.accelerator,
            memory_bytes=request.limits.memory_bytes or DEFAULT_MEMORY_BYTES,
            vcpus=vcpus,
            uefi=levels["firmware"] == Firmware.OVMF,
            devices=Devices(levels["devices"]),
            directory=directory,
            log_directory=request.log_directory,
            cgroup=group,
            interface=Interface(tap=tap.tap, mac=tap.mac),
            network_namespace=self.site.network.namespace.descriptor,
            console=request.stdout,
        )
        return DiskMachine.start(self.site.hypervisor, wanted, timeline)


def identify(kind: type[DiskBackend]) -> None:
    """Read the whole disk, so that a run can tell which one it was."""
    kind.own_image = placeholder(kind.disk, kind.disk.digest())


def placeholder(disk: OwnDisk, digest: str = "") -> Image:
    """What stands where another backend's image does: an image without layers that is called like the disk."""
    return Image(
        name=disk.name, digest=digest, config=ImageConfig(), layers=(), origin=Origin.DISK,
        created=datetime.fromtimestamp(min(max(0, disk.stamps[0][3] / 1e9), LAST_SECOND), UTC),
        file_bytes=disk.file_bytes,
    )  # fmt: skip


NO_PROCESS = Process(argv=())
"""What is executed there, its disk knows."""


def _setting(word: str, rest: str) -> tuple[str, str]:
    name, equals, level = word.partition("=")
    if not (name and equals and level):
        raise UsageError(f"{DiskBackend.prefix}{rest}: {word!r} is not NAME=LEVEL", hint=EXAMPLE)
    return name, level


def _first(level: str | None, levels: Sequence[str]) -> tuple[str, ...]:
    return tuple(levels) if level is None else (level, *(each for each in levels if each != level))
