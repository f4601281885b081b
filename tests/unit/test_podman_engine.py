"""Podman without one: what is lacking, what it complained about, what may stand on a command line."""

from __future__ import annotations

import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.backends.libpod import container, podman
from lab.backends.podman import Podman
from lab.backends.support.programs.anothers import not_started
from lab.host.cgroup.hierarchy import Hierarchies
from lab.images.store import Image
from lab.isolation import battery, explain
from lab.isolation.base import Answer, Boundary, Mechanism
from lab.isolation.registry import probes
from lab.model import Kernel, Volume

NOT_THERE = 'Error: runc: runc create failed: exec: "x": executable file not found in $PATH: OCI runtime attempted\n'
NOT_A_PROGRAM = 'Error: runc: runc create failed: exec: "/etc": permission denied: OCI permission denied\n'
TOO_MUCH = "Error: runc: runc create failed: setting rlimit 6: operation not permitted: OCI permission denied\n"


def check() -> tuple[bool, str, str]:
    (found,) = [each for each in Podman.check() if each.name == "podman"]
    return found.ok, found.found, found.remedy


def installed(folder: Path, *names: str, version: str) -> None:
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho {name} version {version}\n")
        (folder / name).chmod(0o755)
    podman.version.cache_clear()


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(podman, "PATH", str(tmp_path))
    podman.version.cache_clear()


def test_what_is_missing_is_named_and_its_package(tmp_path: Path) -> None:
    assert check() == (False, "podman is not installed", "apt-get install podman runc")
    installed(tmp_path, "podman", "conmon", version="4.3.1")
    assert check()[1] == "runc is not installed"
    installed(tmp_path, "runc", version="1.1.5")
    assert check()[:2] == (True, f"{tmp_path}/podman 4.3.1")


@pytest.mark.parametrize(("version", "is_ok"), [("3.4.4", False), ("4.0.0", True), ("5.4.2", True), ("dev", False)])
def test_a_podman_that_cannot_pass_descriptors_through_is_refused(tmp_path: Path, version: str, is_ok: bool) -> None:
    installed(tmp_path, "podman", "conmon", "runc", version=version)
    assert check()[0] is is_ok


@pytest.mark.parametrize(("complaint", "code"), [(NOT_THERE, 127), (NOT_A_PROGRAM, 126), (TOO_MUCH, 125), ("", 125)])
def test_a_complaint_tells_the_exit_code(complaint: str, code: int) -> None:
    """Podman sorts every refusal among those of permission, also one that the program has nothing to do with."""
    said = podman.last_words("warning\n" + complaint if complaint else "")
    assert not said.startswith("Error")
    assert not_started("podman", "web", said).exit_code == code


def test_what_podman_did_not_understand_of_its_runtime_is_told_by_the_runtime() -> None:
    """As it is where the runtime has a warning first: an ordinary user's."""
    complaint = 'runc create failed: exec: "no": executable file not found in $PATH'
    told = podman.last_words(f"{complaint}\nError: container create failed (no logs from conmon): conmon bytes: {{\n")
    assert told == complaint


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_an_ordinary_user_s_runtime_enters_its_groups_and_is_told_of_none(tmp_path: Path, name: str) -> None:
    """With what podman says besides: its log, and that it wants no group, which crun alone understands."""
    groups = [tmp_path / group for group in ("memory", "pids")]
    for group in groups:
        group.mkdir()
    listed = tmp_path / "groups"
    listed.write_text("".join(f"{group}/cgroup.procs\n" for group in groups))
    program = podman._entering(tmp_path / "enter", name, "/bin/echo")
    words = [f"--{podman.FLAG}={listed}", "--log", "a log", "--cgroup-manager", "disabled", "create", "--", "it"]
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
    manager = "--cgroup-manager disabled " if name == "crun" else ""
    assert done.stdout == f"--log a log {manager}create -- it\n"
    assert len({(group / "cgroup.procs").read_text() for group in groups}) == 1
    listed.write_text(f"{tmp_path}/gone/cgroup.procs\n")
    assert subprocess.run([program, *words], capture_output=True, check=False).returncode != 0


