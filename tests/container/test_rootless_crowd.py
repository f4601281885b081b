"""Several ordinary users of one host at once, who call everything by the same names: they don't meet."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from students import GONE_SECONDS, PROGRAM, Student, archived, enrolled, import_into, require_users, wait_until

T = TypeVar("T")
BACKENDS = ("process", "container")
AT_ONCE = 8
SERVE = "mkdir /www; echo {} > /www/index.html; exec httpd -f -p 8000 -h /www"
REACH = """
import os, socket, sys
for path in sys.argv[1:]:
    try:
        if os.path.basename(path) == "control":
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(path)
        else:
            os.listdir(path)
        print(path)
    except PermissionError:
        pass
"""
"""Prints those of its arguments, folders and sockets, that the caller may use."""


@pytest.fixture(scope="module")
def archive(busybox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archived(busybox_root, tmp_path_factory.mktemp("crowd") / "small.tar")


@pytest.fixture
def crowd(missing: Callable[[str], None], archive: Path, request: pytest.FixtureRequest) -> Iterator[list[Student]]:
    """So many users with an image each, every other one without a runtime folder of its own: `/tmp/lab-UID` then."""
    require_users(missing)
    with (
        tempfile.TemporaryDirectory(prefix="lab-test-", dir="/var/tmp", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        Path(folder).chmod(0o755)
        students = []
        for number in range(request.param):
            own = Path(folder, str(number))
            own.mkdir(mode=0o755)
            student = stack.enter_context(enrolled(own, number=number))
            students.append(replace(student, environment={"XDG_RUNTIME_DIR": ""}) if number % 2 else student)
        of_all(students, lambda student: import_into(student, archive))
        yield students
        for student in students:
            wait_until(lambda student=student: student.left() == [], GONE_SECONDS)  # type: ignore[misc]


@pytest.mark.parametrize(
    "crowd", [3, pytest.param(20, marks=pytest.mark.nightly)], indirect=True, ids=lambda count: f"{count} users"
)
def test_users_do_not_meet(crowd: list[Student]) -> None:
    backends = BACKENDS if len(crowd) > 3 else BACKENDS[1:]

    def begin(student: Student) -> dict[str, int]:
        """One instance on each backend; the ports that they are at."""
        ports = {}
        for backend in backends:
            words = ("--on", backend, "--name", backend, "-p", "0:8000", "--wait", "small", "--", "sh", "-c")
            student.must("run", "-d", *words, SERVE.format(f"{student.user} {backend}"))
            ports[backend] = int(student.must("port", backend).rpartition(":")[2])
        return ports

    ports = {student.user: own for student, own in zip(crowd, of_all(crowd, begin), strict=True)}
    assert len({port for own in ports.values() for port in own.values()}) == len(crowd) * len(backends)

    def require_serving(students: list[Student]) -> None:
        for student in students:
            for backend, port in ports[student.user].items():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=GONE_SECONDS) as answer:
                    assert answer.read().decode() == f"{student.user} {backend}\n"

    require_serving(crowd)
    first, second, *others = crowd
    for student in crowd:
        assert len(student.must("ps", "-q").split()) == len(backends), "another's instances are shown"

    # what is one user's is closed to others, and what is taken is taken
    control = next(first.runtime.glob("*/control"))
    closed = [str(path) for path in (first.store, first.runtime, control.parent, control)]
    assert reach(first, closed) == closed
    assert reach(second, closed) == []
    taken = str(next(iter(ports[first.user].values())))
    refused = second.lab("run", "-p", f"{taken}:8000", "small", "--", "true")
    assert refused.returncode != 0
    assert "in use" in refused.stderr

    # one user's lab dies whole, and several clean up while the others' instances serve
    first.kill()
    assert first.left() != [], "what is to be removed"
    of_all([second, *others], lambda student: student.must("clean"))
    subprocess.run([sys.executable, *PROGRAM, "clean"], check=True, capture_output=True)
    assert first.left() != [], "it is nobody else's to remove"
    first.must("clean")
    assert first.left() == []
    require_serving([second, *others])
    for student in (second, *others):
        for backend in backends:
            assert student.must("exec", backend, "--", "cat", "/www/index.html") == f"{student.user} {backend}\n"

    of_all([second, *others], lambda student: student.must("stop", "--time", "0", *backends))
    for student in (second, *others):
        assert student.left() == []


@pytest.mark.parametrize("crowd", [2], indirect=True)
def test_a_runtime_folder_that_another_user_has_made_is_refused(crowd: list[Student]) -> None:
    other, victim = crowd
    place = victim.runtime.parent
    assert place.parent == Path("/tmp")
    assert not list(victim.runtime.iterdir())
    victim.runtime.rmdir()
    place.rmdir()
    other.do("mkdir", "-m", "777", str(place))
    try:
        done = victim.lab("run", "small", "--", "true")
        assert done.returncode == 1
        assert "somebody else" in done.stderr
        assert list(place.iterdir()) == []
    finally:
        place.rmdir()


def of_all(students: list[Student], act: Callable[[Student], T]) -> list[T]:
    """At once, some at a time where they are many."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(act, students))


def reach(student: Student, paths: list[str]) -> list[str]:
    """Those of ``paths`` that the user may look into, or connect to."""
    return student.do(sys.executable, "-c", REACH, *paths).split()
