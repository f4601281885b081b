"""What is inside a machine of libkrun's, without KVM: libkrunfw's kernel, lab's helper as first process, the ports.

QEMU stands in the monitor's place and emulates: it has virtio devices of the same kind, and takes the kernel as an
ELF file with a PVH note. What libkrun itself does, tests/machines asks under KVM.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from signal import SIGTERM

import pytest
from tiny import fill

from lab.backends.libkrun import origin, place
from lab.backends.libkrun.machine import Request
from lab.backends.usermode.handover import Handover
from lab.errors import LaunchError
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Timeline
from lab.hypervisor.channels.ports import Channels
from lab.hypervisor.domains.domain import CONSOLE, ports
from lab.hypervisor.running import RunningGuest
from lab.inside import build
from lab.model import Phase, Process, TerminalSize

pytestmark = pytest.mark.nightly

PVH_NOTE, HEADER_BYTES = 18, 0x1000
WORDS = (
    "reboot=t panic=-1 nomodule console=hvc0 root=/dev/vdb ro rootfstype=ext4 init=/init.krun quiet no_timer_check"
)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libkrunfw's, which is an image of memory with an entry, as a file that QEMU boots."""
    library = ctypes.CDLL(str(origin.fetch(lambda _: None).kernel.path))
    library.krunfw_get_kernel.restype = ctypes.c_void_p
    address, entry, size = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_size_t()
    found = library.krunfw_get_kernel(ctypes.byref(address), ctypes.byref(entry), ctypes.byref(size))
    memory = ctypes.string_at(found, size.value)
    note = memory.index(struct.pack("<III", 4, 8, PVH_NOTE) + b"Xen\0")
    start = HEADER_BYTES + note
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, entry.value, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    whole = struct.pack(
        "<IIQQQQQQ", 1, 7, HEADER_BYTES, address.value, address.value, len(memory), len(memory), HEADER_BYTES
    )
    noted = struct.pack("<IIQQQQQQ", 4, 4, start, 0, 0, 24, 24, 4)
    path = tmp_path_factory.mktemp("kernel") / "vmlinux"
    path.write_bytes((header + whole + noted).ljust(HEADER_BYTES, b"\0") + memory)
    return path


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lab-krun-") as found:  # a short path, for its sockets
        yield Path(found)


class Emulated(RunningGuest):
    """One whose monitor is QEMU."""

    def __init__(self, kernel: Path, request: Request) -> None:
        directory = request.directory
        directory.mkdir()
        parts = place.make_parts(directory, request.handover.files(), build.program(), os.getuid())
        disks = (request.image_disk, directory / "first.ext4")
        subprocess.run(["mke2fs", "-q", "-d", parts.first, disks[1], "20M"], check=True, capture_output=True)
        channels = Channels(directory, Timeline(), request.log_directory, kernel_sign=None)
        words = ["-M", "microvm,acpi=off,auto-kernel-cmdline=on", "-accel", "tcg", "-cpu", "max", "-m", "256"]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        words += ["-kernel", str(kernel), "-append", WORDS, "-device", "virtio-serial-device"]
        names = [CONSOLE, *(port.name.lower() for port in ports(interactive=request.handover.interactive))]
        for number, name in enumerate(names):
            kind = "virtserialport" if number else "virtconsole"
            words += ["-chardev", f"socket,id={name},path={directory / name}"]
            words += ["-device", f"{kind},chardev={name},nr={number}"]
        for number, disk in enumerate(disks):  # the kernel finds the last of them first
            words += ["-drive", f"if=none,id=disk{number},format=raw,file={disk}"]
            words += ["-device", f"virtio-blk-device,drive=disk{number}"]
        words += ["-netdev", "user,id=card", "-device", "virtio-net-device,netdev=card"]
        self.qemu = subprocess.Popen(["qemu-system-x86_64", *words], stdin=subprocess.DEVNULL)
        super().__init__(request, Timeline(), channels)
        self.timeline = channels._timeline

    def _pull_the_plug(self) -> None:
        self.qemu.kill()
        self.qemu.wait()


def machine(
    kernel: Path, folder: Path, *argv: str, stdin: int | None = None, terminal: TerminalSize | None = None
) -> Emulated:
    root, logs = folder / "root", folder / "logs"
    fill(root)
    logs.mkdir()
    disk = folder / "image.ext4"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk, "40M"], check=True, capture_output=True)
    process = Process(
        argv=argv, environment={"PATH": "/bin", "A": "b c"}, working_directory="/srv", uid=1000, gid=1000
    )
    told = Handover(
        hostname="one", process=process, address=IPv4Interface("198.18.0.2/15"), pids=30,
        interactive=stdin is not None or terminal is not None, terminal=terminal, is_machine=True,
    )  # fmt: skip
    request = Request(
        name="one", libraries=origin.require(), image_disk=disk, handover=told, directory=folder / "machine",
        log_directory=logs, cgroup=ControlGroup.open("lab/none/one"), memory_bytes=256 << 20, processors=1, tap=-1,
        mac="", stdin=stdin,
    )  # fmt: skip
    return Emulated(kernel, request)


def test_an_application_runs_to_its_end(kernel: Path, folder: Path) -> None:
    script = "echo $A; pwd; id -u; hostname; ip -o -4 addr show eth0; ulimit -u; echo bad >&2; exit 7"
    with machine(kernel, folder, "sh", "-c", script) as guest:
        assert guest.wait(60) == 7
        assert guest.timeline.at(Phase.INIT) is not None
    said = (folder / "logs/stdout.log").read_text().splitlines()
    assert said[:4] == ["b c", "/srv", "1000", "one"]
    assert "198.18.0.2/15" in said[4]
    assert (folder / "logs/stderr.log").read_text() == "bad\n"
    assert not (folder / "machine").exists()


def test_what_can_not_be_executed_is_told(kernel: Path, folder: Path) -> None:
    with (
        machine(kernel, folder, "/no/such") as guest,
        pytest.raises(LaunchError, match="/no/such can't be executed"),
    ):
        guest.wait_executed(60)


def test_commands_a_signal_and_the_limit_of_processes(kernel: Path, folder: Path) -> None:
    with machine(kernel, folder, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done") as guest:
        guest.wait_executed(60)
        done = guest.execute(("sh", "-c", "cat; id -u; exit 3"), stdin=b"typed\n" * 2000)
        assert (done.exit_code, done.stdout) == (3, b"typed\n" * 2000 + b"0\n")
        many = guest.execute(("sh", "-c", "for n in $(seq 60); do sleep 9 & done; wait"))
        assert b"can't fork" in many.stderr
        guest.signal(SIGTERM)
        assert guest.wait(20) == 9


def test_one_that_is_typed_to_has_a_terminal(kernel: Path, folder: Path) -> None:
    read, write = os.pipe()
    size = TerminalSize(rows=33, columns=44)
    with machine(
        kernel, folder, "sh", "-c", "stty size; read word; echo got $word", stdin=read, terminal=size
    ) as guest:
        guest.wait_executed(60)
        os.write(write, b"hello\n")
        assert guest.wait(30) == 0
    os.close(write)
    os.close(read)
    said = (folder / "logs/stdout.log").read_text()
    assert "33 44" in said
    assert "got hello" in said
