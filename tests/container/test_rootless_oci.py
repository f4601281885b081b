"""lab-oci by an ordinary user: containers in a user namespace, with the same answers as runc's where it has one."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oci import PROGRAMS, Config, Done
from students import COUNT, FIRST, USER, Student, can_read_lab, enrolled

from lab.host.cgroup import mounted
from lab.runtime.oci.steps import ALL, DIE_AT

BOTH = ("lab-oci", "runc")
GONE_SECONDS = 60.0
RUN = 'place=$1; shift; exec "$@" >"$place/out" 2>"$place/err"'
"""What it leaves behind then holds no pipe open."""
BY_DAY = ("start the first process", "note that it exists")
V1 = ("memory", "cpu", "cpuacct", "pids", "freezer")
LIMITED = {"memory": {"limit": 64 << 20}, "pids": {"limit": 20}}


@dataclass(slots=True)
class Oci:
    """One runtime, as the student calls it, with bundles of one root of the student's."""

    student: Student
    name: str
    count: int = 0
    spec: str = ""

    def __call__(self, *words: str, **more: str) -> Done:
        out = self.student.home / "told"
        out.mkdir(exist_ok=True)
        os.chown(out, USER, USER)
        program = ("sh", "-c", RUN, "-", str(out), *PROGRAMS[self.name])
        process = self.student.begin(*words, program=program, **more)
        process.communicate(timeout=250)
        return Done(code=process.returncode, out=(out / "out").read_text(), err=(out / "err").read_text())

    def ok(self, *words: str, **more: str) -> str:
        done = self(*words, **more)
        assert done.code == 0, f"{words}: exit code {done.code}: {done.err}"
        return done.out

    def bundle(self, script: str, edit: Callable[[Config], None] = lambda _config: None) -> str:
        """A new one, whose configuration ``spec --rootless`` has written, but for the process."""
        self.count += 1
        place = self.student.home / f"bundle{self.count}"
        place.mkdir()
        os.chown(place, USER, USER)
        path = place / "config.json"
        if not self.spec:
            self.ok("spec", "--rootless", "--bundle", str(place))
            self.spec = path.read_text()
        config = json.loads(self.spec)
        config["process"] |= {"terminal": False, "args": ["sh", "-c", script], "env": ["PATH=/bin"]}
        config["root"]["path"] = str(self.student.home / "rootfs")
        edit(config)
        path.write_text(json.dumps(config))
        return str(place)

    def told(self, script: str, edit: Callable[[Config], None] = lambda _config: None) -> str:
        return self.ok("run", "--bundle", self.bundle(script, edit), "told")

    def running(self, script: str = "sleep 1000", edit: Callable[[Config], None] = lambda _config: None) -> str:
        name = f"c{self.count}"
        self.ok("create", "--bundle", self.bundle(script, edit), name)
        self.ok("start", name)
        return name

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("state", name))
        return found

    @property
    def root(self) -> Path:
        return self.student.folder / "run" / self.name

    def left(self) -> list[str]:
        states = [path.name for path in self.root.glob("*")]
        groups = [str(place) for group in self.student.groups for place in group.parent.rglob("lab/*")]
        return [*self.student.processes().values(), *states, *groups]


