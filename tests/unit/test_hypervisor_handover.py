"""What a guest is told: shell words, unit files and the archive they come in."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.hypervisor.guest import cpio
from lab.hypervisor.guest.handover import CGROUPS, Handover
from lab.hypervisor.guest.loader import KERNEL_LINE, write_own_disk
from lab.hypervisor.kinds import MICROVM, PC, Design, Firmware, MachineType, UserSpace
from lab.model import Process, TerminalSize

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
DESIGNS = [Design(machine=machine, user_space=user_space) for machine in MachineType for user_space in UserSpace]
PROCESS = Process(argv=("/bin/app", "a b"), environment={"A": "x y"}, working_directory="/app", uid=1000, gid=100)


def handover(design: Design, process: Process = PROCESS) -> Handover:
    return Handover(
        design=design,
        hostname="web-1",
        process=process,
        pids=64,
        address=IPv4Interface("198.18.0.7/15"),
        mac="02:00:c6:12:00:07",
    )


@settings(deadline=None)  # it starts a shell, on a host that may be busy
@given(
    st.sampled_from(DESIGNS),
    st.dictionaries(st.sampled_from(["A", "B", "PATH"]), TEXT, max_size=3),
    st.lists(TEXT, min_size=1, max_size=4),
)
def test_the_application_script_is_the_command(
    design: Design, environment: dict[str, str], arguments: list[str]
) -> None:
    process = Process(argv=tuple(arguments), environment=environment)
    script = handover(design, process).files()["application"].decode()
    command = script[script.index("exec ") + len("exec ") :].removesuffix(" 3>/run/lab/status\n")
    shell = shutil.which("sh")
    assert shell is not None
    done = subprocess.run([shell, "-c", f"set -- {command}; printf '%s\\0' \"$@\""], capture_output=True, check=True)
    words = done.stdout.decode().split("\0")[:-1]
    assert words[2 : 2 + len(environment)] == [f"{name}={value}" for name, value in environment.items()]
    assert words[words.index("--") + 1 :] == arguments


def test_a_debian_runs_the_script_as_a_service_below_its_limit() -> None:
    files = handover(PC).files()
    unit = files["systemd/system/lab-application.service"].decode().splitlines()
    assert {"ExecStart=/bin/busybox sh /run/lab/machine/application", "TasksMax=64"} <= set(unit)
    assert b"cgroup.procs" not in files["application"]


def test_an_image_alone_joins_its_limit_by_itself() -> None:
    files = handover(MICROVM).files()
    assert b"/run/lab/cgroup/application/cgroup.procs" in files["application"]
    unlimited = replace(handover(MICROVM), pids=None).files()
    assert not any(b"cgroup.procs" in content for content in unlimited.values())
    assert not any(name.startswith("systemd") for name in files)


@pytest.mark.parametrize("design", DESIGNS)
def test_further_commands_share_the_applications_limit(design: Design) -> None:
    script = handover(design).files()["serve"].decode()
    assert f" --root /run/lab/image --group {CGROUPS[design.user_space]} " in script


@pytest.mark.parametrize("design", DESIGNS)
def test_every_guest_gets_its_address(design: Design) -> None:
    assert b"198.18.0.7\tweb-1\n" in handover(design).files()["etc/hosts"]
    everything = b"".join(handover(design).files().values())
    assert b"198.18.0.7/15" in everything


@settings(deadline=None)
@given(
    st.dictionaries(st.text("abc/", min_size=1).filter(lambda p: "//" not in p and p.strip("/") == p), st.binary())
)
def test_an_archive_unpacks_to_what_went_in(files: dict[str, bytes]) -> None:
    # A path that is also another's folder can't be a file.
    clean = {path: data for path, data in files.items() if not any(o.startswith(path + "/") for o in files)}
    data = cpio.archive(cpio.with_parents([cpio.file(path, content) for path, content in clean.items()]))
    assert len(data) % 4 == 0
    assert read_archive(data) == clean


@pytest.mark.parametrize("firmware", [Firmware.SEABIOS, Firmware.OVMF])
@pytest.mark.parametrize("long", [False, True])
def test_a_boot_loader_gets_its_orders_and_the_handover_on_one_disk(
    tmp_path: Path, firmware: Firmware, long: bool
) -> None:
    environment = {"LONG": "x" * 3_000_000} if long else {}
    given = handover(replace(PC, firmware=firmware), replace(PROCESS, environment=environment))
    write_own_disk(given, "console=ttyS0 panic=-1", tmp_path / "own.raw")
    disk = (tmp_path / "own.raw").read_bytes()
    orders = read_archive(disk)["lab/orders"].decode()
    sectors = int(re.search(r"^(?:\$load_)?initrd\w* /initramfs \(\$own\)0\+(\d+)$", orders, re.MULTILINE)[1])  # type: ignore[index]
    assert re.search(r"^(?:linux\w*|\$load_kernel) /vmlinuz console=ttyS0 panic=-1$", orders, re.MULTILINE)
    assert orders.splitlines()[-2:] == [f"echo {KERNEL_LINE.decode()}", "boot"], "the line is the last that it says"
    assert (1 << 20) <= len(disk) >= sectors * 512, "SeaBIOS passes smaller disks over"
    handed = disk[: sectors * 512]  # what the kernel gets, behind the shared initramfs
    second = handed.index(b"070701", handed.index(b"TRAILER!!!"))
    files = {
        path.removeprefix("run/lab/machine/"): content for path, content in read_archive(handed[second:]).items()
    }
    assert {path: content for path, content in files.items() if path != "settings" and "wants" not in path} == {
        path: content for path, content in given.files().items() if path != "settings"
    }
    assert not disk[sectors * 512 :].strip(b"\0")


def read_archive(data: bytes) -> dict[str, bytes]:
    """A second reading of the format: files by path; parents must have come before."""
    found: dict[str, bytes] = {}
    folders, at = {""}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) // 4 * 4
        if name == cpio.TRAILER:
            return found
        assert name.rpartition("/")[0] in folders
        if mode & 0o170000 == 0o040000:
            folders.add(name)
        else:
            found[name] = data[at : at + size]
        at = (at + size + 3) // 4 * 4


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("terminal", [None, TerminalSize(rows=33, columns=101)])
def test_an_application_that_is_typed_to_has_a_port_for_it(design: Design, terminal: TerminalSize | None) -> None:
    process = Process(argv=("sh",))
    plain = Handover(design=design, hostname="h", process=process).files()
    typed = Handover(design=design, hostname="h", process=process, interactive=True, terminal=terminal).files()
    assert b"PORTS=5\n" in plain["settings"]
    assert b"PORTS=6\n" in typed["settings"]
    assert b"interact" not in plain["application"]
    option = b"--terminal " if terminal else b""
    assert (
        b"inside interact " + option + b"--status-fd 3 /dev/vport0p6 -- /bin/busybox env -i" in typed["application"]
    )
    assert (b"init --terminal 33x101 --status-fd 3" in typed["application"]) == (terminal is not None)
