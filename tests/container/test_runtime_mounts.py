"""Mounts are complete before they are anywhere: whoever swaps their places in between gains nothing.

A race that is won once in twenty is no test. Here the swap comes at the worst moments, for certain: after every
system call that mounts something.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.runtime.rootfs.mounts import Bind, CgroupView, FileSystem, MakeReadOnly, Mask, Operation
from lab.runtime.rootfs.mounttrees import parameters

APPLY = """
import ctypes, json, os, socket, sys
from lab.host import syscalls
from lab.runtime.rootfs import mounts, rootpath

os.chdir(sys.argv[1])
ours, theirs = socket.socketpair()
if os.fork() == 0:  # only where they are no mount points can folders be renamed: in other mounts
    ours.close()
    while theirs.recv(1):
        result = ctypes.CDLL(None).renameat2(-100, b"root/data", -100, b"root/other", 2)
        theirs.send(b"." if result == 0 else b"!")
    os._exit(0)
theirs.close()
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
for name in ("mount", "move_mount"):
    def and_then_swap(*given, call=getattr(syscalls, name)):
        call(*given)
        ours.send(b"?")
        assert ours.recv(1) == b"."
    setattr(syscalls, name, and_then_swap)
root = rootpath.Root(os.path.abspath("root"))
for value in json.loads(sys.argv[2]):
    mounts.from_json(value).apply(root)
"""


def applied(folder: Path, operations: list[Operation], script: str) -> str:
    """What ``script`` prints where ``operations`` have been carried out in ``folder``/root, its folders swapped."""
    given = json.dumps([operation.to_json() for operation in operations])
    code = f"{APPLY}\nos.execvp('sh', ['sh', '-c', {script!r}])"
    words = [sys.executable, "-c", code, str(folder), given]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("source", "root/data", "root/other"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


READ_ONLY = (1, 0)  # MOUNT_ATTR_RDONLY to be set


def test_a_read_only_bind_mount_is_read_only_wherever_it_is(folder: Path) -> None:
    operations: list[Operation] = [
        FileSystem(target="/other", kind="tmpfs", source="tmpfs", flags=0, data=""),
        Bind(target="/data", source=str(folder / "source"), whole=True, attributes=READ_ONLY),
    ]
    applied(folder, operations, "touch root/data/written root/other/written; true")
    assert not list((folder / "source").iterdir())


def test_the_control_is_written_to(folder: Path) -> None:
    operations: list[Operation] = [Bind(target="/data", source=str(folder / "source"))]
    applied(folder, operations, "touch root/data/written root/other/written; true")
    assert list((folder / "source").iterdir())


def test_masks_are_put_where_the_mount_is_and_not_where_its_name_leads(folder: Path) -> None:
    """Whoever moves /proc away, empty, while it is masked, would have an unmasked one when it is back."""
    operations: list[Operation] = [
        FileSystem(target="/data", kind="proc", source="proc", flags=0, data=""),
        Mask(target="/data/interrupts"),
        Mask(target="/data/tty"),
        MakeReadOnly(target="/data/sys"),
    ]
    script = "for each in root/*/interrupts; do cat $each; done; ls root/*/tty; touch root/*/sys/kernel/hostname 2>&1"
    said = applied(folder, operations, f"{script}; true")
    assert "Read-only file system" in said
    assert len(said.splitlines()) == 1, "an interrupt, or a terminal's driver"


def test_a_view_of_the_cgroups_is_whole(folder: Path) -> None:
    """Each hierarchy's mount point is made in the file system that was mounted, and that is locked at last."""
    (folder / "cgroup" / "x").mkdir(parents=True)
    view = CgroupView(target="/data", controllers=("a,b",), flags=1, sources=(str(folder / "cgroup"),))
    said = applied(folder, [view], "ls root/*/a root/*/a,b; touch root/data/x root/other/x 2>&1; true")
    assert said.count("x\n") >= 2
    assert "Read-only file system" in said


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", []),
        ("size=4k,mode=755", [("size", "4k"), ("mode", "755")]),
        ("newinstance,,ptmxmode=0666", [("newinstance", None), ("ptmxmode", "0666")]),
        ('mode=1,context="a:s0:c1,c2"', [("mode", "1"), ("context", "a:s0:c1,c2")]),
        ("name=", [("name", "")]),
    ],
)
def test_the_words_of_a_file_system(data: str, expected: list[tuple[str, str | None]]) -> None:
    assert list(parameters(data)) == expected


LAYERED = """
import os, sys
from lab.host import syscalls
from lab.runtime.rootfs import mounttrees

os.chdir(sys.argv[1])
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
here = os.getcwd()
lower = ":".join(f"{here}/layers/{number}".replace("with:colon", r"with\\:colon") for number in sys.argv[2:])
before = len(os.listdir("/proc/self/fd"))
tree = mounttrees.file_system("overlay", "overlay", 0, f"lowerdir={lower},upperdir={here}/upper,workdir={here}/work")
assert (os.getcwd(), len(os.listdir("/proc/self/fd"))) == (here, before + 1)
print(sorted(os.listdir(f"/proc/self/fd/{tree}")))
try:
    mounttrees.file_system("overlay", "overlay", 0, f"lowerdir={lower}:{here}/absent")
except FileNotFoundError:
    assert (os.getcwd(), len(os.listdir("/proc/self/fd"))) == (here, before + 1)
    print("refused")
"""


@pytest.mark.parametrize("count", [1, 50])
def test_an_overlay_of_many_layers_with_long_names(tmp_path: Path, count: int) -> None:
    """fsconfig(2) takes 255 bytes a value: a container with four layers could not be given a volume over them."""
    names = [f"{number}-with:colon-{'x' * 60}" for number in range(count)]
    for number, name in enumerate(names):
        (tmp_path / "layers" / name).mkdir(parents=True)
        (tmp_path / "layers" / name / f"file-{number}").touch()
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    words = [sys.executable, "-c", LAYERED, str(tmp_path), *names]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{sorted(f'file-{number}' for number in range(count))}\nrefused\n"
