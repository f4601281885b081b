"""An OCI runtime as its callers see it: lab-oci, or runc to compare with, over bundles of one tiny root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lab
from lab.host.cgroup.group import Group
from lab.host.cgroup.hierarchy import make_room
from lab.model import Process
from lab.runtime import bundle

LAB_OCI = Path(lab.__file__).parent / "runtime" / "oci" / "lab-oci"
BASE_INTERPRETER = getattr(sys, "_base_executable", "") or sys.executable
PROGRAMS = {"lab-oci": [BASE_INTERPRETER, "-IS", str(LAB_OCI)], "runc": ["runc"]}
TIMEOUT_SECONDS = 120.0

Config = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a command."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Runtime:
    """One runtime with a state folder, bundles and a control group of its own."""

    name: str
    folder: Path
    rootfs: Path
    group: str = field(default_factory=lambda: f"lab/test-oci-{uuid.uuid4().hex[:8]}")
    count: int = 0

    @property
    def root(self) -> Path:
        return self.folder / "state"

    def words(self, *arguments: str) -> list[str]:
        return [*PROGRAMS[self.name], "--root", str(self.root), *arguments]

    def __call__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
        pass_fds: tuple[int, ...] = (),
    ) -> Done:
        """Run one verb to its end. Its output goes to files: a container it leaves behind may hold them open."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
            given.write(stdin.encode())
            given.seek(0)
            done = subprocess.run(
                self.words(*arguments),
                stdin=given,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {})},
                timeout=TIMEOUT_SECONDS,
                check=False,
                pass_fds=pass_fds,
            )
            out.seek(0)
            err.seek(0)
            return Done(code=done.returncode, out=out.read().decode(), err=err.read().decode())

    def ok(self, *arguments: str, **options: Any) -> str:
        """A verb that must succeed; its standard output."""
        done = self(*arguments, **options)
        assert done.code == 0, f"{arguments}: exit code {done.code}: {done.err}"
        return done.out

    def bundle(self, script: str = "", *argv: str, edit: Callable[[Config], None] | None = None) -> str:
        """A new bundle that runs a shell script, or ``argv``."""
        self.count += 1
        place = self.folder / f"bundle{self.count}"
        place.mkdir()
        config = bundle.container_config(Process(argv=argv or ("sh", "-c", script), environment={"PATH": "/bin"}))
        bundle.write(config, place, root=str(self.rootfs), cgroups_path=f"/{self.group}/c{self.count}")
        if edit is not None:
            value = json.loads((place / "config.json").read_text())
            edit(value)
            (place / "config.json").write_text(json.dumps(value))
        return str(place)

    def new(self) -> str:
        """A name nobody has."""
        return f"{self.name}-{uuid.uuid4().hex[:8]}"

    def running(self, script: str = "sleep 1000", **options: Any) -> str:
        """A container in the background."""
        name = self.new()
        self.ok("create", "--bundle", self.bundle(script, **options), name)
        self.ok("start", name)
        return name

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("state", name))
        return found

    def status(self, name: str) -> str:
        return str(self.state(name)["status"])

    def wait_until(self, name: str, status: str) -> None:
        until(lambda: self.status(name) == status, f"{name} {status}")

    def left(self) -> list[str]:
        """What there still is of any of its containers: folders, mounts, groups, processes."""
        found = [f"state of {path.name}" for path in self.root.iterdir()] if self.root.exists() else []
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line.split()[4]}" for line in mounts if str(self.folder) in line]
        for directory in Group(self.group).directories:
            found += [f"cgroup {path}" for path in Path(directory).iterdir() if path.is_dir()]
        return found + [f"process {pid}" for pid in self.processes()]

    def processes(self) -> list[int]:
        """Those that hold its bundles, its state or its root open, or run below it, and live."""
        entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return [int(entry.name) for entry in entries if int(entry.name) != os.getpid() and self._is_ours(entry)]

    def _is_ours(self, process: Path) -> bool:
        try:
            if (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
            return f"/{self.group}/" in (process / "cgroup").read_text() or str(self.root) in (
                process / "cmdline"
            ).read_text(errors="replace")
        except OSError:
            return False

    def close(self) -> None:
        """Kill and remove whatever a test has left."""
        for name in self("list", "-q").out.split():
            self("delete", "--force", name)
        everywhere = Group(self.group)
        everywhere.kill()
        everywhere.remove()
        for kept in Path("/sys/fs/cgroup").glob(f"*/{self.group}"):  # runc's, in hierarchies without a controller
            for folder in (*(path for path in kept.iterdir() if path.is_dir()), kept):
                folder.rmdir()


@contextmanager
def opened(name: str) -> Iterator[Runtime]:
    """A runtime that leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="lab-oci-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        rootfs = place / "rootfs"
        for part in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            (rootfs / part).mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin" / "busybox")
        for applet in subprocess.run(
            ["busybox", "--list"], capture_output=True, text=True, check=True
        ).stdout.split():
            if applet != "busybox":
                (rootfs / "bin" / applet).symlink_to("busybox")
        runtime = Runtime(name=name, folder=place, rootfs=rootfs)
        make_room(f"{runtime.group}/any")
        try:
            yield runtime
        finally:
            runtime.close()


def until(condition: Callable[[], object], what: str, timeout_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_seconds} s"
        time.sleep(0.01)
