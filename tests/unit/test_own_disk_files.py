"""A disk of the user's: what it consists of is named, never guessed; what contradicts its name is refused."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as Xml
from dataclasses import replace
from pathlib import Path

import pytest
from bootable import DISK_BYTES, qcow2_header

from lab.backends import registry
from lab.backends.owndisk import placeholder
from lab.backends.support.brought import name_of
from lab.cli.instances.request import parse_waited
from lab.commands.options.brought import Brought
from lab.errors import LabError, UsageError
from lab.experiment.scenarios.scenario import load
from lab.host.cgroup.control import ControlGroup
from lab.hypervisor.disks.machine import DiskRequest, specification
from lab.hypervisor.disks.own import DiskFile, OwnDisk, examine, is_disk, require_used
from lab.hypervisor.domains.domain import CONSOLE, DiskFormat, Interface, domain_xml
from lab.hypervisor.jail.orders import orders
from lab.hypervisor.kinds import Devices
from lab.model import Accelerator, LogReadiness, TcpReadiness
from lab.studies.compare.measure.disks import require_from_outside


@pytest.fixture(autouse=True)
def none_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_admitted", {})


GOLDEN = Path(__file__).parent.parent / "golden"
BOOT_SECTOR = b"\xfa\x31\xc0".ljust(510, b"\0") + b"\x55\xaa"


def disk(path: Path, head: bytes = BOOT_SECTOR) -> Path:
    path.write_bytes(head.ljust(DISK_BYTES, b"\0"))
    return path


def test_the_suffix_or_the_user_names_the_format(tmp_path: Path) -> None:
    assert examine(disk(tmp_path / "a.raw")).files[0].format is DiskFormat.RAW
    assert examine(disk(tmp_path / "a.img")).files[0].format is DiskFormat.RAW
    assert examine(disk(tmp_path / "a.iso"), form="raw").files[0].format is DiskFormat.RAW
    found = examine(disk(tmp_path / "a.qcow2", qcow2_header(size_bytes=1 << 30)))
    assert (found.files[0].format, found.size_bytes) == (DiskFormat.QCOW2, 1 << 30)
    with pytest.raises(UsageError, match="--disk-format"):
        examine(disk(tmp_path / "a.iso"))
    with pytest.raises(UsageError, match="--disk-format"):
        examine(tmp_path / "a.raw", form="vmdk")


@pytest.mark.parametrize(
    ("name", "form", "head"),
    [
        ("a.raw", "", qcow2_header()),
        ("a.qcow2", "raw", qcow2_header()),
        ("a.qcow2", "", BOOT_SECTOR),
        ("a.raw", "qcow2", BOOT_SECTOR),
        ("a.qcow2", "", b"QFI\xfb\0\0\0\3"),
        ("a.qcow2", "", b"QFI\xfb\0\0\0\7" + qcow2_header()[8:]),
        ("a.img", "", b"KDMV"),
        ("a.img", "", b"vhdxfile"),
        ("a.img", "", b"\xfd7zXZ\0"),
        ("a.img", "", b"\0" * 64 + b"\x7f\x10\xda\xbe"),
        ("a.qcow2", "", qcow2_header(encrypted=2)),
    ],
)
def test_what_contradicts_the_name_is_refused_in_a_line(tmp_path: Path, name: str, form: str, head: bytes) -> None:
    with pytest.raises(LabError) as refused:
        examine(disk(tmp_path / name, head), form=form)
    assert name in refused.value.message
    assert refused.value.hint
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("name", ["a\nb.raw", "a\x1b[2J.raw", "a\udcff.raw"])
def test_a_name_that_can_not_be_printed_is_refused(tmp_path: Path, name: str) -> None:
    """No XML holds it, nor a report."""
    disk(tmp_path / name)
    with pytest.raises(UsageError, match="can't be printed"):
        examine(tmp_path / name)
    (tmp_path / "link.raw").symlink_to(tmp_path / name)
    with pytest.raises(UsageError, match="can't be printed"):
        examine(tmp_path / "link.raw")


def test_a_disk_of_any_time_is_taken(tmp_path: Path) -> None:
    found = examine(disk(tmp_path / "a.raw"))
    for seconds, year in ((10**13, 9999), (-(10**12), 1970), (10**9, 2001)):
        stamp = (*found.stamps[0][:3], seconds * 10**9)
        assert placeholder(replace(found, stamps=(stamp,))).created.year == year


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        examine(tmp_path / "a.raw")
    for special in (tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError, match="no regular file"):
            examine(special, form="raw")
    (tmp_path / "empty.raw").touch()
    with pytest.raises(LabError, match="empty"):
        examine(tmp_path / "empty.raw")


def test_a_backing_file_belongs_to_it_only_if_it_was_named(tmp_path: Path) -> None:
    base = disk(tmp_path / "base.raw")
    top = disk(tmp_path / "top.qcow2", qcow2_header(backing="base.raw", backing_format="raw"))
    with pytest.raises(UsageError, match=r"base\.raw") as refused:
        examine(top)
    assert str(base) in refused.value.hint
    found = examine(top, backing=[base])
    assert found.paths == (top, base)
    assert [file.format for file in found.files] == [DiskFormat.QCOW2, DiskFormat.RAW]
    (tmp_path / "link.raw").symlink_to(base)
    assert examine(top, backing=[tmp_path / "link.raw"]).paths == (top, base), "the file is meant, not its name"
    with pytest.raises(UsageError, match="does not refer"):
        require_used([base], [examine(base)])
    require_used([base], [found])


def test_every_file_of_a_chain_has_to_be_named(tmp_path: Path) -> None:
    base = disk(tmp_path / "base.img")
    middle = disk(tmp_path / "middle.qcow2", qcow2_header(backing=str(base)))
    top = disk(tmp_path / "top.qcow2", qcow2_header(backing="middle.qcow2", backing_format="qcow2"))
    with pytest.raises(UsageError, match=r"base\.img"):
        examine(top, backing=[middle])
    assert examine(top, backing=[middle, base]).paths == (top, middle, base)


def test_a_chain_s_formats_are_checked_as_the_disk_s_own_is(tmp_path: Path) -> None:
    """A raw file below that begins like a qcow2 one could name any file of the host."""
    base = disk(tmp_path / "base.raw", qcow2_header(backing="/etc/shadow"))
    top = disk(tmp_path / "top.qcow2", qcow2_header(backing="base.raw", backing_format="raw"))
    with pytest.raises(LabError, match="begins as a qcow2"):
        examine(top, backing=[base])
    unnamed = disk(tmp_path / "unnamed.qcow2", qcow2_header(backing="base"))
    with pytest.raises(UsageError, match="does not say which format"):
        examine(unnamed, backing=[disk(tmp_path / "base")])


def test_a_chain_that_comes_back_to_itself_ends(tmp_path: Path) -> None:
    top = disk(tmp_path / "top.qcow2", qcow2_header(backing="top.qcow2", backing_format="qcow2"))
    with pytest.raises(LabError, match="without an end"):
        examine(top, backing=[top])


@pytest.mark.parametrize("name", ["nbd://host/disk", "json:{}", "fat:/etc", "ssh://me@host/x", "fd:3"])
def test_a_backing_file_that_is_no_plain_file_is_refused_whatever_was_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no plain file"):
        examine(disk(tmp_path / "top.qcow2", qcow2_header(backing=name)), backing=[disk(tmp_path / "base.raw")])


def test_a_file_with_its_data_is_treated_like_a_backing_file(tmp_path: Path) -> None:
    data = disk(tmp_path / "data.raw")
    top = disk(tmp_path / "top.qcow2", qcow2_header(data_file="data.raw"))
    with pytest.raises(UsageError, match=r"data\.raw"):
        examine(top)
    assert examine(top, backing=[data]).paths == (top, data)


def test_a_line_to_type_is_one_for_the_shell(tmp_path: Path) -> None:
    """The name is the header's, whose author may not be a friend."""
    name = "$(touch gone);.raw"
    disk(tmp_path / name)
    top = disk(tmp_path / "top.qcow2", qcow2_header(backing=name, backing_format="raw"))
    with pytest.raises(UsageError) as refused:
        examine(top)
    assert refused.value.hint.startswith(f"--backing '{tmp_path / name}'")


