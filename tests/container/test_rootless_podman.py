"""Podman of an ordinary user with lab-oci as its runtime: root of podman's user namespace calls it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from oci import LAB_OCI, Done, until
from students import FIRST, SECONDS, USER, Student, can_read_lab, enrolled

ULIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")  # no more than this host may give
ENGINE = ("--cgroup-manager=cgroupfs", "--events-backend=none", "--storage-driver=vfs", "--runtime", str(LAB_OCI))


@dataclass(frozen=True, slots=True)
class Podman:
    student: Student
    rootfs: Path

    def __call__(self, *words: str) -> Done:
        process = self.student.begin(*ENGINE, *words, program=("podman",))
        out, err = process.communicate(timeout=SECONDS)
        return Done(code=process.returncode, out=out, err=err)

    def ok(self, *words: str) -> str:
        done = self(*words)
        assert done.code == 0, f"{words}: exit code {done.code}: {done.err}"
        return done.out

    def run(self, *words: str) -> list[str]:
        """What is given before -- are options of ``run``, what follows is the command."""
        at = words.index("--")
        return ["run", *ULIMITS, "--network=none", *words[:at], "--rootfs", str(self.rootfs), *words[at + 1 :]]

    def told(self, *words: str) -> str:
        return self.ok(*self.run("--rm", *words))


@pytest.fixture(scope="module")
def podman(busybox_root: Path) -> Iterator[Podman]:
    if shutil.which("podman") is None or shutil.which("newuidmap") is None:
        pytest.skip("podman or newuidmap is not installed")
    if not can_read_lab():
        pytest.skip("others than root may not read this checkout")
    with tempfile.TemporaryDirectory(prefix="lab-test-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with enrolled(Path(folder)) as student:
            rootfs = student.home / "rootfs"
            shutil.copytree(busybox_root, rootfs, symlinks=True)
            subprocess.run(["chown", "-R", f"{USER}:{USER}", rootfs], check=True)
            yield Podman(student, rootfs)


def test_root_inside_is_the_user_and_the_others_are_subordinate(podman: Podman) -> None:
    lines = podman.told("--", "sh", "-c", "id -u; tr -s ' ' < /proc/self/uid_map; grep Seccomp: /proc/self/status")
    assert lines.split("\n")[:3] == ["0", f" 0 {USER} 1", f" 1 {FIRST} 65536"]
    assert lines.split()[-1] == "2"
    script = (
        "mkdir -p /tmp/a; chown 33:44 /tmp/a; mknod /tmp/n c 1 3; umount /proc; mount -t tmpfs none /tmp; echo no"
    )
    assert podman.told("--", "sh", "-c", f"({script}) 2> /dev/null") == "no\n"
    made = podman.rootfs / "tmp/a"
    assert (made.stat().st_uid, made.stat().st_gid) == (FIRST + 32, FIRST + 43)
    assert not (podman.rootfs / "tmp/n").exists()
    made.rmdir()


@pytest.mark.nightly
def test_users_capabilities_and_read_only_roots(podman: Podman) -> None:
    script = "id -u; grep CapEff /proc/self/status; touch /a 2> /dev/null || echo sealed"
    said = podman.told("--user", "33:44", "--cap-drop", "all", "--read-only", "--", "sh", "-c", script).split()
    assert said == ["33", "CapEff:", "0" * 16, "sealed"]
    assert podman.told("--userns=keep-id", "--", "id", "-u") == f"{USER}\n"
    assert podman(*podman.run("--rm", "--", "sh", "-c", "exit 9")).code == 9


def test_a_detached_one_is_executed_in_stopped_and_removed(podman: Podman) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.1; done"
    podman.ok(*podman.run("--detach", "--name", "web", "--", "sh", "-c", script))
    assert podman.ok("exec", "web", "id", "-u") == "0\n"
    assert podman("exec", "web", "sh", "-c", "exit 7").code == 7
    until(lambda: "hello" in podman.ok("logs", "web"), "its output")
    podman.ok("stop", "--time", "10", "web")
    assert json.loads(podman.ok("inspect", "web"))[0]["State"]["ExitCode"] == 3
    assert "bye" in podman.ok("logs", "web")
    podman.ok("rm", "web")
    assert not any("lab-oci" in line or "sleep" in line for line in podman.student.processes().values())


def test_in_the_host_s_pid_namespace_removal_ends_what_has_left_its_parent(podman: Podman) -> None:
    """Where runc 1.1 leaves it."""
    podman.ok(
        *podman.run("--detach", "--name", "shared", "--pid=host", "--", "sh", "-c", "(sleep 4716 &); sleep 4717")
    )
    until(lambda: any("4716" in line for line in podman.student.processes().values()), "its process")
    podman.ok("rm", "--force", "--time", "0", "shared")
    until(lambda: not any("471" in line for line in podman.student.processes().values()), "its end")


@pytest.mark.nightly
def test_a_terminal_has_its_container_s_owner(podman: Podman) -> None:
    said = podman.told("--tty", "--user", "33", "--", "sh", "-c", "tty; stat -c %u $(tty)")
    assert said.split() == ["/dev/pts/0", "33"]
