"""What a container sees of its configuration: the same under lab's runtime as under runc."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import RUNTIMES, Bundle, both, configuration, installed
from host_state import assert_unchanged, snapshot
from roots import fill, open_folder


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with open_folder() as folder:
        (folder / "rootfs").mkdir()
        fill(folder / "rootfs")
        yield Bundle(folder=folder, value=configuration())


@pytest.fixture
def compared(bundle: Bundle) -> Bundle:
    """For tests that need the reference."""
    if not installed("runc"):
        pytest.skip("runc is not installed")
    return bundle


MOUNT_LINE = re.compile(r"^\S+ \S+ \S+ (\S+) (\S+) (\S+) (.*?)- (\S+)", re.MULTILINE)


def mounts(text: str) -> list[tuple[str, ...]]:
    """Place, options, propagation and type of every mount (proc_pid_mountinfo(5)), without the numbers."""
    found = []
    for _, place, options, propagation, kind in MOUNT_LINE.findall(text):
        found.append((place, ",".join(sorted(options.split(","))), re.sub(r":\d+", "", propagation).strip(), kind))
    return found


def alike(text: str) -> list[tuple[str, ...]]:
    """The same, but that runc 1.1.5 lets the root hear of the host's mounts, and later ones do not."""
    return [(place, options, "" if place == "/" else heard, kind) for place, options, heard, kind in mounts(text)]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["ro"],
        ["nosuid", "nodev", "noexec"],
        ["noatime", "nodiratime"],
        ["strictatime"],
        ["relatime", "sync", "dirsync"],
        ["ro", "rw", "nosuid", "suid", "size=4k", "mode=700"],
        ["lazytime", "nolazytime", "silent"],
    ],
    ids=",".join,
)
def test_options_of_a_new_file_system(compared: Bundle, options: list[str]) -> None:
    (compared.root / "here").mkdir(mode=0o711)
    compared.mount("/here", type="tmpfs", source="tmpfs", options=options)
    compared.script("cat /proc/self/mountinfo; busybox stat -c %a /here")
    ours, theirs = both(compared)
    assert alike(ours.output) == alike(theirs.output)
    assert ours.output.split()[-1] == ("700" if "mode=700" in options else "711"), (
        "as what it covers, or as asked for"
    )


