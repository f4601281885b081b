"""CVE-2019-5736: what a container can get hold of through /proc/self/exe is never the host's interpreter."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import oci
import pytest
from oci import Runtime

import lab
from lab.runtime import init
from lab.runtime.rootfs import mounts, setup

EVIL = "#!/proc/self/exe\nprint('the interpreter of the host')\n"


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with oci.opened("lab-oci") as opened:
        evil = opened.rootfs / "evil"
        evil.write_text(EVIL)
        evil.chmod(0o755)
        yield opened


def test_a_program_that_is_whoever_executes_it(runtime: Runtime) -> None:
    done = runtime("run", "-b", runtime.bundle("", "/evil"), runtime.new())
    assert done.code == 126
    assert done.out == ""
    assert "can't be executed" in done.err


def test_the_same_beside_the_first_process(runtime: Runtime) -> None:
    name = runtime.running()
    done = runtime("exec", name, "/evil")
    assert done.code == 126
    assert "can't be executed" in done.err
    runtime.ok("delete", "-f", name)


def test_one_more_process_is_scheduled_as_the_first(runtime: Runtime) -> None:
    """Its parent sees to that, since it has no power left to do so when it is born."""
    name = runtime.running(
        edit=lambda config: config["process"].update(scheduler={"policy": "SCHED_BATCH", "nice": 3})
    )
    assert runtime.ok("exec", name, "awk", "{print $19, $41}", "/proc/self/stat").split() == ["3", "3"]
    runtime.ok("delete", "-f", name)


def test_a_waiting_process_can_not_be_looked_into(runtime: Runtime) -> None:
    """The interpreter is still in memory there: only who may trace any process of the host sees it."""
    name = runtime.new()
    runtime.ok("create", "-b", runtime.bundle("true"), name)
    pid = runtime.state(name)["pid"]
    assert Path(f"/proc/{pid}/status").stat().st_uid == 0
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        try:
            os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    runtime.ok("delete", "--force", name)


RIGHTS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")


def rights(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return {name: told[name].strip() for name in RIGHTS}


def waiting(runtime: Runtime, edit: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    """The rights of a container's first process that was created and not started."""
    name = runtime.new()
    runtime.ok("create", "-b", runtime.bundle("true", edit=edit), name)
    try:
        return rights(int(runtime.state(name)["pid"]))
    finally:
        runtime.ok("delete", "--force", name)


@pytest.mark.parametrize("uid", [0, 1000])
def test_who_waits_for_its_start_has_the_rights_that_runc_leaves_it(runtime: Runtime, uid: int) -> None:
    """Another container that shares its process namespace, and may trace there, could take whatever more it had."""

    def edit(config: dict[str, Any]) -> None:
        config["process"]["noNewPrivileges"] = False
        config["process"]["user"] = {"uid": uid, "gid": uid, "additionalGids": [7]}

    with oci.opened("runc") as other:
        theirs = waiting(other, edit)
    assert waiting(runtime, edit) == theirs
    assert (theirs["Seccomp"], theirs["Uid"].split()[0]) == ("2", str(uid))