def test_a_change_is_noticed(tmp_path: Path) -> None:
    found = examine(disk(tmp_path / "a.raw"))
    found.require_unchanged()
    os.utime(tmp_path / "a.raw", ns=(0, found.stamps[0][3] + 1))
    with pytest.raises(LabError, match="changed"):
        found.require_unchanged()


def test_which_words_mean_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("web.raw", "web", "web.iso"):
        disk(tmp_path / name)
    assert is_disk("web.raw")
    assert not is_disk("long" * 100)
    assert is_disk("./web")
    assert is_disk("web.iso", "raw")
    assert not is_disk("web"), "an image's name"
    assert not is_disk("none.raw")
    (tmp_path / "folder.raw").mkdir()
    assert not is_disk("folder.raw")


def test_a_backend_s_name_is_short_and_its_own() -> None:
    assert name_of("vm:", "debian12") == "vm:debian12"
    assert name_of("vm:", "debian12", ["vm:debian12"]) == "vm:debian12-2"
    assert name_of("vm:", "debian12", ["vm:debian12", "vm:debian12-2"]) == "vm:debian12-3"
    odd = name_of("oci:", "a name, with [odd] letters and much more of it")
    assert odd.startswith("oci:a-name-with-odd")
    assert len(odd) <= 24
    assert name_of("oci:", "runc-1.4") == "oci:runc-1.4"
    assert name_of("vm:", ".,:") == "vm:own"