@pytest.mark.parametrize(
    "options",
    [
        ["bind"],
        ["rbind", "ro"],
        ["rbind", "rro"],
        ["rbind", "rnosuid", "rnoexec", "rnodev", "rnoatime"],
        ["bind", "nosuid", "nodev", "noexec"],
        ["bind", "noatime"],
        *(["rbind", kind] for kind in ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable")),
    ],
    ids=",".join,
)
def test_options_of_a_bind_mount(compared: Bundle, options: list[str]) -> None:
    """On a tree of two mounts, so that what goes for one and what goes for all below it can be told apart."""
    source = compared.folder / "source"
    source.mkdir()
    compared.mount("/bound", source="source", options=options)
    compared.script("cat /proc/self/mountinfo")
    place, below = f"mount -t tmpfs lab-test {source}", f"{source}/below"
    ours, theirs = both(
        compared, prefix=in_own_mounts(f"{place} && mkdir {below} && mount -t tmpfs lab-test {below}")
    )
    assert "/bound/below" in ours.output or "rbind" not in options
    assert alike(ours.output) == alike(theirs.output)


def in_own_mounts(script: str) -> list[str]:
    """Words in front of a command, for a mount namespace of the test's own that ``script`` has changed."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{script} && exec "$@"', "sh"]


@pytest.mark.parametrize("kind", ["private", "rprivate", "slave", "rslave"])
def test_propagation_of_the_root(compared: Bundle, kind: str) -> None:
    compared.value["linux"]["rootfsPropagation"] = kind
    compared.script("head -n 1 /proc/self/mountinfo")
    ours, theirs = both(compared, prefix=in_own_mounts("mount --make-rshared /"))
    assert alike(ours.output) == alike(theirs.output)
    assert mounts(ours.output)[0][2] == "", "what the host mounts below its directory is not for the container"


@pytest.mark.parametrize("kind", ["shared", "rshared", "unbindable"])
def test_propagation_of_the_root_that_the_reference_forgets(bundle: Bundle, kind: str) -> None:
    """runc 1.1 binds the root to itself after it has set these, on the mount below."""
    bundle.value["linux"]["rootfsPropagation"] = kind
    bundle.script("head -n 1 /proc/self/mountinfo")
    ended = bundle.run("lab-oci", prefix=in_own_mounts("mount --make-rshared /"))
    assert mounts(ended.output)[0][2] == kind.removeprefix("r")


def test_a_shared_root_leaves_the_mounts_around_it_alone(bundle: Bundle) -> None:
    """Unmounting the old root must not reach those who share it."""
    bundle.value["linux"]["rootfsPropagation"] = "rshared"
    script = "mount --make-rshared / && cat /proc/self/mountinfo > $1 && shift"
    after = ["sh", "-c", '"$@" && cat /proc/self/mountinfo', "sh"]
    before = bundle.folder / "before"
    ended = bundle.run("lab-oci", prefix=[*in_own_mounts(script), str(before), *after])
    assert ended.output == before.read_text()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_root_can_be_entered_without_pivot_root(bundle: Bundle, runtime: str) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    bundle.script("ls /; ls /proc/1/root/")
    there = ["bin", "dev", "proc", "tmp"]
    assert bundle.run(runtime, "--no-pivot").output.split() == there * 2


def test_without_a_cgroup_namespace_its_own_groups_are_shown(bundle: Bundle) -> None:
    linux = bundle.value["linux"]
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] != "cgroup"]
    bundle.mount("/sys/fs/cgroup", type="cgroup", source="cgroup", options=["ro"])
    each = "[ -e $d/cgroup.procs ] || continue; cat $d/cgroup.procs | head -n 1; mkdir $d/x 2>&1"
    bundle.script(f"cd /sys/fs/cgroup; for d in pids .; do {each}; done")
    first, *others = bundle.run("lab-oci", check=False).output.splitlines()
    assert first == "1", "its own first process, and nothing of the host's"
    assert others
    assert all("Read-only file system" in line for line in others)


def test_a_tmpfs_takes_along_what_it_covers(compared: Bundle) -> None:
    place = compared.root / "kept"
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "file").write_text("text")
    os.chown(place / "deep" / "file", 7, 8)
    (place / "deep" / "file").chmod(0o4755)
    (place / "link").symlink_to("deep/file")
    place.chmod(0o1750)
    compared.mount("/kept", type="tmpfs", source="tmpfs", options=["tmpcopyup"])
    compared.script("cat /kept/link; cd /kept; busybox stat -c '%n %a %u %g %s %F' . deep deep/file link")
    ours, theirs = both(compared)
    assert "deep/file 4755 7 8 4 regular file" in ours.output
    assert sorted(ours.output.splitlines()[1:]) == sorted(theirs.output.splitlines()[1:])


SEEN = {
    "limits": "cat /proc/self/limits",
    "capabilities": "grep -E 'Cap|NoNewPrivs' /proc/self/status",
    "user": "id; umask; pwd; env | grep -v HOME | sort; grep Groups /proc/self/status",
    "names": "hostname; cat /proc/sys/kernel/domainname",
    "score": "cat /proc/self/oom_score_adj",
    "namespaces": "ls /proc/self/ns | sort; ls -l /proc/self/fd | wc -l",
    "devices": "ls -l /dev | awk '{print $1, $3, $4, $5, $6, $NF}' | grep -v -e core -e pts | sort",
    "settings": "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward",
    "hidden": "cat /proc/kcore | wc -c; ls /proc/acpi 2>&1; "
    "touch /proc/sys/x 2>&1; touch /proc/bus/x 2>&1; touch /x 2>&1; true",
}  # fmt: skip


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_process_sees_what_it_was_given(compared: Bundle, uid: int) -> None:
    process, linux = compared.value["process"], compared.value["linux"]
    process["user"] = {"uid": uid, "gid": 5, "additionalGids": [7, 9], "umask": 0o27}
    process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1},
        {"type": "RLIMIT_LOCKS", "soft": 5, "hard": 6},
    ]
    process["oomScoreAdj"] = 300
    process["cwd"] = "/tmp"
    process["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    linux["sysctl"] = {"kernel.msgmax": "4096", "net.ipv4.ip_forward": "1"}
    linux["maskedPaths"] = ["/proc/kcore", "/proc/acpi", "/proc/no-such-file"]
    linux["readonlyPaths"] = ["/proc/sys", "/proc/bus", "/proc/no-such-file"]
    linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
    ]
    compared.value["root"]["readonly"] = True
    (compared.root / "tmp").chmod(0o1777)
    compared.script("; ".join(f"echo {name}; {command}" for name, command in SEEN.items()))
    ours, theirs = both(compared)
    assert ours.output == theirs.output
    assert "Max open files            100                  200" in ours.output
    assert "umask" not in ours.errors


def test_a_user_namespace(compared: Bundle) -> None:
    """On a root that keeps its owners: whoever is not in the map is nobody."""
    for name in ("proc", "dev", "sys"):
        (compared.root / name).mkdir()
    linux = compared.value["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 200_000, "size": 1000}]
    linux["maskedPaths"], linux["readonlyPaths"] = ["/proc/kcore", "/proc/scsi"], ["/proc/sys"]
    compared.value["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]
    compared.mount("/sys", type="sysfs", source="sysfs", options=["nosuid", "noexec", "nodev", "ro"])
    compared.script("id; cat /proc/self/uid_map; ls -ln /dev /bin/busybox | grep -v core; cat /proc/self/mountinfo")
    ours, theirs = both(compared)
    found = [
        (place, options.replace(",rw", ",ro") if kind == "devtmpfs" else options, peers, kind)
        for place, options, peers, kind in alike(theirs.output)
    ]
    assert found != alike(theirs.output), "runc binds the host's nodes so that they can be changed"
    assert sorted(alike(ours.output)) == sorted(found), "and binds them last"
    assert lines_without_mounts(ours.output) == lines_without_mounts(theirs.output)


def lines_without_mounts(text: str) -> list[str]:
    """A listing's times, and a directory's size, are left out."""
    lines = [line for line in text.splitlines() if not MOUNT_LINE.match(line) and not line.startswith("total")]
    return [" ".join(line.split()[:4] + line.split()[-1:]) for line in lines]


def test_what_can_not_be_granted_is_told(bundle: Bundle) -> None:
    bundle.value["process"]["capabilities"]["ambient"] = ["CAP_KILL"]
    bundle.script("grep CapAmb /proc/self/status")
    ended = bundle.run("lab-oci")
    assert ended.output.split()[1] == "0" * 16, "as it is not inheritable"
    assert "process.capabilities.ambient: CAP_KILL can't be granted" in ended.log


def test_the_domain_name_and_the_persona(bundle: Bundle) -> None:
    """The runc of Debian 12 is older than both."""
    bundle.value |= {"domainname": "example"}
    bundle.value["linux"]["personality"] = {"domain": "LINUX32"}
    bundle.script("cat /proc/sys/kernel/domainname /proc/self/personality; uname -m")
    assert bundle.run("lab-oci").output.split()[:2] == ["example", "00000008"]


def test_scheduling(bundle: Bundle) -> None:
    bundle.value["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    bundle.value["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    bundle.script("awk '{print $19, $41}' /proc/self/stat; ionice -p $$")
    assert bundle.run("lab-oci").output.split() == ["7", "3", "idle"]


def test_clocks_of_its_own(bundle: Bundle) -> None:
    linux = bundle.value["linux"]
    linux["namespaces"].append({"type": "time"})
    linux["timeOffsets"] = {"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 0}}
    bundle.script("cat /proc/uptime /proc/self/timens_offsets")
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    inside, *rest = bundle.run("lab-oci").output.split()
    assert float(inside) >= uptime + 1_000_000
    assert rest[-2:] == ["1000000", "5"]


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "time"])
def test_namespaces_given_by_path(bundle: Bundle, kind: str) -> None:
    flag = {"network": "net"}.get(kind, kind)
    holder = subprocess.Popen(["unshare", f"--{flag}", "--fork", "sleep", "1000"])
    try:
        place = Path(f"/proc/{holder.pid}/ns/{flag}")
        child = wait_for_child(holder.pid)
        place = Path(f"/proc/{child}/ns/{flag}")
        spaces = [space for space in bundle.value["linux"]["namespaces"] if space["type"] != kind]
        bundle.value["linux"]["namespaces"] = [*spaces, {"type": kind, "path": str(place)}]
        if kind == "uts":
            del bundle.value["hostname"]
        bundle.script(f"busybox readlink /proc/self/ns/{flag}")
        assert bundle.run("lab-oci").output.strip() == str(place.readlink())
    finally:
        subprocess.run(["kill", "-9", str(child)], check=False)
        holder.wait()


def wait_for_child(pid: int) -> int:
    while True:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "sleep":
            return int(found[0])


HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hook(bundle: Bundle, name: str, text: str = "", **fields: object) -> dict[str, object]:
    """Notes its name, its namespaces' relation to ours, and its state's pid and status."""
    log = bundle.folder / "log"
    inside = name == "startContainer"
    shell = "/bin/sh" if inside else shutil.which("busybox")
    words = ["sh"] if inside else ["busybox", "sh"]
    place = "/log/log" if inside else str(log / "log")
    script = f"cat > {Path(place).parent}/{name}.json; "
    script += f"echo {name} $(readlink /proc/self/ns/uts) $VARIABLE >> {place}; {text}"
    return {"path": shell, "args": [*words, "-c", script], "env": ["PATH=/bin:/usr/bin", "VARIABLE=v"], **fields}


@pytest.fixture
def hooked(bundle: Bundle) -> Bundle:
    (bundle.folder / "log").mkdir()
    bundle.mount("/log", source=str(bundle.folder / "log"), options=["bind"])
    bundle.value["hooks"] = {name: [hook(bundle, name)] for name in HOOKS}
    bundle.value["annotations"] = {"key": "value"}
    bundle.script("echo application >> /log/log")
    return bundle


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_hooks_run_in_order_and_in_their_namespaces(hooked: Bundle, runtime: str) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    hooked.run(runtime)
    here = str(Path("/proc/self/ns/uts").readlink())
    lines = [line.split() for line in (hooked.folder / "log" / "log").read_text().splitlines()]
    order = [line[0] for line in lines]
    assert [name for name in order if name != "poststart"] == [
        "prestart", "createRuntime", "createContainer", "startContainer", "application", "poststop",
    ]  # fmt: skip
    if runtime == "lab-oci":  # runc does not wait
        assert order.index("poststart") > order.index("startContainer")
    for name, host, variable in (line for line in lines if line[0] != "application"):
        assert variable == "v"
        assert (host == here) == (name in ("prestart", "createRuntime", "poststart", "poststop")), name
    states = {name: json.loads((hooked.folder / "log" / f"{name}.json").read_text()) for name in HOOKS}
    for name, state in states.items():
        assert state["bundle"] == str(hooked.folder), name
        assert state["annotations"] == {"key": "value"}
    assert {states[name]["pid"] for name in ("createContainer", "startContainer")} == {1}
    assert states["prestart"]["pid"] == states["createRuntime"]["pid"] > 1
    assert [states[name]["status"] for name in ("createContainer", "startContainer", "poststop")] == [
        "creating", "created", "stopped",
    ]  # fmt: skip


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", HOOKS[:4])
def test_a_hook_that_fails_before_the_application_ends_the_container(hooked: Bundle, runtime: str, name: str) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    before = snapshot()
    hooked.value["hooks"][name] = [hook(hooked, name, "echo broken >&2; exit 7")]
    ended = hooked.run(runtime, check=False)
    assert ended.exit_code != 0
    assert "broken" in ended.errors
    assert "application" not in (hooked.folder / "log" / "log").read_text()
    assert_unchanged(before)


@pytest.mark.parametrize("name", HOOKS[4:])
def test_a_hook_that_fails_after_it_is_only_told(hooked: Bundle, name: str) -> None:
    hooked.value["hooks"][name].insert(0, hook(hooked, name, "echo broken >&2; exit 7"))
    ended = hooked.run("lab-oci")
    assert f"{name} hook" in ended.log
    assert (hooked.folder / "log" / "log").read_text().split().count(name) == 2, "the next one runs all the same"


def test_a_hook_that_takes_too_long_is_killed(hooked: Bundle) -> None:
    hooked.value["hooks"]["createRuntime"] = [hook(hooked, "createRuntime", "sleep 100", timeout=1)]
    ended = hooked.run("lab-oci", check=False)
    assert ended.exit_code != 0
    assert "not done within 1 s" in ended.errors


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hostname": 5}, "hostname is not a string"),
        ({"process": {"args": [], "cwd": "/"}}, "process.args is empty"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}, "linux.namespaces[1] is there twice"),
        ({"linux": {"namespaces": [{"type": "mount"}], "memoryPolicy": {}}}, "linux.memoryPolicy.mode is missing"),
    ],
)
def test_a_wrong_configuration_is_told_before_anything_is_made(
    bundle: Bundle, change: dict[str, object], complaint: str
) -> None:
    before = snapshot()
    bundle.value |= change
    ended = bundle.run("lab-oci", check=False)
    assert ended.exit_code in (1, 2)
    assert f"config.json: {complaint}" in ended.errors
    assert not list((bundle.folder / "state").glob("*"))
    assert_unchanged(before)
