"""A Docker Engine of the tests' own, with lab-oci and runc as its runtimes, and one way to ask it for something.

It is the one of `lab bench self` (`lab.backends.engine.dockerd`), which leaves nothing behind. Where systemd
owns the control groups, the daemon asks it for them (``native.cgroupdriver=systemd``), and a scope holds what belongs
to it.

Whoever starts an engine holds its folder's lock. A folder whose lock nobody holds belongs to tests that were killed:
the next engine removes it, its control group and its scope first.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from oci import LAB_OCI, until

from lab.backends.engine import dockerd
from lab.host.cgroup import delegation
from lab.host.cgroup.group import Group
from lab.host.cgroup.hierarchy import Unused, make_room
from lab.host.cgroup.mounted import host

RUNTIMES = ("lab-oci", pytest.param("runc", marks=pytest.mark.nightly))
"""runc shows that a test asks for nothing that Docker does not give; it changes with Debian's package alone."""
IMAGE = "tiny"
PREFIX = "lab-docker-"
SECONDS = 180.0

FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n",
    "etc/group": "root:x:0:\nguest:x:1000:\nteam:x:2000:guest\nextra:x:3000:\n",
    "srv/given": "from the image\n",
}
FOLDERS = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "srv": 0o755, "sys": 0o755,
           "root": 0o700, "tmp": 0o1777}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return f"exit code {self.code}: {self.out}{self.err}"


@dataclass(slots=True)
class Engine:
    """The daemon that runs."""

    folder: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    shared: dict[str, str] = field(default_factory=dict)
    """By runtime: a container that many tests ask, and none changes."""

    def words(self, *arguments: str) -> list[str]:
        return dockerd.client(self.folder, *arguments)

    def __call__(self, *arguments: str, stdin: str = "", timeout_seconds: float = SECONDS) -> Done:
        """One ``docker …``, to its end."""
        done = subprocess.run(
            self.words(*arguments), input=stdin.encode(), capture_output=True, timeout=timeout_seconds, check=False
        )
        return Done(
            code=done.returncode, out=done.stdout.decode(errors="replace"), err=done.stderr.decode(errors="replace")
        )

    @property
    def daemon(self) -> int:
        """The pid of a process in the daemon's namespaces, as this process knows it."""
        if delegation.here():
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def beside(self, *command: str) -> str:
        """The output of a program in the daemon's own namespaces: what an administrator of its host would see."""
        namespaces = ["--mount", "--net", "--ipc", "--uts", *([] if delegation.here() else ["--pid"])]
        words = ["nsenter", "--target", str(self.daemon), *namespaces, *command]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS).stdout

    def end(self) -> None:
        """Remove its containers, end it, and what it was made of. The first of its namespace's processes is the last
        to end, some time after its parent.
        """
        first = -1
        if self.process.poll() is None:
            containers = self("ps", "-aq").out.split()
            self("rm", "--force", "--volumes", *containers) if containers else None
            first = os.pidfd_open(self.daemon)
        self.process.kill() if not delegation.here() else self.process.terminate()
        self.process.wait(SECONDS)
        if first >= 0:
            assert select.select([first], [], [], SECONDS)[0], "the daemon lives on"
            os.close(first)
        remove(self.folder)


@dataclass(slots=True)
class Docker:
    """The engine with one of its runtimes, for one test."""

    engine: Engine
    runtime: str
    made: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str, stdin: str = "") -> Done:
        return self.engine(*arguments, stdin=stdin)

    def ok(self, *arguments: str, stdin: str = "") -> str:
        """What a command says that must succeed, without the last line feed."""
        done = self(*arguments, stdin=stdin)
        assert done.code == 0, f"docker {' '.join(arguments)}: {done.said}"
        return done.out.removesuffix("\n")

    def words(self, *arguments: str) -> list[str]:
        """Of ``docker run`` or ``create``: options, ``--``, a command. Without a network, unless they say which."""
        at = arguments.index("--")
        options, command = arguments[:at], arguments[at + 1 :]
        network = () if any(word.startswith("--network") for word in options) else ("--network=none",)
        return ["--runtime", self.runtime, *network, *options, IMAGE, *command]

    def run(self, *arguments: str, stdin: str = "") -> Done:
        """A container that is removed when it ends."""
        return self("run", "--rm", *self.words(*arguments), stdin=stdin)

    def output(self, *arguments: str, stdin: str = "") -> str:
        """What it writes, without the last line feed; it must succeed."""
        return self.ok("run", "--rm", *self.words(*arguments), stdin=stdin)

    def lines(self, *arguments: str) -> list[str]:
        """The same, of a shell script that follows ``--``."""
        return self.output(*arguments[:-1], "sh", "-c", arguments[-1]).split("\n")

    def name(self) -> str:
        """One for a container that is removed after the test, whatever has become of it."""
        self.made.append(f"c{uuid.uuid4().hex[:8]}")
        return self.made[-1]

    def background(self, *arguments: str) -> str:
        """The name of a container that runs, which begins as `words` say; without a command it waits."""
        name = self.name()
        command = arguments if "--" in arguments else (*arguments, "--", "sleep", "1000")
        self.ok("run", "--detach", "--name", name, *self.words(*command))
        return name

    def waiting(self) -> str:
        """The name of a container that does nothing and that no test changes."""
        if self.runtime not in self.engine.shared:
            self.engine.shared[self.runtime] = self.background("--init")
            self.made.clear()
        return self.engine.shared[self.runtime]

    def look(self, name: str, what: str) -> str:
        """One of the fields that the daemon shows of a container: ``State.Pid``."""
        return self.ok("inspect", "--format", f"{{{{.{what}}}}}", name)

    def until(self, name: str, what: str, value: str) -> None:
        until(lambda: self.look(name, what) == value, f"{what} of {name}: {value}", SECONDS)

    def until_said(self, name: str, text: str) -> None:
        until(lambda: text in self("logs", name).out, f"{text!r} from {name}", SECONDS)

    def events(self, name: str) -> list[str]:
        """What has become of a container, and with which exit code: ``die 4``."""
        shown = "{{.Action}} {{.Actor.Attributes.exitCode}}"
        until_now = ["--since", "300s", "--until", f"{time.time():.9f}"]
        said = self.ok("events", *until_now, "--filter", f"container={name}", "--format", shown)
        return said.replace(" <no value>", "").split("\n")

    def until_told(self, name: str, event: str) -> None:
        until(lambda: event in self.events(name), f"{event!r} among the events of {name}", SECONDS)

    def close(self) -> None:
        if self.made:
            self("rm", "--force", "--volumes", *self.made)


