"""The XML of each kind of machine under each accelerator, and what a guest is handed."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as Xml
from dataclasses import replace
from pathlib import Path

import pytest

from lab.host.survey.checks import OVMF
from lab.hypervisor.commandline import command_line
from lab.hypervisor.domains.domain import (
    DirectBoot,
    Disk,
    Interface,
    MachineSpec,
    MappedMemory,
    Port,
    domain_xml,
    ports,
)
from lab.hypervisor.kinds import MICROVM, PC, Console, Design, Firmware, MachineType
from lab.model import Accelerator, DiskFileSystem

GOLDEN = Path(__file__).parent.parent / "golden"
DESIGNS = {
    "microvm": MICROVM,
    "microvm-on-q35": replace(MICROVM, machine=MachineType.Q35),
    "microvm-silent": replace(MICROVM, console=Console.OFF, disk=DiskFileSystem.EROFS),
    "pc": PC,
    "pc-on-microvm": replace(PC, machine=MachineType.MICROVM),
    "pc-verbose": replace(PC, console=Console.VERBOSE, tuned=False),
    "pc-seabios": replace(PC, firmware=Firmware.SEABIOS),
    "pc-ovmf": replace(PC, firmware=Firmware.OVMF),
}
DIRECT = [name for name, design in DESIGNS.items() if not design.boots_from_disk]
LAYER = Disk(serial="lab-os", path=Path("/run/lab/s/m/lab-os.qcow2"), backing=Path("/home/guest/system.ext4"))


def spec(design: Design, accelerator: Accelerator) -> MachineSpec:
    tsc_khz = 2_600_000 if accelerator is Accelerator.TCG else None
    direct = DirectBoot(
        kernel=Path("/home/guest/vmlinuz"),
        initramfs=Path("/run/lab/s/m/initramfs"),
        command_line=command_line(design, tsc_khz=tsc_khz),
    )
    loaders = (
        Disk(serial="lab-loader", path=Path("/home/guest/loader.raw"), boot_order=1),
        Disk(serial="lab-own", path=Path("/run/lab/s/m/own.raw"), boot_order=2),
    )
    image = Disk(serial="lab-image", path=Path(f"/home/images/image.{design.disk}"))
    return MachineSpec(
        name="web-1",
        machine=design.machine,
        accelerator=accelerator,
        memory_bytes=256 << 20,
        vcpus=2,
        emulator=Path("/home/libexec/qemu-system-x86_64"),
        direct=None if design.boots_from_disk else direct,
        disks=(LAYER, image, *(loaders if design.boots_from_disk else ())),
        sockets=Path("/run/lab/s/m"),
        cgroups=(Path("/sys/fs/cgroup/memory/lab/s/m"), Path("/sys/fs/cgroup/cpu/lab/s/m")),
        interface=Interface(tap="tap0", mac="02:00:c6:12:00:02"),
        uefi=OVMF if design.firmware is Firmware.OVMF else None,
    )


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("accelerator", [Accelerator.KVM, Accelerator.TCG])
def test_xml_is_the_golden_file(name: str, accelerator: Accelerator) -> None:
    xml = domain_xml(spec(DESIGNS[name], accelerator))
    golden = GOLDEN / f"domain-{name}-{accelerator}.xml"
    if os.environ.get("LAB_UPDATE_GOLDEN"):
        golden.write_text(xml)
    assert xml == golden.read_text(), "LAB_UPDATE_GOLDEN=1 pytest … rewrites it; then read the difference"


def test_a_restored_machine_is_the_same_with_other_files() -> None:
    """Devices that differed from the saved machine's would not take its state: between them only paths may differ."""
    booted = spec(MICROVM, Accelerator.KVM)
    layer = replace(LAYER, between=Path("/home/tmp/s/saved/lab-os.qcow2"))
    xml = domain_xml(
        replace(booted, disks=(layer, *booted.disks[1:]), incoming=Path("/home/tmp/s/saved/state"), cgroups=())
    )
    golden = GOLDEN / "domain-microvm-kvm-restored.xml"
    if os.environ.get("LAB_UPDATE_GOLDEN"):
        golden.write_text(xml)
    assert xml == golden.read_text(), "LAB_UPDATE_GOLDEN=1 pytest … rewrites it; then read the difference"