@pytest.mark.parametrize(
    ("on", "told"),
    [
        ("vm:", "without a disk"),
        ("vm:{}:uefi", "NAME=LEVEL"),
        ("vm:{}:firmware=direct", "level direct"),
        ("vm:{}:nothing=1", "no knob nothing"),
        ("vm:{}:format=vdi", "format vdi"),
        ("vm:/nonexistent/disk.raw", "no file"),
    ],
)
def test_what_is_wrong_with_an_arm_is_said(tmp_path: Path, on: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Brought.admitted(on.format(disk(tmp_path / "a.raw")), "", [])


def test_disks_are_found_among_the_backends_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here.raw", "there"):
        disk(tmp_path / name)
    found = Brought.admitted("container, vm:./here.raw,vm:there:format=raw:devices=plain", "", [])
    assert found.on == "container,vm:here,vm:there"
    assert not found.alone
    assert [kind.settle()["devices"] for kind in found.kinds] == ["virtio", "plain"]
    assert [kind.disk.name for kind in found.kinds] == ["here.raw", "there"]
    monkeypatch.chdir("/")
    monkeypatch.setattr(registry, "_admitted", {})
    again = Brought.again(json.loads(json.dumps(found.recorded)))
    assert again.on == found.on
    assert [kind.disk for kind in again.kinds] == [kind.disk for kind in found.kinds]
    assert Brought.again({}).on == ""


def test_disks_alone_are_an_application_of_their_own(tmp_path: Path) -> None:
    found = Brought.admitted(f"vm:{disk(tmp_path / 'one.raw')},vm:{disk(tmp_path / 'two.raw')}", "", [])
    assert found.alone
    assert found.application().name == "one-two"
    assert not Brought.admitted("container", "", []).alone
    with pytest.raises(UsageError, match="--ready"):
        require_from_outside(found.application(), found.kinds)
    with pytest.raises(UsageError, match="--port"):
        require_from_outside(replace(found.application(), readiness=TcpReadiness()), found.kinds)
    require_from_outside(replace(found.application(), readiness=TcpReadiness(), port=22), found.kinds)
    require_from_outside(replace(found.application(), readiness=LogReadiness(pattern="x")), found.kinds)


def test_what_has_to_be_asked_inside_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    (kind,) = Brought.admitted(f"container,vm:{disk(tmp_path / 'one.raw')}", "", []).kinds
    require_from_outside(load("web-app"), [kind], settled=False)
    require_from_outside(load("batch-python"), [], settled=False)
    for name in ("batch-python", "idle"):
        with pytest.raises(UsageError, match="--ready"):
            require_from_outside(load(name), [kind], settled=False)
    inside = replace(load("disk-io"), readiness=TcpReadiness(), port=1)
    with pytest.raises(UsageError, match="does its work inside"):
        require_from_outside(inside, [kind], settled=False)


def test_one_disk_is_one_arm(tmp_path: Path) -> None:
    path = disk(tmp_path / "one.raw")
    with pytest.raises(UsageError, match="twice"):
        Brought.admitted(f"vm:{path},vm:{path}:firmware=seabios", "", [])
    for form, backing in (("raw", []), ("", [path])):
        with pytest.raises(UsageError, match="about disks"):
            Brought.admitted("container", form, backing)


def test_what_to_wait_for_is_complete() -> None:
    assert parse_waited("", None) is None
    assert parse_waited("log:ready", None)
    assert parse_waited("tcp", 22)
    for ready, port in (("tcp", None), ("http:/", None), ("log:x", 1), ("started", None), ("done", None), ("", 5)):
        with pytest.raises(UsageError):
            parse_waited(ready, port)


# What QEMU is told


def request(*, devices: Devices = Devices.VIRTIO, uefi: bool = False, monkeypatch: pytest.MonkeyPatch) -> DiskRequest:
    monkeypatch.setattr(ControlGroup, "directories", (Path("/sys/fs/cgroup/memory/lab/s/m"),))
    files = (
        DiskFile(path=Path("/disks/top.qcow2"), format=DiskFormat.QCOW2),
        DiskFile(path=Path("/disks/base.raw"), format=DiskFormat.RAW),
    )
    return DiskRequest(
        name="lab-s-1d0",
        disk=OwnDisk(name="top.qcow2", files=files, size_bytes=1 << 30, stamps=((8, 12, 0, 0), (8, 13, 0, 0))),
        accelerator=Accelerator.TCG,
        memory_bytes=1 << 30,
        vcpus=1,
        uefi=uefi,
        devices=devices,
        directory=Path("/run/lab/s/m"),
        log_directory=Path("/logs"),
        cgroup=ControlGroup.open("lab/s/m"),
        interface=Interface(tap="tap0", mac="02:4c:c6:12:00:02"),
        network_namespace=-1,
    )


@pytest.mark.parametrize("firmware", ["seabios", "ovmf"])
@pytest.mark.parametrize("devices", Devices)
def test_xml_is_the_golden_file(devices: Devices, firmware: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = request(devices=devices, uefi=firmware == "ovmf", monkeypatch=monkeypatch)
    xml = domain_xml(specification(wanted, Path("/home/libexec/qemu-system-x86_64")))
    golden = GOLDEN / f"domain-disk-{devices}-{firmware}.xml"
    if os.environ.get("LAB_UPDATE_GOLDEN"):
        golden.write_text(xml)
    assert xml == golden.read_text(), "LAB_UPDATE_GOLDEN=1 pytest … rewrites it; then read the difference"


def test_the_chain_is_told_in_full_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it did not end, libvirt would read the disk's header to find out how it goes on."""
    wanted = specification(request(monkeypatch=monkeypatch), Path("/qemu"))
    element = Xml.fromstring(domain_xml(wanted)).find("devices/disk")
    seen = []
    while element is not None:
        source = element.find("source")
        form = element.find("driver") if element.tag == "disk" else element.find("format")
        seen.append((None if source is None else source.get("file"), None if form is None else form.get("type")))
        element = element.find("backingStore")
    assert seen == [
        ("/run/lab/s/m/overlay.qcow2", "qcow2"),
        ("/disks/top.qcow2", "qcow2"),
        ("/disks/base.raw", "raw"),
        (None, None),
    ]


def test_the_jail_holds_the_disk_to_read_and_the_overlay_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = specification(request(monkeypatch=monkeypatch), Path("/qemu"))
    overlay = tmp_path / "overlay.qcow2"
    overlay.write_bytes(qcow2_header())
    wanted = replace(wanted, sockets=tmp_path, disks=(replace(wanted.disks[0], path=overlay),))
    lines = orders(wanted, Path("/usr/bin/qemu-system-x86_64"), tmp_path).splitlines()
    assert {"same 8 12 /disks/top.qcow2", "same 8 13 /disks/base.raw", f"write {overlay}"} <= set(lines)
    assert [line for line in lines if line.startswith("write ")] == [f"write {overlay}"]
    assert [line for line in lines if line.startswith("socket ")] == [f"socket {tmp_path / CONSOLE}"]
