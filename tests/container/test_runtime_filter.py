"""Behind the system-call filter nothing of ours is called but execve(2): a profile is written for the application."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oci
import pytest
from oci import Runtime

PROGRAM = r"""
static long call(long number, long first, const void *second, long third) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second), "d"(third)
                     : "rcx", "r11", "memory");
    return result;
}
void _start(void) {
    call(1, 1, "ran\n", 4);
    call(231, 0, 0, 0);
}
"""
OF_THE_PROGRAM = ["write", "exit_group"]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    if platform.machine() != "x86_64":
        pytest.skip("the program is for x86-64")
    source: Path = tmp_path_factory.mktemp("program") / "program.c"
    source.write_text(PROGRAM)
    with oci.opened("lab-oci") as opened:
        words = ["gcc", "-nostdlib", "-static", "-O1", "-fno-stack-protector"]
        subprocess.run([*words, "-o", opened.rootfs / "bin" / "program", source], check=True, timeout=250)
        yield opened


def confined(*names: str, no_new_privileges: bool, uid: int) -> Any:
    """A change of a configuration: whoever makes another system call is killed."""

    def edit(config: dict[str, Any]) -> None:
        rules = [{"names": list(names), "action": "SCMP_ACT_ALLOW"}]
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": rules}
        config["process"]["noNewPrivileges"] = no_new_privileges
        config["process"]["user"] = {"uid": uid, "gid": uid}

    return edit


NEEDED = {True: ["execve"], False: ["execve", "capset"]}  # by no_new_privs


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("privileges", [True, False], ids=["no_new_privs", "privileges"])
def test_a_profile_of_the_programs_own_calls_is_enough(runtime: Runtime, privileges: bool, uid: int) -> None:
    edit = confined(*NEEDED[privileges], *OF_THE_PROGRAM, no_new_privileges=privileges, uid=uid)
    bundle = runtime.bundle("", "program", edit=edit)
    assert runtime.ok("run", "-b", bundle, runtime.new()) == "ran\n"


def test_exec_as_well(runtime: Runtime) -> None:
    """Into a container whose own process makes two calls more, to wait."""
    edit = confined("execve", "capset", *OF_THE_PROGRAM, no_new_privileges=True, uid=0)
    name = runtime.new()
    runtime.ok("create", "-b", runtime.bundle("", "program", edit=edit), name)
    assert runtime.ok("exec", name, "program") == "ran\n"
    runtime.ok("delete", "-f", name)


def test_the_control_is_killed(runtime: Runtime) -> None:
    edit = confined("execve", "exit_group", no_new_privileges=True, uid=0)
    done = runtime("run", "-b", runtime.bundle("", "program", edit=edit), runtime.new())
    assert done.code == 128 + 31, "SIGSYS"


def test_a_program_that_is_not_there_is_told_all_the_same(runtime: Runtime) -> None:
    edit = confined("execve", *OF_THE_PROGRAM, no_new_privileges=True, uid=1000)
    done = runtime("run", "-b", runtime.bundle("", "missing", edit=edit), runtime.new())
    assert done.code == 1
    assert "executable file not found" in done.err