def test_where_its_filter_does_not_let_it_wait_it_waits_before_that(runtime: Runtime) -> None:
    """It may not even exit: of such a profile nothing is executed, but the container is created and ends."""

    def edit(config: dict[str, Any]) -> None:
        profile = config["linux"]["seccomp"]
        for rule in profile["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name != "accept4"]
        profile["syscalls"].append({"names": ["accept4"], "action": "SCMP_ACT_KILL_PROCESS"})

    found = waiting(runtime, edit)
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("0", "1")
    assert runtime.ok("run", "-b", runtime.bundle("echo ran", edit=edit), runtime.new()) == "ran\n"


def test_a_hook_inside_finds_no_more_rights_beside_it(runtime: Runtime) -> None:
    """What traces the first process while hooks run, before the application is executed, gets nothing new."""

    def edit(config: dict[str, Any]) -> None:
        config["process"]["noNewPrivileges"] = False
        told = "cat /proc/1/status > /tmp/first; cat /proc/self/status > /tmp/hook"
        config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", told]}]}

    place = runtime.rootfs / "tmp"
    runtime.ok("run", "-b", runtime.bundle("true", edit=edit), runtime.new())
    first, hook = (
        dict(line.split(":", 1) for line in (place / name).read_text().splitlines()) for name in ("first", "hook")
    )
    assert {name: first[name] for name in RIGHTS} == {name: hook[name] for name in RIGHTS}
    assert first["Seccomp"].strip() == "2"


@pytest.mark.alone  # runsc gives the null device that it was started with its own mode and owner once more
def test_the_hosts_null_device_can_not_be_changed(runtime: Runtime) -> None:
    """Its owner is the container's root as well, who would shut it to everybody: chmod 0 /proc/self/fd/0."""
    script = "for name in /dev/stdin /dev/stdout /dev/stderr /proc/keys /proc/timer_list; do chmod 666 $name; done"

    def ask(words: list[str]) -> None:
        with Path("/dev/null").open("r+b", buffering=0) as null:
            subprocess.run(runtime.words(*words), stdin=null, stdout=null, stderr=null, check=False, timeout=250)

    before = Path("/dev/null").stat()
    ask(["run", "-b", runtime.bundle(script), runtime.new()])
    name = runtime.running()
    ask(["exec", name, "sh", "-c", script])
    runtime.ok("delete", "-f", name)
    assert Path("/dev/null").stat().st_ctime_ns == before.st_ctime_ns, "666 is what it was, and yet it was written"


def _in_users_of_the_hosts_root(config: dict[str, Any]) -> None:
    linux = config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    linux["devices"] = [{"path": "/dev/other-zero", "type": "c", "major": 1, "minor": 5}]
    linux.pop("sysctl", None)  # Docker's gives the right to ping to groups that are not in this map
    config["process"]["terminal"] = True


@pytest.mark.alone
def test_no_device_of_the_host_can_be_changed_where_root_of_a_user_namespace_owns_it(runtime: Runtime) -> None:
    """In a user namespace no device can be made: they are the host's, and work as ever."""
    names = [Path("/dev", name) for name in mounts.DEVICES]
    before = [name.stat().st_ctime_ns for name in names]
    script = (
        "for name in null zero full random urandom tty other-zero; do"
        " chmod 666 /dev/$name; chown 0 /dev/$name; touch /dev/$name; done 2>&1 | grep -c 'Read-only file system'\n"
        "echo one >/dev/null && head -c 4 /dev/zero | wc -c; head -c 4 /dev/other-zero | wc -c; echo two >/dev/tty\n"
        "head -c 4 /dev/urandom | wc -c; echo x 2>/dev/null >/dev/full || echo full; exec 3<>/dev/ptmx && echo pair"
    )
    done = runtime("run", "-b", runtime.bundle(script, edit=_in_users_of_the_hosts_root), runtime.new())
    assert done.code == 0, done.err
    assert done.out.split() == ["21", "4", "4", "two", "4", "full", "pair"]
    assert [name.stat().st_ctime_ns for name in names] == before


def test_its_own_null_device_is_open_as_anybody_would_open_it(runtime: Runtime) -> None:
    """O_NOFOLLOW would stay with the descriptor, and criu open it so again, by a link: no saved container went on."""
    words = runtime.words("run", "-b", runtime.bundle("grep flags /proc/self/fdinfo/0"), runtime.new())
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=250)
    flags = int(done.stdout.split()[1], 8)
    assert flags & (os.O_NOFOLLOW | os.O_NONBLOCK) == 0
    assert flags & os.O_ACCMODE == os.O_RDWR, "it is the container's, no more the caller's"


LATE = """
import sys
sys.path.append({source!r})
from lab.runtime.rootfs import setup
setup.import_no_more()
try:
    import colorsys
except ImportError:
    print("missed")
"""


def test_no_module_is_read_from_the_containers_files() -> None:
    """An image may hold files by the names of the interpreter's own. A start takes this step before its new root."""
    code = LATE.format(source=str(Path(lab.__file__).parents[1]))
    words = [oci.BASE_INTERPRETER, "-I", "-S", "-c"]
    assert subprocess.run([*words, code], capture_output=True, text=True, check=True).stdout == "missed\n"
    control = code.replace("setup.import_no_more()", "")
    assert subprocess.run([*words, control], capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize("function", [setup.enter_root, setup.join_namespaces, init.run_exec])
def test_who_enters_takes_it(function: Callable[..., None]) -> None:
    assert "import_no_more" in function.__code__.co_names