def test_memory_that_is_mapped_is_the_machines_ram_and_no_part_of_what_is_read() -> None:
    def words(machine: MachineSpec) -> list[str]:
        found = Xml.fromstring(domain_xml(machine)).iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")
        return [str(each.get("value")) for each in found]

    booted = replace(spec(MICROVM, Accelerator.KVM), memory_bytes=(256 << 20) + 1)
    template = words(replace(booted, memory=MappedMemory(path="/proc/1/fd/9", private=False)))
    copy = words(replace(booted, memory=MappedMemory(path="/proc/1/fd/9", private=True), incoming=Path("/state")))
    assert "share=on" in template[1]
    assert "size=257M" in template[1]
    assert copy[:2] == ["-incoming", "defer"]
    assert copy[3:] == [template[1].replace("share=on", "share=off"), *template[2:]]
    assert template[2:] == ["-machine", "memory-backend=lab.ram"]
    assert words(booted) == []


def test_only_layers_are_writable() -> None:
    disks = Xml.fromstring(domain_xml(spec(PC, Accelerator.TCG))).findall("devices/disk")
    writable = [disk.find("source").get("file") for disk in disks if disk.find("readonly") is None]  # type: ignore[union-attr]
    assert writable == [str(LAYER.path)]


def test_a_microvm_has_no_pci_device() -> None:
    devices = Xml.fromstring(domain_xml(spec(MICROVM, Accelerator.TCG))).find("devices")
    assert devices is not None
    buses = {address.get("type") for address in devices.findall("*/address")}
    assert buses == {"virtio-mmio", "virtio-serial"}


@pytest.mark.parametrize("machine", MachineType)
def test_what_the_machine_is_does_not_depend_on_what_runs_there(machine: MachineType) -> None:
    """Of the same parts, the two user spaces' machines differ in nothing but what their kernels are told."""
    of_image, of_debian = (spec(replace(design, machine=machine), Accelerator.TCG) for design in (MICROVM, PC))
    assert of_image.direct
    assert of_debian.direct
    told_alike = replace(of_image.direct, command_line=of_debian.direct.command_line)
    assert domain_xml(replace(of_image, direct=told_alike)) == domain_xml(of_debian)


def test_firmware_boots_from_its_own_two_disks_alone() -> None:
    for name in ("pc-seabios", "pc-ovmf"):
        domain = Xml.fromstring(domain_xml(spec(DESIGNS[name], Accelerator.TCG)))
        assert domain.find("os/kernel") is None
        order = {
            disk.findtext("serial"): boot.get("order")
            for disk in domain.iter("disk")
            if (boot := disk.find("boot")) is not None
        }
        assert order == {"lab-loader": "1", "lab-own": "2"}
    for name in DIRECT:
        domain = Xml.fromstring(domain_xml(spec(DESIGNS[name], Accelerator.TCG)))
        assert domain.find("os/kernel") is not None
        assert not list(domain.iter("boot"))


def test_a_console_that_is_off_leaves_the_kernel_nothing_to_say() -> None:
    words = {console: command_line(replace(MICROVM, console=console)).split() for console in Console}
    assert [console for console in Console if "earlyprintk=ttyS0" not in words[console]] == [Console.OFF]
    assert [next(word for word in words[console] if word.startswith("loglevel")) for console in Console] == [
        "loglevel=4", "loglevel=0", "loglevel=7",
    ]  # fmt: skip
    assert [console for console in Console if "quiet" in words[console]] == [Console.OFF]
    assert all("console=ttyS0" in each for each in words.values()), "init and a panic speak at every level"


def test_ports_have_the_numbers_that_the_guest_knows() -> None:
    script = (Path(__file__).parent.parent.parent / "lab/hypervisor/guest/lab.sh").read_text()
    for port in Port:
        assert re.search(rf"^{port.name}=/dev/vport0p{port.value}\b", script, re.MULTILINE)
    assert [port.value for port in ports(interactive=True)] == [1, 2, 3, 4, 5, 6], "await_ports counts them"
    assert len(ports(interactive=False)) == 5


def test_values_are_escaped() -> None:
    plain = spec(PC, Accelerator.TCG)
    assert plain.direct
    odd = replace(plain, direct=replace(plain.direct, kernel=Path("/home/a & <b>/vmlinuz")))
    kernel = Xml.fromstring(domain_xml(odd)).find("os/kernel")
    assert kernel is not None
    assert kernel.text == "/home/a & <b>/vmlinuz"


def test_a_detached_machine_connects_again() -> None:
    """To every socket, for whoever takes over from a lab that was killed; the others have no such timer."""
    kept = replace(spec(MICROVM, Accelerator.TCG), reconnect=True)
    sources = [
        source for source in Xml.fromstring(domain_xml(kept)).iter("source") if source.get("mode") == "connect"
    ]
    assert len(sources) == 1 + len(ports(interactive=False))
    for source in sources:
        again = source.find("reconnect")
        assert again is not None
        assert again.attrib == {"enabled": "yes", "timeout": "1"}
