"""System calls as far as anybody may make them: results, and errors that say which call failed on what."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.host import syscalls


def test_an_error_names_its_call_and_its_object() -> None:
    with pytest.raises(OSError, match=r"openat2\(/no/such/file\): No such file") as caught:
        syscalls.openat2(-100, "/no/such/file", os.O_RDONLY, 0)
    assert caught.value.errno == errno.ENOENT


def test_openat2_stays_in_its_root(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    root = os.open(tmp_path, os.O_PATH)
    with pytest.raises(FileNotFoundError):
        syscalls.openat2(root, "/link/passwd", syscalls.O_PATH, syscalls.RESOLVE_IN_ROOT)
    opened = syscalls.openat2(root, "/../../link", syscalls.O_PATH | os.O_NOFOLLOW, syscalls.RESOLVE_IN_ROOT)
    assert not os.get_inheritable(opened)
    os.close(opened)
    os.close(root)


def test_prctl_and_its_errors() -> None:
    assert syscalls.prctl(3) in (0, 1)  # PR_GET_DUMPABLE
    with pytest.raises(OSError, match="prctl"):
        syscalls.prctl(99999)


def test_close_range_closes_both_ends() -> None:
    first = os.open(os.devnull, os.O_RDONLY)
    high = os.dup2(first, 900)
    os.dup2(first, 901)
    syscalls.close_range(900, 901)
    for descriptor in (high, 901):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    os.close(first)


CLONE = """
import os, signal, sys
from lab.host import syscalls
pid = syscalls.clone(signal.SIGCHLD)
if pid == 0:
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_clone_forks() -> None:
    assert subprocess.run([sys.executable, "-c", CLONE], check=False).returncode == 7


ALLOW_NO_UNAME = """
import errno, os
from lab.host import syscalls
from lab.runtime.seccomp.bpf import INSTRUCTION, Action
words = [(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, Action.ERRNO | errno.EDOM), (0x06, 0, 0, Action.ALLOW)]
program = b"".join(INSTRUCTION.pack(*each) for each in words)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.seccomp_filter(program)()
try:
    os.uname()
except OSError as error:
    raise SystemExit(error.errno)
"""


def test_a_filter_takes_effect() -> None:
    number = {"x86_64": 63, "aarch64": 160}[os.uname().machine]
    code = ALLOW_NO_UNAME.format(number=number)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == errno.EDOM


def test_capabilities_can_be_dropped_but_not_gained() -> None:
    code = "from lab.host import syscalls; syscalls.capset(effective=0, permitted=0, inheritable=0);"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    gain = code + "syscalls.capset(effective=1, permitted=1, inheritable=0)"
    done = subprocess.run([sys.executable, "-c", gain], check=False, capture_output=True, text=True)
    assert "PermissionError" in done.stderr
    assert "capset" in done.stderr


def test_the_small_process_imports_little() -> None:
    """Everything it imports is copied with every container, so heavy libraries are a fault, not a style."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(syscalls.__file__).parents[2])!r});"
        "from lab.runtime.spawner import spawner; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"typing", "pathlib", "subprocess", "shutil", "lzma", "threading", "logging", "asyncio"}
    ours = {name for name in loaded if name.startswith("lab.")}
    assert ours == {
        "lab.errors", "lab.host", "lab.host.cgroup", "lab.host.cgroup.descent", "lab.host.ctypes_shim",
        "lab.host.identity", "lab.host.identity.ownspace", "lab.host.procstat", "lab.host.syscalls", "lab.shims",
        "lab.record", "lab.runtime",
        "lab.runtime.process.account", "lab.runtime.channel", "lab.runtime.container", "lab.runtime.process.execve",
        "lab.runtime.init", "lab.runtime.rootfs.mounts", "lab.runtime.plan", "lab.runtime.process.privileges",
        "lab.runtime.rootfs.rootpath", "lab.runtime.spawner.spawner", "lab.runtime.rootfs.streams",
        "lab.runtime.rootfs.setup", "lab.runtime.process", "lab.runtime.rootfs", "lab.runtime.spawner",
        "lab.runtime.process.trampoline", "lab.runtime.rootfs.mounttrees", "lab.runtime.within",
        "lab.runtime.scripts", "lab.runtime.scripts.bearer", "lab.runtime.scripts.child",
        "lab.runtime.scripts.rootfs", "lab.runtime.scripts.script", "lab.runtime.seccomp",
        "lab.runtime.seccomp.calls", "lab.runtime.spawner.child", "lab.runtime.spawner.joining",
    }  # fmt: skip


def test_a_signal_number_is_a_flag_of_clone() -> None:
    assert not signal.SIGCHLD & syscalls.CLONE_NEWNS


RENAMES = """
import os
open("one", "w").close()
print("begun", flush=True)
while True:
    os.rename("one", "two")
    os.rename("two", "one")
"""


def test_a_path_is_looked_up_though_others_rename_files(tmp_path: Path) -> None:
    """Whatever is renamed on the host while a .. is followed makes the kernel answer EAGAIN (openat2(2))."""
    (tmp_path / "a").mkdir()
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    how = syscalls.RESOLVE_IN_ROOT
    with subprocess.Popen([sys.executable, "-c", RENAMES], cwd=tmp_path, stdout=subprocess.PIPE) as renaming:
        try:
            assert renaming.stdout is not None
            assert renaming.stdout.readline() == b"begun\n"
            for _ in range(3000):
                os.close(syscalls.openat2(root, "a/../a/../a", os.O_PATH, how))
        finally:
            renaming.kill()
            os.close(root)
