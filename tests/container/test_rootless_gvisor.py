"""gVisor by an ordinary user: its Sentry in a user namespace below lab's, put into the groups that there are."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from students import USER, Student, archived, enrolled, import_into, require_users, wait_until

from lab.backends.sentry import origin
from lab.host.cgroup import mounted

pytestmark = pytest.mark.nightly
V1 = ("memory", "cpu", "cpuacct", "pids", "freezer", "devices")
SERVE = "mkdir /www; echo hello > /www/index.html; httpd -p 8000 -h /www; sleep 4713"


@pytest.fixture(scope="module")
def archive(busybox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archived(busybox_root, tmp_path_factory.mktemp("rootless") / "small.tar")


@pytest.fixture
def place(missing: Callable[[str], None]) -> Iterator[Path]:
    import tempfile

    require_users(missing)
    if origin.SOURCE.unfetched():
        missing("runsc, which lab run --on gvisor fetches")
    with tempfile.TemporaryDirectory(prefix="lab-test-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def equip(student: Student, archive: Path) -> None:
    """The image, and the program, which would be fetched."""
    import_into(student, archive)
    found = origin.SOURCE.find()
    assert found is not None
    folder = student.store / "programs" / found.path.parent.name
    folder.mkdir(parents=True)
    shutil.copy(found.path, folder)
    for path in (folder.parent, folder, folder / found.path.name):
        os.chown(path, USER, USER)


@pytest.fixture
def student(place: Path, archive: Path) -> Iterator[Student]:
    with enrolled(place) as made:
        equip(made, archive)
        yield made
        wait_until(lambda: made.left() == [])


def test_it_runs_is_executed_in_and_stops(student: Student) -> None:
    words = (
        "run",
        "-d",
        "--on",
        "gvisor",
        "--name",
        "web",
        "-p",
        "0:8000",
        "--wait",
        "small",
        "--",
        "sh",
        "-c",
        SERVE,
    )
    student.must(*words)
    assert "4.4.0" in student.must("exec", "web", "--", "uname", "-r")
    assert "web" in student.must("top", "--once")
    assert student.must("stop", "--time", "1", "web").strip() == "web"
    student.must("rm", "web")


def test_after_sigkill_of_lab_nothing_is_left(student: Student) -> None:
    """The Sentry is in a namespace of its own, below lab's, in which nobody would look for it by its number."""
    process = student.begin("run", "--on", "gvisor", "small", "--", "sh", "-c", "sleep 4711 & sleep 4712")
    wait_until(lambda: any("runsc-sandbox" in line for line in student.processes().values()))
    process.kill()
    process.communicate()
    wait_until(lambda: student.left() == [])


def test_after_sigkill_of_everything_of_lab_s_the_next_command_ends_it(student: Student) -> None:
    student.must("run", "-d", "--on", "gvisor", "--name", "lost", "small", "--", "sleep", "4713")
    for pid, line in student.processes().items():
        if "lab.supervisor" in line or "lab.runtime.spawner" in line:
            os.kill(pid, signal.SIGKILL)
    assert any("runsc-sandbox" in line for line in student.processes().values())
    student.must("rm", "-f", "lost")
    student.must("clean")


def test_its_answers_are_those_that_are_expected(student: Student) -> None:
    done = student.lab("isolation", "--on", "gvisor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {one["probe"]: one["answer"] for one in json.loads(done.stdout)}["boot-id"] != "host"


def test_limits_hold_in_groups_of_the_user_s(place: Path, archive: Path, missing: Callable[[str], None]) -> None:
    host = mounted.host()
    if any(name not in host.v1 for name in V1):
        missing("cgroup v1 with the controllers that would be delegated")
    with enrolled(place, groups=[*V1, *([""] if host.unified else [])]) as student:
        equip(student, archive)
        words = ("run", "--on", "gvisor", "--memory", "128M", "--pids", "200", "small", "--", "tail", "/dev/zero")
        assert student.lab(*words).returncode != 0
        assert student.lab(*words[:-2], "true").returncode == 0
        assert student.left() == []


def test_one_goes_on_from_one_that_was_saved(student: Student) -> None:
    words = ("run", "--on", "gvisor", "--knob", "start=restore", "small", "--", "sh", "-c", "sleep 5; id -u")
    done = student.lab(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "0\n"
    wait_until(lambda: student.left() == [])
