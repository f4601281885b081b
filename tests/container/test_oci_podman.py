"""Podman with lab-oci as its runtime: what people type, on a root file system of busybox.

Podman keeps everything below a folder of the test's; conmon, podman's own monitor, is what holds each container.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import oci
import pytest
from oci import until

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.group import Group
from lab.host.cgroup.hierarchy import Unused, make_room

pytestmark = pytest.mark.alone  # podman mounts in the host's own namespace

# a host without CAP_SYS_RESOURCE can't give what podman asks for by default
ULIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
USERS = {"passwd": "root:x:0:0::/:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n", "group": "root:x:0:\nguest:x:1000:\n"}


@dataclass(frozen=True, slots=True)
class Podman:
    folder: Path
    rootfs: Path
    group: str

    def words(self, *arguments: str) -> list[str]:
        places = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        engine = ["--cgroup-manager=cgroupfs", "--events-backend=none", "--storage-driver=vfs"]
        runtime = ["--runtime", str(oci.LAB_OCI), "--tmpdir", str(self.folder / "tmp")]
        return ["podman", *places, *engine, *runtime, *arguments]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(*arguments), capture_output=True, text=True, timeout=250, check=False)

    def run(self, *arguments: str, network: str = "none") -> list[str]:
        """Arguments of ``podman run``: those given, with what every container here needs before the command."""
        at = next((number for number, word in enumerate(arguments) if word == "--"), 0)
        options, command = arguments[:at], arguments[at + 1 :]
        place = ["--cgroup-parent", f"/{self.group}", "--network", network, "--rootfs", str(self.rootfs)]
        return ["run", *ULIMITS, *options, *place, *command]

    def output(self, *arguments: str, network: str = "none") -> str:
        done = self(*self.run("--rm", *arguments, network=network))
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    group = f"lab/test-podman-{uuid.uuid4().hex[:8]}"
    make_room(f"{group}/any")
    with oci.opened("lab-oci") as runtime, tempfile.TemporaryDirectory(prefix="lab-podman-") as folder:
        for name, text in USERS.items():
            (runtime.rootfs / "etc" / name).write_text(text)
        used = Podman(Path(folder), runtime.rootfs, group)
        try:
            yield used
        finally:
            used("rm", "--all", "--force", "--time", "0")
            until(lambda: not Path(f"{folder}/root/storage.lock").exists() or unmounted(folder), "unmounting")
            everything = Group(group)
            everything.kill()
            everything.remove()
            ControlGroup.open(f"{group}/any", hierarchies=Unused.detect()).prune_parents()


def unmounted(folder: str) -> bool:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(folder):
            subprocess.run(["umount", line.split()[4]], check=False)
    return True


def test_run(podman: Podman) -> None:
    assert podman.output("--", "echo", "hello") == "hello\n"


@pytest.mark.parametrize(
    ("command", "code"), [(["sh", "-c", "exit 7"], 7), (["no-such-program"], 127), (["/etc/passwd"], 126)]
)
def test_exit_codes(podman: Podman, command: list[str], code: int) -> None:
    assert podman(*podman.run("--rm", "--", *command)).returncode == code


def test_a_life_in_the_background(podman: Podman) -> None:
    script = "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done"
    done = podman(*podman.run("-d", "--name", "life", "--", "sh", "-c", script))
    assert done.returncode == 0, done.stderr
    until(lambda: podman("logs", "life").stdout == "up\n", "its log")
    assert podman("exec", "life", "sh", "-c", "exit 3").returncode == 3
    assert podman("exec", "life", "no-such-program").returncode == 127
    as_guest = podman("exec", "--user", "guest", "--workdir", "/tmp", "life", "sh", "-c", "id -u; pwd")
    assert as_guest.stdout == "1000\n/tmp\n"
    assert podman("pause", "life").returncode == 0
    assert podman("inspect", "--format", "{{.State.Status}}", "life").stdout == "paused\n"
    assert podman("unpause", "life").returncode == 0
    assert podman("stop", "-t", "5", "life").returncode == 0
    assert podman("inspect", "--format", "{{.State.ExitCode}}", "life").stdout == "4\n"
    assert podman("rm", "life").returncode == 0


def test_a_terminal(podman: Podman) -> None:
    """podman talks to conmon, conmon holds the terminal's master, the terminal itself is the container's own."""
    master, terminal = pty.openpty()
    words = podman.words(*podman.run("--rm", "-it", "--", "sh", "-c", "tty; read word; echo got $word"))
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.close(terminal)
        said = b""
        while b"/dev/pts/0" not in said:
            said += os.read(master, 1000)
        os.write(master, b"typed\n")
        while b"got typed" not in said:
            said += os.read(master, 1000)
        assert process.wait(120) == 0
    os.close(master)


def test_limits(podman: Podman) -> None:
    group = Group("lab")
    files = {"memory": "memory/memory.limit_in_bytes", "cpu": "cpu/cpu.cfs_quota_us", "pids": "pids/pids.max"}
    if group.host.is_v2:
        files = {"memory": "memory.max", "cpu": "cpu.max", "pids": "pids.max"}
    options = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "50"]
    out = podman.output(*options, "--", "sh", "-c", f"cd /sys/fs/cgroup; cat {' '.join(files.values())}")
    assert out.split("\n")[0] == str(64 << 20)
    assert out.split("\n")[1].split()[0] == "50000"
    assert out.split("\n")[2] == "50"


def test_volumes(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from the host")
    assert podman.output("-v", f"{tmp_path}:/v", "--", "sh", "-c", "cat /v/given; touch /v/made") == "from the host"
    assert (tmp_path / "made").exists()
    done = podman(*podman.run("--rm", "-v", f"{tmp_path}:/v:ro", "--", "touch", "/v/refused"))
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


def test_a_read_only_root(podman: Podman) -> None:
    done = podman(*podman.run("--rm", "--read-only", "--", "touch", "/refused"))
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert podman.output("--read-only", "--", "sh", "-c", "touch /tmp/x && echo written") == "written\n"


def test_no_capabilities(podman: Podman) -> None:
    out = podman.output("--cap-drop", "all", "--", "grep", "Cap", "/proc/self/status")
    assert re.findall(r"\t(\w+)", out) == ["0" * 16] * 5


def test_a_profile_of_ones_own(podman: Podman, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    done = podman(*podman.run("--rm", "--security-opt", f"seccomp={profile}", "--", "mkdir", "/tmp/refused"))
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr


@pytest.mark.parametrize(("user", "ids"), [("guest", "1000 1000"), ("12:34", "12 34")])
def test_another_user(podman: Podman, user: str, ids: str) -> None:
    assert podman.output("--user", user, "--", "sh", "-c", "echo $(id -u) $(id -g)").strip() == ids


def test_the_hosts_network(podman: Podman) -> None:
    own = os.readlink("/proc/self/ns/net")  # noqa: PTH115
    assert podman.output("--", "readlink", "/proc/self/ns/net", network="host").strip() == own


def test_an_image(podman: Podman) -> None:
    packed = podman.folder / "root.tar"
    subprocess.run(["tar", "-C", podman.rootfs, "-cf", packed, "."], check=True)
    assert podman("import", str(packed), "tiny").returncode == 0
    words = [
        "run",
        *ULIMITS,
        "--rm",
        "--cgroup-parent",
        f"/{podman.group}",
        "--network=none",
        "tiny",
        "echo",
        "hello",
    ]
    done = podman(*words)
    assert done.stdout == "hello\n", done.stderr
