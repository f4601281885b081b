"""Where the host lets no ordinary user have a user namespace: each command says so in a line, with the remedy."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from students import Student, archived, enrolled, import_into, require_users

REFUSING = Path(__file__).with_name("refusing.py")


@pytest.fixture(scope="module")
def student(busybox_root: Path, missing: Callable[[str], None]) -> Iterator[Student]:
    require_users(missing)
    with tempfile.TemporaryDirectory(prefix="lab-test-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with enrolled(Path(folder)) as made:
            import_into(made, archived(busybox_root, made.folder / "root.tar"))
            yield made


@pytest.fixture(
    params=[
        ("making", "a user namespace can't be made", "has to allow user namespaces"),
        ("using", "a user namespace can't be used", "has to allow user namespaces"),
        ("limit", "user.max_user_namespaces = 0 keeps ordinary users", "sudo sysctl -w user.max_user_namespaces="),
    ],
    ids=lambda param: param[0],
)
def refused(request: pytest.FixtureRequest, student: Student) -> Iterator[tuple[Student, str, str]]:
    how, says, remedy = request.param
    yield replace(student, refusing=f"{sys.executable} {REFUSING} {how}"), says, remedy
    assert student.left() == []


def test_a_command_that_needs_one_says_so(refused: tuple[Student, str, str]) -> None:
    student, says, remedy = refused
    for words in (("run", "small", "--", "true"), ("run", "-d", "--name", "web", "small"), ("compare", "web-app")):
        done = student.lab(*words)
        assert (done.returncode, done.stdout) == (1, "")
        first, second = done.stderr.splitlines()
        assert says in first
        assert remedy in second
    assert student.must("ps", "-a", "-q") == ""


def test_doctor_has_it_among_what_is_lacking(refused: tuple[Student, str, str]) -> None:
    student, says, remedy = refused
    done = student.lab("doctor", "--on", "process,container", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    (own,) = [check for check in told["checks"] if check["name"] == "your user namespace"]
    assert not own["ok"]
    assert says in own["found"]
    assert remedy in own["remedy"]
    assert all("your user namespace" in one["obstacles"] for one in told["backends"])


def test_what_needs_none_goes_on_with_the_user_s_own_files(refused: tuple[Student, str, str]) -> None:
    student, _, _ = refused
    assert "small" in student.must("image", "ls")
    student.must("clean")