@contextmanager
def opened() -> Iterator[Engine]:
    """An engine with an image of busybox; nothing of it is left, nor of one whose tests were killed."""
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)
    name = folder.name.removeprefix(PREFIX).replace("_", "x") + uuid.uuid4().hex[:4]
    group = f"lab/test-docker-{name}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        engine = Engine(folder, start(folder, name, group))
        try:
            until(lambda: engine("version").code == 0 or engine.process.poll() is not None, "the daemon", SECONDS)
            assert engine.process.poll() is None, (folder / "log").read_text()[-3000:]
            dockerd.pack(folder / "root.tar", FOLDERS, FILES, None)
            imported = engine("import", str(folder / "root.tar"), IMAGE)
            assert imported.code == 0, imported.said
            yield engine
        finally:
            engine.end()


def start(folder: Path, name: str, group: str) -> subprocess.Popen[bytes]:
    """The daemon's first process. What has to be removed of it is noted before it is made."""
    by_systemd = delegation.here()
    parent = f"labdocker{name}.slice" if by_systemd else f"/{group}"  # with a - it would be in slices of its own
    (folder / "group").write_text(delegation.group_of_slice(parent) if by_systemd else group)
    begin: list[str] = []
    if by_systemd:
        scope = f"lab-docker-{name}.scope"
        (folder / "scope").write_text(scope)
        begin = ["systemd-run", "--quiet", "--scope", "--collect", "--unit", scope]
    else:
        make_room(f"{group}/any")
    return dockerd.start(
        folder, cgroup_parent=parent, runtimes={"lab-oci": str(LAB_OCI)}, by_systemd=by_systemd, begin=begin
    )


# Removing


def remove_abandoned() -> None:
    """What tests that were killed have left: folders of this name that nobody has locked. Only our own: anybody may
    make one there, with the name of a group that is not ours to kill.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if folder.lstat().st_uid != os.geteuid():
            continue
        with suppress(OSError), (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)


def remove(folder: Path) -> None:
    """An engine whose daemon has ended, or is killed now: its scope, its control group, its folder."""
    if (folder / "scope").exists():
        scope = (folder / "scope").read_text()
        for words in (["kill", "--signal=KILL", scope], ["stop", scope]):
            subprocess.run(["systemctl", *words], capture_output=True, check=False)
    if (folder / "group").exists():
        remove_group((folder / "group").read_text())
    shutil.rmtree(folder)


def remove_group(path: str) -> None:
    """Kill what lives in it, and remove it from every hierarchy; runc joins more of them than lab does."""
    if delegation.here():
        slice_ = path.rpartition("/")[2]
        subprocess.run(["systemctl", "stop", slice_], capture_output=True, check=False)
        return
    group = Group(path)
    group.kill()
    group.remove(keep_parents=False)
    for place in (*Unused.detect().joined(), *map(Path, host().places(host().v1))):
        remove_tree(place / path)


def remove_tree(directory: Path) -> None:
    """Idempotent; the kernel may need a moment after a group's last process."""
    deadline = time.monotonic() + SECONDS
    while directory.is_dir():
        for found, folders, _ in os.walk(directory, topdown=False):
            for name in folders:
                with suppress(OSError):
                    (Path(found) / name).rmdir()
        with suppress(OSError):
            directory.rmdir()
        assert time.monotonic() < deadline, f"{directory} stays"
