"""A machine of an ordinary user's: QEMU is a subordinate id, shut in as root's is, and ends with lab."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from students import COUNT, FIRST, USER, Student, enrolled, require_users, wait_until

from lab.hypervisor.guest.artefacts import prepare_guest
from lab.inside.build import program

pytestmark = pytest.mark.nightly
SECONDS = 120.0


@pytest.fixture
def student(missing: Callable[[str], None], lab_home: Path, busybox_root: Path) -> Iterator[Student]:
    """With an image, and with the guest and the helper that root has made, which take minutes."""
    require_users(missing)
    guest = prepare_guest(lab_home).kernel.parent
    # short, for libvirt's sockets
    with tempfile.TemporaryDirectory(prefix="l-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with enrolled(Path(folder)) as made:
            for source in (guest, program().parent):
                shutil.copytree(source, made.store / source.parent.name / source.name, symlinks=True)
            for path in (made.home / ".local", *(made.home / ".local").rglob("*")):
                os.chown(path, USER, USER, follow_symlinks=False)
            archive = made.folder / "small.tar"
            shutil.make_archive(str(archive.with_suffix("")), "tar", busybox_root)
            made.must("image", "import", str(archive), "small")
            yield made
            wait_until(lambda: made.left() == [], SECONDS)


def test_it_is_confined_and_ends_with_lab(student: Student) -> None:
    assert student.must("run", "--on", "microvm", "small", "--", "id", "-u").strip() == "0"
    lab = student.begin("run", "--on", "microvm", "small", "--", "sleep", "4721")
    wait_until(lambda: any("qemu-system" in line for line in student.processes().values()), SECONDS)
    pid = next(pid for pid, line in student.processes().items() if "qemu-system" in line)

    def status() -> dict[str, list[str]]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}

    wait_until(lambda: status()["NoNewPrivs"] == ["1"], SECONDS)
    found = status()
    users = {int(user) for name in ("Uid", "Gid") for user in found[name]}
    assert len(users) == 1
    assert FIRST + COUNT // 2 - 1 <= users.pop() < FIRST + COUNT
    assert {found[name][0] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert found["Groups"] == []
    seen = {line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert not seen & {"/etc", "/home", "/proc", "/usr", "/var", str(student.home)}
    lab.kill()
    lab.communicate()
    wait_until(lambda: student.left() == [], SECONDS)


def test_a_saved_machines_memory_is_mapped(student: Student) -> None:
    """By the QEMU of another subordinate id, through the one folder of /proc that is in its jail."""
    lab = student.begin("run", "--on", "microvm", "--knob", "start=map", "small", "--", "sleep", "4723")

    def mapped() -> set[str]:
        found = set()
        for pid in student.processes():
            with suppress(OSError):  # it has just ended
                lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
                found |= {line.split()[1] for line in lines if "/memfd:lab-machine" in line}
        return found

    wait_until(lambda: lab.poll() is not None or "rw-p" in mapped(), SECONDS)
    assert lab.poll() is None, lab.communicate()
    lab.kill()
    lab.communicate()
    wait_until(lambda: student.left() == [], SECONDS)


@pytest.mark.parametrize("backend", ["microvm", "vm"])
def test_a_detached_machine_is_asked_from_outside_and_ends_when_told(student: Student, backend: str) -> None:
    begin(student, backend)
    port = student.must("port", "web").split(":")[-1].strip()
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=SECONDS).read() == b"hello\n"
    assert student.must("exec", "web", "--", "cat", "/www/index.html") == "hello\n"
    assert "web" in student.must("top", "--once")
    assert student.must("stop", "--time", "1", "web").strip() == "web"
    assert "Exited" in student.must("ps", "-a")
    student.must("rm", "web")


@pytest.mark.parametrize("backend", ["microvm", "vm"])
def test_it_outlives_lab_and_nothing_outlives_the_next_command(student: Student, backend: str) -> None:
    begin(student, backend)
    student.kill("-m lab.supervisor", "spawner")
    student.must("clean")
    assert student.must("exec", "web", "--", "cat", "/www/index.html") == "hello\n"
    student.kill()
    assert student.left() != [], "what is to be removed"
    student.must("clean")
    assert student.left() == []
    assert "Exited" in student.must("ps", "-a")
    student.must("rm", "web")


def begin(student: Student, backend: str) -> None:
    """One called web, which serves on its port 8000."""
    serve = "mkdir /www; echo hello > /www/index.html; httpd -p 8000 -h /www; sleep 4722"
    words = ("--on", backend, "--name", "web", "-p", "0:8000", "--wait", "small", "--", "sh", "-c", serve)
    student.must("run", "-d", *words)
