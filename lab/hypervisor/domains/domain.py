"""A machine's specification → libvirt's domain XML. Pure; golden files in the tests show what comes out.

Source: https://libvirt.org/formatdomain.html. Out of scope: making any of the files named here.
"""

from __future__ import annotations

import xml.etree.ElementTree as Xml
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path

from lab.hypervisor.emulator import DEFERRED, INCOMING, JAIL_VARIABLE, MEMORY
from lab.hypervisor.kinds import Devices, MachineType
from lab.model import Accelerator

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

# Where QEMU keeps the code that it has translated for an emulated CPU. Its own bound is 1 GiB, of which a booting
# Debian takes 200 MB for code that hardly ever runs again; within this one it boots as quickly.
RECONNECT_SECONDS = 1  # the least there is
TRANSLATED_CODE_MIB = 64

CONSOLE = "console"  # the socket of the serial port
ORDERS = Path("jail/orders")  # beside it, what QEMU may see: see jail/orders.py

DOMAIN_TYPES = {Accelerator.KVM: "kvm", Accelerator.TCG: "qemu"}


class Port(IntEnum):
    """The virtio-serial ports; guest/lab.sh knows the numbers as /dev/vport0pN."""

    MARKS = 1
    ORDERS = 2
    OUTPUT = 3
    ERRORS = 4
    SESSIONS = 5
    INPUT = 6  # only for an application that is typed to


def ports(*, interactive: bool) -> tuple[Port, ...]:
    """Those that a machine has; their numbers follow one another."""
    return tuple(port for port in Port if interactive or port is not Port.INPUT)


class DiskFormat(StrEnum):
    """How a disk's bytes are laid out in its file."""

    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of the machine; the guest finds it by ``serial``. Writable only with a file below."""

    serial: str
    path: Path
    backing: Path | None = None  # a raw file; the disk itself is then a qcow2 layer over it
    boot_order: int | None = None  # 1 for what the firmware boots from, then what its boot loader reads as well
    between: Path | None = None  # a layer between the two, of a machine that was saved
    chain: tuple[tuple[Path, DiskFormat], ...] = ()  # instead of both: what is below, each above the next
    data: tuple[Path, ...] = ()  # files in which some of the chain keep their data
    known: tuple[tuple[Path, int, int], ...] = ()  # device and inode of each that somebody else could exchange

    @property
    def format(self) -> DiskFormat:
        return DiskFormat.QCOW2 if self.below else DiskFormat.RAW

    @property
    def below(self) -> tuple[tuple[Path, DiskFormat], ...]:
        """The files below the disk itself, which is then a layer over the first of them."""
        if self.backing is None:
            return self.chain
        between = ((self.between, DiskFormat.QCOW2),) if self.between else ()
        return (*between, (self.backing, DiskFormat.RAW))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network card behind a tap that exists already, in the network namespace that QEMU is started in."""

    tap: str
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectBoot:
    """What QEMU puts into the guest's memory by itself."""

    kernel: Path
    initramfs: Path
    command_line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedMemory:
    """RAM that is a file, which the jail opens by that ``path``: shared with it, or ``private``, so that a page is
    copied when the guest writes to it.
    """

    path: str
    private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """Everything QEMU is told.

    Without ``direct`` the machine's firmware boots from the disks that have a boot order, and is told nothing else.
    """

    name: str
    machine: MachineType
    accelerator: Accelerator
    memory_bytes: int
    vcpus: int
    emulator: Path
    direct: DirectBoot | None
    disks: tuple[Disk, ...]
    sockets: Path  # directory with a listening socket `console` and one per Port, named in lower case
    cgroups: tuple[Path, ...] = ()  # directories of the control group QEMU enters before it is QEMU
    interface: Interface | None = None
    uefi: Path | None = None  # this firmware's code instead of the machine's own
    interactive: bool = False
    incoming: Path | None = None  # a saved machine's state: it goes on instead of booting
    memory: MappedMemory | None = None  # instead of RAM that is QEMU's alone
    reconnect: bool = False  # QEMU connects again when who listened at its sockets has died and another listens
    foreign: Devices | None = None  # of a system that is not lab's: it has no ports, and may restart by itself

    @property
    def ports(self) -> tuple[Port, ...]:
        """Those over which the guest talks to lab."""
        return () if self.foreign else ports(interactive=self.interactive)


