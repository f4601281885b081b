"""An ordinary user of this host, for tests: an account that exists in a mount namespace alone, so that the host's own
files stay as they are; with subordinate ids or without, with control groups of its own or without.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lab.host.cgroup import mounted
from lab.host.survey.virtualisation import platform
from lab.inside.build import program as helper

SLOT = os.getpid() % 1000  # what else runs tests on this host has another user
COUNT = 65_536
USER, FIRST = 20_002 + SLOT, 700_000 + (SLOT + 1) * COUNT
SLOTS = 1000
MOST = 30
"""Users that one test may have: their ids stay below nobody's, 65534, and those of lab's QEMUs."""
NAME = "lab-student"
TUN = Path("/dev/net/tun")
PROGRAM = ("-m", "lab.cli.main")
SECONDS = 120.0 * platform().patience
ENTER = """
folder=$1; shift
for name in passwd group subuid subgid; do mount --bind "$folder/$name" "/etc/$name"; done
if [ -c "$folder/tun" ]; then mount --bind "$folder/tun" /dev/net/tun; fi
# root's, as systemd mounts one: libvirt finds it wherever it is
mount -t hugetlbfs hugetlbfs "$folder/huge" 2> /dev/null || true
for group in $GROUPS_OF_STUDENT; do echo $$ > "$group/cgroup.procs"; done
cd "$folder/home"
exec $REFUSING setpriv --reuid "$STUDENT" --regid "$STUDENT" --clear-groups --inh-caps=-all "$@"
"""
GONE_SECONDS = 60.0 * platform().patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """One account, and its folders below ``folder``. ``groups`` are delegated to it, and its programs are in them."""

    folder: Path
    groups: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    user: int = USER
    first: int = FIRST
    """The first of ``COUNT`` subordinate ids."""
    refusing: str = ""
    """Words of a command that refuses something to the one behind it, which is the user's."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def store(self) -> Path:
        return self.home / ".local/share/lab"

    @property
    def runtime(self) -> Path:
        """The parent of all sessions' folders."""
        given = self.environment.get("XDG_RUNTIME_DIR", str(self.folder / "run"))
        return Path(given, "lab") if given else Path(f"/tmp/lab-{self.user}/lab")

    def begin(
        self, *words: str, program: Sequence[str] = (sys.executable, *PROGRAM), **more: str
    ) -> subprocess.Popen[str]:
        """Start ``program`` with these words, by default lab."""
        given = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.home), "TERM": "dumb",
            "XDG_RUNTIME_DIR": str(self.folder / "run"), **self.environment, **more,
        }  # fmt: skip
        inside = ["env", "-i", *(f"{name}={value}" for name, value in given.items()), *program, *words]
        entered = ["unshare", "--mount", "--propagation", "private", "bash", "-ec", ENTER, "-", str(self.folder)]
        told = os.environ | {
            "STUDENT": str(self.user),
            "GROUPS_OF_STUDENT": " ".join(map(str, self.groups)),
            "REFUSING": self.refusing,
        }
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*entered, *inside], env=told, text=True, **streams)  # type: ignore[call-overload]

    def lab(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run lab to its end."""
        process = self.begin(*words, **more)
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"lab {' '.join(words)} did not end: {out}{err}") from None
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def must(self, *words: str, **more: str) -> str:
        """What it prints, of a command that has to succeed."""
        done = self.lab(*words, **more)
        assert done.returncode == 0, f"lab {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def do(self, *words: str) -> str:
        """What a program prints, which has to succeed."""
        process = self.begin(*words[1:], program=words[:1])
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, f"{words}: {out}{err}"
        return out

    def kill(self, *words: str) -> None:
        """SIGKILL to those of its processes whose command line holds one of the words; without words to all."""
        for pid, line in self.processes().items():
            if not words or any(word in line for word in words):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
        wait_until(
            lambda: not any(not words or any(word in line for word in words) for line in self.processes().values())
        )

    def processes(self) -> dict[int, str]:
        """What lives and is the user's, or a subordinate one's: command lines by pid."""
        found = {}
        for place in Path("/proc").glob("[1-9]*"):
            with suppress(OSError, IndexError):
                status = (place / "status").read_text()
                user = int(status.partition("\nUid:")[2].split()[0])
                if (user == self.user or self.first <= user < self.first + COUNT) and "\nState:\tZ" not in status:
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def left(self) -> list[str]:
        """Processes, sessions, scratch folders and groups."""
        folders = [*self.runtime.glob("*"), *(self.store / "tmp").glob("*")]
        groups = [place for group in self.groups for place in group.parent.rglob("lab/*")]
        return [*self.processes().values(), *map(str, [*folders, *groups])]


@contextmanager
def enrolled(folder: Path, *, ids: bool = True, groups: Sequence[str] = (), number: int = 0) -> Iterator[Student]:
    """A student whose folders are below ``folder``, which everybody may pass; ``groups`` are v1 controllers' names,
    and "" the v2 tree's. Of several at once each has another ``number``. Whatever still runs at the end is killed.
    """
    assert number < MOST
    user, first = USER + number * SLOTS, FIRST + number * SLOTS * COUNT
    for name, line in (("passwd", f"{NAME}:x:{user}:{user}::/:/bin/sh"), ("group", f"{NAME}:x:{user}:")):
        (folder / name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
    for name in ("subuid", "subgid"):
        (folder / name).write_text(f"{NAME}:{first}:{COUNT}\n" if ids else "")
    if TUN.is_char_device() and not TUN.stat().st_mode & 0o002:  # everybody's on ordinary distributions
        os.mknod(folder / "tun", 0o666 | stat.S_IFCHR, TUN.stat().st_rdev)
        (folder / "tun").chmod(0o666)
    (folder / "huge").mkdir()
    for name in ("home", "run"):
        (folder / name).mkdir(mode=0o700)
        os.chown(folder / name, user, user)
    host = mounted.host()
    own = [Path(host.v1.get(name) or host.unified) / f"{NAME}-{user}" for name in groups]
    student = Student(folder=folder, groups=tuple(top / "shell" for top in own), user=user, first=first)
    try:
        for top in own:
            for group in (top, top / "shell"):
                group.mkdir()
                for place in (group, group / "cgroup.procs", group / "tasks", group / "cgroup.subtree_control"):
                    with suppress(FileNotFoundError):
                        os.chown(place, user, user)
        yield student
    finally:
        while found := student.processes():
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
        for top in filter(Path.exists, own):
            for group in sorted(top.rglob("*"), reverse=True):
                if group.is_dir():
                    group.rmdir()
            top.rmdir()
        shutil.rmtree(f"/tmp/lab-{user}", ignore_errors=True)  # where it has no runtime folder of its own


def archived(root: Path, path: Path) -> Path:
    """``root`` as a tar, in which one folder belongs to another than root."""
    owned = ["--mtime=@0", "--sort=name", "--owner=0", "--group=0"]
    subprocess.run(["tar", *owned, "-C", root, "-cf", path, "."], check=True)
    (root / "owned").mkdir()
    other = ["--mtime=@0", "--owner=99", "--group=98"]
    subprocess.run(["tar", *other, "-C", root, "-rf", path, "./owned"], check=True)
    (root / "owned").rmdir()
    return path


def import_into(student: Student, archive: Path) -> None:
    """The image, as small, and lab's helper, which takes a compiler ten seconds."""
    compiled = helper().parent
    copy = student.store / "inside" / compiled.name
    shutil.copytree(compiled, copy)
    for folder in (copy, *copy.rglob("*"), *list(copy.parents)[:4]):
        os.chown(folder, student.user, student.user)
    target = student.folder / "small.tar"
    target.write_bytes(archive.read_bytes())
    student.must("image", "import", str(target), "small")


def require_users(missing: Callable[[str], None]) -> None:
    """What it takes for an ordinary user to run lab here; ``missing`` is conftest's."""
    if shutil.which("newuidmap") is None:
        missing("newuidmap, of the package uidmap")
    if not can_read_lab():
        missing("checkout that others than root may read")


def wait_until(condition: Callable[[], bool], seconds: float = GONE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def can_read_lab() -> bool:
    """Whether others may read this checkout and what it runs on: below /root they may not."""
    words = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", sys.executable, *PROGRAM]
    return subprocess.run([*words, "--version"], capture_output=True, cwd="/", timeout=60).returncode == 0