@pytest.fixture
def place(missing: Callable[[str], None], busybox_root: Path) -> Iterator[Path]:
    """A folder that the user can reach, with a root that is the user's."""
    import tempfile

    if shutil.which("newuidmap") is None:
        missing("newuidmap, of the package uidmap")
    if shutil.which("runc") is None:
        missing("runc")
    if not can_read_lab():
        missing("checkout that others than root may read")
    with tempfile.TemporaryDirectory(prefix="lab-test-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def oci(student: Student, busybox_root: Path, name: str = "lab-oci") -> Oci:
    rootfs = student.home / "rootfs"
    if not rootfs.exists():
        shutil.copytree(busybox_root, rootfs, symlinks=True)
        subprocess.run(["chown", "-R", f"{USER}:{USER}", rootfs], check=True)
    return Oci(student, name)


@pytest.fixture
def student(place: Path) -> Iterator[Student]:
    with enrolled(place) as made:
        yield made


@pytest.fixture
def runtime(student: Student, busybox_root: Path) -> Iterator[Oci]:
    made = oci(student, busybox_root)
    yield made
    wait_until(lambda: made.left() == [], made.left)


def both_ids(config: Config) -> None:
    """Root and 65,535 others, as the user has them."""
    ranges = [{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": FIRST, "size": COUNT}]
    config["linux"] |= {"uidMappings": ranges, "gidMappings": ranges}


@pytest.mark.parametrize("writer", BOTH)
@pytest.mark.parametrize("name", BOTH)
def test_the_same_holds_inside_whoever_wrote_the_configuration_and_whoever_runs_it(
    student: Student, busybox_root: Path, name: str, writer: str
) -> None:
    script = """
        id -u; cat /proc/self/setgroups; wc -l < /proc/self/uid_map; readlink /proc/self/ns/net; echo $$
        for what in 'touch /proc/sys/kernel/hostname' 'echo x > /proc/sys/kernel/domainname' 'mknod /tmp/n c 1 3' \
            'mkdir -p /tmp/a; chown 1 /tmp/a' 'mount -t tmpfs none /tmp' 'touch /sys/kernel/x' \
            'umount /sys/fs/cgroup' 'chroot / mount -o remount,rw /sys' 'cat /proc/keys | grep .' 'hostname other'
        do (eval "$what") > /dev/null 2>&1 && echo "can $what"; done; ls -n /dev/null
    """
    written = Path(oci(student, busybox_root, writer).bundle(script))
    config = json.loads((written / "config.json").read_text())
    config["root"]["readonly"] = False
    (written / "config.json").write_text(json.dumps(config))
    run = oci(student, busybox_root, name)
    lines = run.ok("run", "--bundle", str(written), "told").splitlines()
    assert lines[:5] == ["0", "deny", "1", str(Path("/proc/self/ns/net").readlink()), "1"]
    assert lines[5:-1] == []
    assert lines[-1].split()[0] == "crw-rw-rw-"
    assert run.left() == []


@pytest.mark.parametrize("name", ["lab-oci", pytest.param("runc", marks=pytest.mark.nightly)])
def test_a_life_as_runc_has_it(student: Student, busybox_root: Path, name: str) -> None:
    run = oci(student, busybox_root, name)
    run.ok("create", "--bundle", run.bundle("trap 'exit 3' TERM; while :; do sleep 0.1; done"), "life")
    assert run.state("life")["status"] == "created"
    if name == "lab-oci":  # this runc finds no way into a container of an ordinary user's before its start
        assert run.ok("exec", "life", "id", "-u") == "0\n"
        assert os.statvfs(f"/proc/{run.state('life')['pid']}/exe").f_flag & os.ST_RDONLY
    run.ok("start", "life")
    known = run.state("life")
    assert known["status"] == "running"
    assert Path("/proc", str(known["pid"])).stat().st_uid == USER
    users = str(Path(f"/proc/{known['pid']}/ns/user").readlink())
    assert run.ok("exec", "life", "sh", "-c", "id -u; readlink /proc/self/ns/user").split() == ["0", users]
    assert run("exec", "life", "sh", "-c", "exit 9").code == 9
    assert run("delete", "life").code != 0
    assert run.root.stat().st_mode & 0o777 == 0o700
    run.ok("kill", "life", "TERM")
    wait_until(lambda: run.state("life")["status"] == "stopped")
    run.ok("delete", "life")
    run.ok("run", "--detach", "--bundle", run.bundle("sleep 1000"), "other")
    run.ok("exec", "--detach", "other", "sleep", "1000")
    run.ok("delete", "--force", "other")
    wait_until(lambda: run.left() == [], run.left)


def test_every_process_is_found_without_a_group(runtime: Oci) -> None:
    name = runtime.running("(sleep 71 &) ; sleep 72")
    runtime.ok("exec", "--detach", name, "sleep", "73")
    wait_until(lambda: len(json.loads(runtime.ok("ps", "--format", "json", name))) == 3)
    runtime.ok("kill", "--all", name, "KILL")
    wait_until(lambda: runtime.state(name)["status"] == "stopped")
    runtime.ok("delete", name)


def test_in_another_s_pid_namespace_a_kill_ends_what_has_left_its_parent(runtime: Oci) -> None:
    """Where runc 1.1 leaves it: nothing tells afterwards whose it was."""

    def shared(config: Config) -> None:
        linux = config["linux"]
        linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "pid"]
        config["mounts"][0] |= {"type": "none", "source": "/proc", "options": ["rbind"]}

    name = runtime.running("(sleep 71 &) ; exec sleep 72", edit=shared)
    wait_until(lambda: any("71" in line for line in runtime.student.processes().values()))
    runtime.ok("kill", name, "KILL")
    wait_until(lambda: runtime.student.processes() == {})
    runtime.ok("delete", name)


def test_subordinate_ids_own_files(runtime: Oci) -> None:
    name = runtime.running("mkdir -p /tmp/a && chown 33:44 /tmp/a && sleep 1000", edit=both_ids)
    made = runtime.student.home / "rootfs/tmp/a"
    wait_until(lambda: made.exists() and made.stat().st_uid != USER)
    assert (made.stat().st_uid, made.stat().st_gid) == (FIRST + 32, FIRST + 43)
    assert runtime.ok("exec", "--user", "33:44", name, "sh", "-c", "id -u; id -g; rmdir /tmp/a; ls -d /tmp/a") == (
        "33\n44\n/tmp/a\n"
    )
    runtime.ok("delete", "--force", name)
    made.rmdir()


def test_what_an_ordinary_user_can_t_have_is_refused_by_name(runtime: Oci) -> None:
    for edit, path in REFUSED:
        done = runtime("run", "--bundle", runtime.bundle("true", edit), "refused")
        assert done.code != 0
        assert path in done.err
        assert runtime.left() == []


def remove_users(config: Config) -> None:
    linux = config["linux"]
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "user"]
    del linux["uidMappings"], linux["gidMappings"]


def give_users(config: Config, path: str) -> None:
    remove_users(config)
    config["linux"]["namespaces"].append({"type": "user", "path": path})


REFUSED: list[tuple[Callable[[Config], None], str]] = [
    (remove_users, "linux.namespaces"),
    (lambda config: give_users(config, "/proc/self/ns/user"), "linux.namespaces"),
    (lambda config: config["linux"]["uidMappings"][0].update(hostID=0), "linux.uidMappings[0]"),
    (lambda config: config["linux"]["uidMappings"][0].update(hostID=USER + 1), "linux.uidMappings[0]"),
    (lambda config: config["linux"]["gidMappings"][0].update(size=2), "linux.gidMappings[0]"),
    (lambda config: config["linux"]["gidMappings"][0].update(hostID=FIRST - 1), "linux.gidMappings[0]"),
    (lambda config: config["linux"].update(resources={"memory": {"limit": 1 << 26}}), "resources.memory.limit"),
    (lambda config: config["linux"].update(resources={"pids": {"limit": 9}}), "resources.pids.limit"),
]


def test_what_needs_a_group_says_so(runtime: Oci) -> None:
    name = runtime.running()
    for words in (("pause", name), ("update", "--memory", "64m", name), ("events", "--stats", name)):
        done = runtime(*words)
        assert done.code == 1
        assert "docs/rootless.md" in done.err
    runtime.ok("delete", "--force", name)


def test_what_is_misspelled_is_refused(runtime: Oci) -> None:
    done = runtime("--rootless=yes", "list")
    assert (done.code, "--rootless" in done.err) == (2, True)
    assert runtime("--rootless=true", "list").code == 0
    assert "not root" in runtime("--rootless=false", "list").err


def test_limits_hold_in_groups_of_the_user_s(place: Path, busybox_root: Path, missing: Callable[[str], None]) -> None:
    host = mounted.host()
    if any(name not in host.v1 for name in V1):
        missing("cgroup v1 with the controllers that would be delegated")
    with enrolled(place, groups=[*V1, *([""] if host.unified else [])]) as student:
        run = oci(student, busybox_root)
        name = run.running(edit=lambda config: config["linux"].update(resources=LIMITED))
        show = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max"
        assert run.ok("exec", name, "sh", "-c", show).split() == [str(64 << 20), "20"]
        run.ok("pause", name)
        assert run.state(name)["status"] == "paused"
        run.ok("resume", name)
        run.ok("update", "--memory", "32m", name)
        stats = json.loads(run.ok("events", "--stats", name))
        assert stats["data"]["memory"]["usage"]["limit"] == 32 << 20
        assert run("exec", name, "tail", "/dev/zero").code == 137
        run.ok("delete", "--force", name)
        wait_until(lambda: run.left() == [], run.left)


def test_without_subordinate_ids_root_is_alone(place: Path, busybox_root: Path) -> None:
    with enrolled(place, ids=False) as student:
        run = oci(student, busybox_root)
        assert run.told("id -u; wc -l < /proc/self/uid_map").split() == ["0", "1"]
        done = run("run", "--bundle", run.bundle("true", both_ids), "refused")
        assert done.code != 0
        assert "linux.uidMappings[1]" in done.err
        assert run.left() == []


def test_hooks_are_the_user_s_and_run_at_every_verb(runtime: Oci) -> None:
    """As runc's, but that they find themselves root of lab-oci's namespace; none is anybody else on the host."""
    folder = runtime.student.home / "hooks"
    folder.mkdir()
    os.chown(folder, USER, USER)

    def hooks(config: Config) -> None:
        names = ("createRuntime", "createContainer", "poststart", "poststop")
        config["hooks"] = {
            name: [{"path": "/bin/sh", "args": ["sh", "-c", f"touch {folder}/{name}; id -u > {folder}/{name}"]}]
            for name in names
        }

    name = runtime.running(edit=hooks)
    runtime.ok("delete", "--force", name)
    found = {path.name: (path.read_text(), path.stat().st_uid) for path in folder.iterdir()}
    assert found == dict.fromkeys(("createRuntime", "createContainer", "poststart", "poststop"), ("0\n", USER))


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step in BY_DAY else pytest.mark.nightly) for step in ALL["create"][2:]]
)
def test_a_create_that_was_killed_is_deleted(runtime: Oci, step: str) -> None:
    runtime("create", "--bundle", runtime.bundle("sleep 1000", both_ids), "killed", **{DIE_AT: f"create: {step}"})
    runtime.ok("delete", "--force", "killed")