def domain_xml(spec: MachineSpec) -> str:
    """The domain as libvirt's createXML takes it."""
    Xml.register_namespace("qemu", QEMU_NAMESPACE)
    domain = Xml.Element("domain", type=DOMAIN_TYPES[spec.accelerator])
    _add(domain, "name", spec.name)
    _add(domain, "memory", str(spec.memory_bytes // 1024), unit="KiB")
    _add(domain, "vcpu", str(spec.vcpus))
    _add_boot(domain, spec)
    _add_features(domain, spec)
    # Under TCG "max" is all that QEMU can emulate, the nearest thing to the host's CPU there is.
    _add(domain, "cpu", mode="host-passthrough" if spec.accelerator is Accelerator.KVM else "maximum")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _add(domain, event, "restart" if spec.foreign and event == "on_reboot" else "destroy")
    _add_devices(_add(domain, "devices"), spec)
    _add_command_line(domain, spec)
    # Otherwise libvirt asks QEMU for each of some 400 CPU properties, one by one, before the vCPUs run: it would
    # double the time from the request to the kernel's first sign of life.
    capabilities = _add(domain, f"{{{QEMU_NAMESPACE}}}capabilities")
    _add(capabilities, f"{{{QEMU_NAMESPACE}}}del", capability="cpu-unavailable-features")
    Xml.indent(domain)
    return Xml.tostring(domain, encoding="unicode") + "\n"


def _add_command_line(domain: Xml.Element, spec: MachineSpec) -> None:
    """What libvirt's own words don't reach: see emulator.py."""
    command_line = _add(domain, f"{{{QEMU_NAMESPACE}}}commandline")
    incoming = DEFERRED if spec.memory else INCOMING
    for word in (*(incoming if spec.incoming else ()), *_memory_words(spec)):
        _add(command_line, f"{{{QEMU_NAMESPACE}}}arg", value=word)
    _add(command_line, f"{{{QEMU_NAMESPACE}}}env", name=JAIL_VARIABLE, value=str(spec.sockets / ORDERS))


def _memory_words(spec: MachineSpec) -> tuple[str, ...]:
    """libvirt has such memory in files of its own making alone. Its own object stays, and nothing of it is touched:
    of two `-machine` QEMU takes what the later one says.
    """
    if spec.memory is None:
        return ()
    size = -(-spec.memory_bytes >> 20)  # MiB, which libvirt rounds up to
    file = f"memory-backend-file,id=lab.ram,size={size}M,mem-path=/dev/fd/{MEMORY}"
    return (
        "-object", f"{file},share={'off' if spec.memory.private else 'on'}",
        "-machine", "memory-backend=lab.ram",
    )  # fmt: skip


def _add_boot(domain: Xml.Element, spec: MachineSpec) -> None:
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch="x86_64", machine=spec.machine)
    if spec.uefi:
        # Its settings last as long as the machine: no file is needed for them. (libvirt before 8.6 makes one.)
        _add(system, "loader", str(spec.uefi), readonly="yes", type="pflash", stateless="yes")
    elif spec.foreign:
        _add(system, "bios", useserial="yes")  # what it and a boot loader say through it is on the console, too
    if spec.direct:
        _add(system, "kernel", str(spec.direct.kernel))
        _add(system, "initrd", str(spec.direct.initramfs))
        _add(system, "cmdline", spec.direct.command_line)


def _add_features(domain: Xml.Element, spec: MachineSpec) -> None:
    features = _add(domain, "features")
    _add(features, "acpi")
    if spec.accelerator is Accelerator.TCG:
        _add(_add(features, "tcg"), "tb-cache", str(TRANSLATED_CODE_MIB), unit="MiB")


def _add_devices(devices: Xml.Element, spec: MachineSpec) -> None:
    _add(devices, "emulator", str(spec.emulator))
    _add(devices, "controller", type="usb", model="none")
    if spec.ports:
        _on_bus(_add(devices, "controller", type="virtio-serial", index="0"), spec)
    for index, disk in enumerate(spec.disks):
        _add_disk(devices, disk, f"{'sd' if spec.foreign is Devices.PLAIN else 'vd'}{chr(ord('a') + index)}", spec)
    if spec.interface:
        _add_interface(devices, spec.interface, spec)
    console = _add(devices, "serial", type="unix")
    _add_socket(console, CONSOLE, spec)
    _add(console, "target", type="isa-serial", port="0")
    for port in spec.ports:
        name = port.name.lower()
        channel = _add(devices, "channel", type="unix")
        _add_socket(channel, name, spec)
        _add(channel, "target", type="virtio", name=f"lab.{name}")
        _add(channel, "address", type="virtio-serial", controller="0", bus="0", port=str(port.value))
    if spec.foreign is Devices.PLAIN:
        _add(_add(devices, "video"), "model", type="vga")
    _add(devices, "memballoon", model="none")


def _add_socket(device: Xml.Element, name: str, spec: MachineSpec) -> None:
    source = _add(device, "source", mode="connect", path=str(spec.sockets / name))
    if spec.reconnect:
        _add(source, "reconnect", enabled="yes", timeout=str(RECONNECT_SECONDS))


def _add_disk(devices: Xml.Element, disk: Disk, target: str, spec: MachineSpec) -> None:
    element = _add(devices, "disk", type="file", device="disk")
    _add(element, "driver", name="qemu", type=disk.format)
    _add(element, "source", file=str(disk.path))
    if disk.below:
        # Named here, not read from the layer's header: a layer is copied from a template.
        below = element
        for path, disk_format in disk.below:
            below = _add(below, "backingStore", type="file")
            _add(below, "format", type=disk_format)
            _add(below, "source", file=str(path))
        _add(below, "backingStore")
    else:
        _add(element, "readonly")
    _add(element, "target", dev=target, bus="sata" if spec.foreign is Devices.PLAIN else "virtio")
    _add(element, "serial", disk.serial)
    if disk.boot_order:
        _add(element, "boot", order=str(disk.boot_order))
    _on_bus(element, spec)


def _add_interface(devices: Xml.Element, interface: Interface, spec: MachineSpec) -> None:
    element = _add(devices, "interface", type="ethernet")
    _add(element, "mac", address=interface.mac)
    _add(element, "target", dev=interface.tap, managed="no")
    _add(element, "model", type="e1000e" if spec.foreign is Devices.PLAIN else "virtio")
    if spec.machine is MachineType.Q35:  # what PXE firmware would be read from; virtio-mmio has no such thing
        _add(element, "rom", enabled="no")
    _on_bus(element, spec)


def _on_bus(device: Xml.Element, spec: MachineSpec) -> None:
    """A q35's devices get PCI addresses from libvirt; a microvm has no PCI and libvirt must be told."""
    if spec.machine is MachineType.MICROVM:
        _add(device, "address", type="virtio-mmio")


def _add(parent: Xml.Element, tag: str, text: str | None = None, **attributes: str) -> Xml.Element:
    element = Xml.SubElement(parent, tag, attributes)
    element.text = text
    return element