def test_no_value_of_the_environment_is_on_a_command_line_but_what_no_file_can_hold(tmp_path: Path) -> None:
    words = container._environment({"SECRET": "x y#z=1", "EMPTY": "", "LINES": "a\nb", "QUOTED": '"a'}, tmp_path)
    file = Path(words[1])
    assert file.read_text() == "SECRET=x y#z=1\nEMPTY=\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert words[2:] == ["--env", "LINES=a\nb", "--env", 'QUOTED="a']


def test_a_volume_that_is_read_only_shows_no_mount_below_it() -> None:
    assert container._mount(Volume(source="/a", target="/b")) == "/a:/b:rbind,rprivate,rw"
    assert container._mount(Volume(source="/a", target="/b", read_only=True)) == "/a:/b:bind,rprivate,ro"


@pytest.mark.parametrize(("v1", "unified", "works"), [(True, True, False), (False, True, True), (True, False, True)])
def test_crun_is_no_level_where_both_versions_of_cgroups_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, v1: bool, unified: bool, works: bool
) -> None:
    installed(tmp_path, "crun", version="1.8")
    found = Hierarchies(v1={"memory": Path("/c/memory")} if v1 else {}, unified=Path("/c/u") if unified else None)
    monkeypatch.setattr("lab.backends.podman.host_hierarchies", lambda: found)
    assert (("runtime", "crun") not in Podman.lacking()) is works


class Keeps:
    """A backend with a copy of the image's layers."""

    kernel = Kernel.HOST

    def __init__(self, *files: Path) -> None:
        self.kept = files

    def files(self, image: Image, knobs: Mapping[str, str]) -> tuple[Path, ...]:
        return self.kept


def test_a_signal_is_left_in_the_copy_that_the_instance_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever left it in lab's own copy would never see it arrive, and take that for a boundary."""
    (tmp_path / "program").touch()
    (tmp_path / "layer").mkdir()
    left: list[Sequence[Path]] = []
    monkeypatch.setattr(battery, "leave_signal", left.append)
    instance = SimpleNamespace(request=SimpleNamespace(image=None, knobs={}))
    battery._leave_signal(instance, Keeps(tmp_path / "layer", tmp_path / "program"))  # type: ignore[arg-type]
    assert left == [[tmp_path / "layer"]]


def test_what_passes_is_waited_for_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sh", "-c", "exec sleep 0.4", "podman"]) as other:  # its name is sleep
        assert not podman._passes(other.pid)
        other.wait()
    with subprocess.Popen(["podman"], executable="/bin/sh", stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not podman._passes(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)  # execve(2) closes what Popen waits for before the new words can be read
        assert podman._passes(process.pid)
        group = podman.SettledGroup("x", Hierarchies())
        monkeypatch.setattr(group, "processes", lambda: {process.pid})
        monkeypatch.setattr(podman, "SETTLE_SECONDS", 0.05)
        began = time.monotonic()
        group.settle()
        assert time.monotonic() - began >= 0.05
        assert process.stdin
        process.stdin.close()
        process.wait(60)
        monkeypatch.setattr(podman, "SETTLE_SECONDS", 60.0)
        began = time.monotonic()
        group.settle()
        assert time.monotonic() - began < 30


def test_what_it_stops_beyond_lab_is_a_capability_and_what_it_lets_through_nothing() -> None:
    by_id = {probe.id: probe for probe in probes()}
    assert explain.mechanism_of(by_id["raw-socket"], Boundary.PODMAN) is Mechanism.CAPABILITY
    assert explain.mechanism_of(by_id["keyrings"], Boundary.PODMAN) is Mechanism.NONE
    assert by_id["default-route"].expected[Boundary.PODMAN].answers == (Answer.NO,)
