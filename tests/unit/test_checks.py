"""The host checks behind ``lab doctor``: each says what it found, and a failed one names the remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host_state import mountinfo

from lab.errors import CommandError
from lab.host.cgroup import delegation
from lab.host.cgroup.hierarchy import Hierarchies
from lab.host.identity import privilege
from lab.host.survey import checks
from lab.host.survey.checks import Resource, Tool


def test_every_check_says_what_it_found_and_how_to_repair_it() -> None:
    made = checks.host_checks()
    assert len(made) > 5
    for check in made:
        assert check.found, check.name
        assert check.ok or check.remedy, check.name


def test_checks_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = mountinfo()
    checks.host_checks()
    assert list(tmp_path.iterdir()) == []
    assert mountinfo() == before


def test_a_missing_tool_names_its_package(tmp_path: Path) -> None:
    wanted = Tool(program="qemu-system-x86_64", package="qemu-system-x86", required_by=("vm",))
    check = checks.tool(wanted, {"PATH": str(tmp_path)})
    assert not check.ok
    assert check.remedy == "apt-get install qemu-system-x86"
    assert check.required_by == ("vm",)
    (tmp_path / "qemu-system-x86_64").touch(mode=0o755)
    assert checks.tool(wanted, {"PATH": str(tmp_path)}).ok


def test_a_missing_file_names_its_package(tmp_path: Path) -> None:
    wanted = Resource(name="UEFI firmware", path=tmp_path / "code.fd", package="ovmf", costs="OVMF")
    check = checks.resource(wanted)
    assert (check.ok, check.remedy, check.required_by) == (False, "apt-get install ovmf", ())
    wanted.path.touch()
    assert checks.resource(wanted).ok


def test_cgroups_name_the_absent_controllers(tmp_path: Path) -> None:
    check = checks.cgroup(Hierarchies(v1={"memory": tmp_path}))
    assert not check.ok
    assert "no cpu, pids" in check.found
    assert "cpu, pids" in check.remedy


def test_systemd_is_named_as_the_owner_of_cgroups_and_whether_it_can_be_asked(tmp_path: Path) -> None:
    v2 = Hierarchies(unified=tmp_path)
    assert checks.owner_of_cgroups(str(tmp_path), v2).ok
    (tmp_path / delegation.BOOTED).mkdir(parents=True)
    unasked = checks.owner_of_cgroups(str(tmp_path), v2)
    assert not unasked.ok
    assert not unasked.required_by
    assert "dbus" in unasked.remedy
    (tmp_path / delegation.BUS).mkdir(parents=True)
    assert checks.owner_of_cgroups(str(tmp_path), v2).ok
    assert not checks.owner_of_cgroups(str(tmp_path), Hierarchies(unified=tmp_path, v1={"cpu": tmp_path})).ok


def test_an_ordinary_user_is_not_told_to_change_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / delegation.BOOTED).mkdir(parents=True)
    monkeypatch.setattr(privilege, "is_rootless", lambda: True)
    assert checks.owner_of_cgroups(str(tmp_path), Hierarchies(unified=tmp_path)).ok


def test_no_cgroups_at_all_say_how_to_mount_them() -> None:
    check = checks.cgroup(Hierarchies())
    assert check.remedy == "mount -t cgroup2 cgroup2 /sys/fs/cgroup"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_cgroups_that_can_not_be_written_ask_for_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    check = checks.cgroup(Hierarchies(unified=tmp_path, unified_controllers=frozenset(checks.CONTROLLERS)))
    assert not check.ok
    assert check.remedy == privilege.AS_ROOT.format("doctor")


def test_too_little_disk_or_memory_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FREE_DISK_BYTES", 2**62)
    monkeypatch.setattr(checks, "FREE_MEMORY_BYTES", 2**62)
    assert not checks.disk().ok
    assert "LAB_HOME" in checks.disk().remedy
    assert not checks.ram().ok


def test_a_command_that_fails_becomes_a_failed_check_with_its_last_line() -> None:
    check = checks.tried("namespaces", ["sh", "-c", "echo one >&2; echo refused >&2; exit 1"], "all")
    assert (check.ok, check.found) == (False, "refused")


def test_a_compiler_without_a_static_library_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object, **_options: object) -> None:
        raise CommandError("gcc failed with exit code 1", detail="ld: cannot find -lc")

    monkeypatch.setattr(checks, "run", refuse)
    check = checks.compiler()
    assert (check.ok, check.found, check.remedy) == (False, "ld: cannot find -lc", "apt-get install gcc libc6-dev")
