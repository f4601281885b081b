"""What is in the jail of a QEMU: the orders for one machine, made of files that are there."""

from __future__ import annotations

import resource
import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.host.identity import ownspace
from lab.hypervisor.domains.domain import DirectBoot, Disk, MachineSpec, MappedMemory
from lab.hypervisor.emulator import MEMORY
from lab.hypervisor.jail import orders as module
from lab.hypervisor.jail.orders import orders, write_orders
from lab.hypervisor.kinds import MachineType
from lab.model import Accelerator

QEMU = Path("/usr/bin/qemu-system-x86_64")
DRIVER = Path("/run/lab/0/libvirt")
DISK_BYTES = 5 << 40


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    sockets, home = tmp_path / "machine", tmp_path / "home"
    sockets.mkdir()
    home.mkdir()
    for name in ("vmlinuz", "initramfs", "base", "image"):
        (home / name).touch()
    layer = sockets / "layer.qcow2"
    layer.write_bytes(b"QFI\xfb" + bytes(20) + struct.pack(">Q", DISK_BYTES))
    return MachineSpec(
        name="lab-0-1m",
        machine=MachineType.MICROVM,
        accelerator=Accelerator.TCG,
        memory_bytes=256 << 20,
        vcpus=1,
        emulator=Path("/home/libexec/qemu-system-x86_64"),
        direct=DirectBoot(kernel=home / "vmlinuz", initramfs=home / "initramfs", command_line=""),
        disks=(
            Disk(serial="layer", path=layer, backing=home / "base"),
            Disk(serial="image", path=home / "image"),
        ),
        sockets=sockets,
        cgroups=(Path("/sys/fs/cgroup/lab/s/m"),),
    )


def about(spec: MachineSpec, word: str) -> list[str]:
    """What the orders that begin with ``word`` are about."""
    lines = [line.partition(" ") for line in orders(spec, QEMU, DRIVER).splitlines()]
    return [what for first, _, what in lines if first == word]


def test_it_joins_its_group_before_anything_else(spec: MachineSpec) -> None:
    """What comes before would be charged to somebody else."""
    assert orders(spec, QEMU, DRIVER).startswith("join /sys/fs/cgroup/lab/s/m/cgroup.procs\n")


def test_only_layers_can_be_written_to(spec: MachineSpec) -> None:
    home = spec.disks[1].path.parent
    assert about(spec, "write") == [str(spec.disks[0].path)]
    files = {str(home / name) for name in ("vmlinuz", "initramfs", "base", "image")}
    assert files <= set(about(spec, "read"))
    assert not {"/", "/etc", "/home", "/usr", "/var", str(home)} & {*about(spec, "read"), *about(spec, "program")}


def test_mapped_memory_is_opened_by_its_path_once_there_is_a_root(spec: MachineSpec) -> None:
    mapped = replace(spec, memory=MappedMemory(path="/proc/1/fd/9", private=True))
    assert about(mapped, "memory") == [f"{MEMORY} /proc/1/fd/9"]
    lines = orders(mapped, QEMU, DRIVER).splitlines()
    assert [line.split()[0] for line in lines].index("root") < lines.index(f"memory {MEMORY} /proc/1/fd/9")
    assert about(spec, "memory") == []


def test_a_restored_machine_reads_what_was_saved_and_writes_to_its_own(spec: MachineSpec) -> None:
    home = spec.disks[1].path.parent
    (home / "saved").touch()
    layer = replace(spec.disks[0], between=home / "saved")
    restored = replace(spec, disks=(layer, spec.disks[1]), incoming=home / "state")
    assert about(restored, "stdin") == [str(home / "state")]
    assert about(restored, "write") == [str(layer.path)]
    assert str(home / "saved") in about(restored, "read")


def test_an_ordinary_user_s_has_a_user_of_the_namespace_and_the_host_s_nodes(
    spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its groups are left, but for KVM: one of them may be why that can be opened."""
    assert about(spec, "users") == []
    monkeypatch.setattr(ownspace, "here", lambda: True)
    monkeypatch.setattr(ownspace, "_table", [(0, 1000, 1), (1, 100_000, 999)])
    assert about(spec, "users") == ["500 500"]
    assert about(spec, "groups") == []
    assert (about(spec, "device"), about(spec, "node")) == ([], ["/dev/null", "/dev/urandom"])
    lines = orders(spec, QEMU, DRIVER).splitlines()
    assert lines.index("users 500 500") < next(at for at, line in enumerate(lines) if line.startswith("root "))
    monkeypatch.setattr(module, "KVM", Path("/dev/zero"))
    assert about(replace(spec, accelerator=Accelerator.KVM), "groups") == ["kept"]
    monkeypatch.setattr(ownspace, "_table", [(0, 1000, 1)])
    with pytest.raises(LabError, match="subordinate ids"):
        orders(spec, QEMU, DRIVER)


def test_the_device_of_kvm_is_there_with_kvm_alone(spec: MachineSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KVM", Path("/dev/full"))
    assert {line.split()[-1] for line in about(spec, "device")} == {"/dev/null", "/dev/urandom"}
    under_kvm = replace(spec, accelerator=Accelerator.KVM)
    assert "1 7 /dev/full" in about(under_kvm, "device"), "its numbers are those of the host's"


def test_no_file_can_grow_beyond_the_largest_disk(spec: MachineSpec) -> None:
    limits = dict(line.split() for line in about(spec, "limit"))
    assert DISK_BYTES < int(limits[str(resource.RLIMIT_FSIZE)]) < 1.1 * DISK_BYTES
    diskless = replace(spec, disks=(), memory_bytes=1 << 40)
    limits = dict(line.split() for line in about(diskless, "limit"))
    assert int(limits[str(resource.RLIMIT_FSIZE)]) > 1 << 40, "a saved machine's RAM is one file"


def test_a_path_that_would_be_two_orders_is_refused(spec: MachineSpec) -> None:
    with pytest.raises(LabError, match="line break"):
        orders(replace(spec, incoming=Path("/a\nread /etc/shadow")), QEMU, DRIVER)


def test_names_of_libvirts_files_are_no_patterns(spec: MachineSpec) -> None:
    assert about(replace(spec, name="a*"), "secret") == [f"{DRIVER}/lib/qemu/domain-*-a[*]/master-key.aes"]


def test_files_of_labs_can_be_read_whatever_the_umask_was(spec: MachineSpec, tmp_path: Path) -> None:
    """pytest's folders are closed to others, so that opening a file lets nobody else in."""
    image = spec.disks[1].path
    image.chmod(0o600)
    write_orders(spec, QEMU, DRIVER, b"12345678")
    assert image.stat().st_mode & 0o777 == 0o604
    jail = spec.sockets / "jail"
    assert jail.stat().st_mode & 0o077 == 0
    assert (jail / "orders").read_text() == orders(spec, QEMU, DRIVER)


def test_a_file_that_would_be_opened_to_everybody_is_not(spec: MachineSpec) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as open_to_all:
        Path(open_to_all).chmod(0o755)
        image = Path(open_to_all) / "image"
        image.touch(mode=0o600)
        given = replace(spec, disks=(spec.disks[0], replace(spec.disks[1], path=image)))
        with pytest.raises(LabError, match="can't be read by QEMU") as caught:
            write_orders(given, QEMU, DRIVER, b"12345678")
        assert caught.value.hint == f"chmod o+r {image}"
        assert image.stat().st_mode & 0o777 == 0o600
