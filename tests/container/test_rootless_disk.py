"""An ordinary user's own disk: its QEMU and what gives it an address are subordinate ids, and end with lab."""

from __future__ import annotations

import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bootable import GREETING, Untouched, grub_disk
from students import COUNT, FIRST, USER, Student, enrolled, require_users, wait_until
from tiny import GREETING as PAGE
from tiny import tiny_image

from lab.host.cgroup import mounted
from lab.hypervisor.guest.bootdisk import make_boot_disk
from lab.hypervisor.guest.grub import BIOS
from lab.images.store import Store
from lab.network.dhcp import LIMITS

SECONDS = 120.0
NET_BIND_SERVICE, NET_ADMIN = 1 << 10, 1 << 12  # linux/capability.h
LEASER = "dnsmasq"
V1 = ("memory", "cpu", "cpuacct", "pids", "freezer", "devices")


@pytest.fixture
def place(missing: Callable[[str], None]) -> Iterator[Path]:
    require_users(missing)
    if BIOS.missing:
        missing("GRUB for BIOS")
    if shutil.which(LEASER) is None:
        missing(LEASER)
    # short, for libvirt's sockets
    with tempfile.TemporaryDirectory(prefix="l-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def student(place: Path) -> Iterator[Student]:
    with enrolled(place) as made:
        yield made
        wait_until(lambda: made.left() == [], SECONDS)


def owned(path: Path) -> Path:
    shutil.chown(path, USER, USER)
    path.chmod(0o644)
    return path


def test_it_boots_and_nothing_of_it_stays(student: Student) -> None:
    disk = Untouched.of(owned(grub_disk(student.home / "short.raw")))
    assert GREETING in student.must("run", "--on", "vm", "short.raw")
    disk.check()
    assert student.left() == []


def test_who_gives_it_an_address_is_nobody_and_ends_with_lab(student: Student) -> None:
    owned(grub_disk(student.home / "long.raw", "sleep 600\n"))
    lab = student.begin("run", "--on", "vm", "long.raw")

    def found() -> dict[str, dict[str, list[str]]]:
        """Status, by program, of both."""
        told = {}
        for pid in student.processes():
            with suppress(OSError):  # it has just ended
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
                if status["NoNewPrivs"] == ["1"] and status["Name"][0] in (LEASER, "qemu-system-x86"):
                    told[status["Name"][0]] = status
        return told

    wait_until(lambda: lab.poll() is not None or len(found()) > 1, SECONDS)
    assert lab.poll() is None, lab.communicate()
    for status in found().values():
        (user,) = {int(user) for name in ("Uid", "Gid") for user in status[name]}
        assert FIRST + COUNT // 2 - 1 <= user < FIRST + COUNT
        assert status["Groups"] == []
    assert {int(found()[LEASER][name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {
        NET_BIND_SERVICE | NET_ADMIN
    }
    lab.kill()
    lab.communicate()
    wait_until(lambda: student.left() == [], SECONDS)


@pytest.mark.nightly
def test_its_system_gets_an_address_and_is_compared(student: Student, lab_home: Path) -> None:
    store = Store.open(lab_home)
    path = student.home / "web.qcow2"
    make_boot_disk(store, tiny_image(store), path, free_bytes=32 << 20)
    disk = Untouched.of(owned(path))
    lab = student.begin("run", "--on", "vm", "web.qcow2", "--ready", "http:/", "--port", "8000", "-p", "0:8000")
    assert lab.stderr is not None
    told = ""
    while "is ready" not in told:
        told += (line := lab.stderr.readline())
        assert line, f"{told}{lab.communicate()}"
    port = told.partition("published at ")[2].split()[0].rpartition(":")[2]
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=SECONDS).read().decode() == PAGE
    student.kill()
    lab.communicate()
    student.must("clean")
    words = ("--on", "vm:./web.qcow2", "--ready", "http:/", "--port", "8000", "--blocks", "1", "--metrics", "boot")
    student.must("compare", *words)
    (run,) = (student.home / "results").iterdir()
    assert (run / "report.html").is_file()
    disk.check()


def test_in_groups_of_the_user_s_both_are_held(place: Path, missing: Callable[[str], None]) -> None:
    host = mounted.host()
    if any(name not in host.v1 for name in V1):
        missing("cgroup v1 with the controllers that would be delegated")
    with enrolled(place, groups=[*V1, *([""] if host.unified else [])]) as student:
        owned(grub_disk(student.home / "long.raw", "sleep 600\n"))
        lab = student.begin("run", "--on", "vm", "long.raw")
        memory = Path(host.v1["memory"])
        wait_until(lambda: lab.poll() is not None or len(groups_of(student, memory)) > 1, SECONDS)
        assert lab.poll() is None, lab.communicate()
        leaser = next(group for group in groups_of(student, memory) if group.name == "dhcp_")
        assert int((leaser / "memory.limit_in_bytes").read_text()) == LIMITS.memory_bytes
        lab.kill()
        lab.communicate()
        wait_until(lambda: student.left() == [], SECONDS)


def groups_of(student: Student, hierarchy: Path) -> set[Path]:
    """Those in which QEMU and dnsmasq are, by their names."""
    return {
        procs.parent
        for procs in (hierarchy / student.groups[0].relative_to(hierarchy)).parent.rglob("cgroup.procs")
        for pid in procs.read_text().split()
        if any(word in student.processes().get(int(pid), "") for word in (LEASER, "qemu-system"))
    }


def test_without_subordinate_ids_it_is_refused_by_name(place: Path) -> None:
    with enrolled(place, ids=False) as student:
        owned(grub_disk(student.home / "short.raw"))
        refused = student.lab("run", "--on", "vm", "short.raw")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "can't run here: subordinate ids" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert student.left() == []