def test_nothing_of_the_outer_namespace_reaches_the_application(runtime: Oci) -> None:
    """Neither its descriptor, which the first process keeps while it waits, nor lab's variables."""
    name = runtime.running("cat /proc/self/environ; for one in /proc/1/fd/*; do readlink $one; done; sleep 1000")
    told = runtime.student.home / "told"
    assert "LAB" not in (told / "out").read_text()
    first = Path("/proc", str(runtime.state(name)["pid"]))
    assert {path.name for path in (first / "fd").iterdir()} == {"0", "1", "2"}
    assert b"LAB" not in (first / "environ").read_bytes()
    runtime.ok("delete", "--force", name)


def test_a_place_for_states_that_others_can_change_is_refused(runtime: Oci) -> None:
    folder = runtime.student.folder / "everybodys"
    folder.mkdir()
    folder.chmod(0o777)
    for words in (("list",), ("delete", "--force", "any")):
        done = runtime(*words, XDG_RUNTIME_DIR=str(folder))
        assert done.code == 1
        assert "everybodys" in done.err
    assert list(folder.iterdir()) == []


def test_a_place_for_states_that_another_user_has_made_first_is_refused(runtime: Oci) -> None:
    folder = Path(f"/tmp/lab-{USER}")
    folder.mkdir()
    try:
        os.chown(folder, USER + 1, USER + 1)
        for words in (("list",), ("kill", "any")):
            done = runtime(*words, XDG_RUNTIME_DIR="")
            assert done.code == 1
            assert str(folder) in done.err
        assert list(folder.iterdir()) == []
    finally:
        folder.rmdir()


def test_states_are_closed_to_others(runtime: Oci) -> None:
    name = runtime.running()
    for path in (runtime.root, *runtime.root.rglob("*")):
        assert path.stat().st_uid == USER
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    runtime.ok("delete", "--force", name)


def wait_until(condition: Callable[[], bool], found: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, found()
        time.sleep(0.05)
