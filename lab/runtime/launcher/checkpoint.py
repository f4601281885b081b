"""A container that was saved with its application running, and what makes another one of it: criu(8).

    save     1  criu stops its processes and reads them from within: memory, descriptors, what the kernel knows
             2  it kills them; what they had written to their root is kept, for others to write above
    restore  3  lab makes what an instance has of its own, as for any other (`lab.runtime.restorer`)
             4  criu, inside of that, makes namespaces, mounts and processes as they were, and lets them go on

To criu, what lies outside of the saved tree is *external*: named when that is saved, given anew by that name. So are
the standard streams, which are files of the host's, and what is bound into the root: lab's helper, what in /etc says
where an instance is. Network, host name and control groups it is told nothing of: it works in the very same ones,
here as there, and so leaves them alone. Of connections only listening sockets go on.

runc and podman have criu make the network and the groups again. lab does not, because there shall be many at once of
the one that was saved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab.errors import CommandError, LabError, LaunchError
from lab.host import syscalls
from lab.host.command import run
from lab.host.survey import criu
from lab.record import replace
from lab.runtime.config.model import Config, MountConfig
from lab.runtime.plan import Plan
from lab.runtime.restorer import FIRST_STREAM

STREAMS = range(3)
SAVE_SECONDS = 120.0
END_SECONDS = 10.0
LOG = "criu.log"
ALIKE = (
    "--manage-cgroups=ignore",
    "--tcp-close",  # connections that somebody has are closed
    "--file-locks",  # all who could hold one are saved
    "--file-validation", "filesize",
    "--external", "mnt[]:ms",  # what else is bound of the host: /dev/null, over what is masked
    "--log-file", LOG,
)  # fmt: skip
"""What saving and restoring are told alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A saved container, whoever saved it: files in a folder of its own, read-only from now on.

    ``images`` is what whoever saved it wrote, ``upper`` what the container had written to its root, ``logs`` what had
    come out of its standard streams by then, in files named as an instance's logs.
    """

    images: Path
    upper: Path
    logs: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a container goes on from."""
        return (self.images, self.upper)

    @property
    def size_bytes(self) -> int:
        """What the folder takes of the host's disk."""
        return sum(path.lstat().st_blocks * 512 for top in self.files for path in (top, *top.rglob("*")))


@dataclass(frozen=True, slots=True, kw_only=True)
class CriuCheckpoint(Checkpoint):
    """One that criu saved. ``kernel`` is what it knows of the kernel, ``streams`` are the container's standard
    streams as it names them.
    """

    kernel: Path
    streams: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.images, self.kernel, self.upper)


class Savable(Protocol):
    """As much of a running container as saving it takes."""

    @property
    def pid(self) -> int: ...
    @property
    def config(self) -> Config: ...
    def wait(self, timeout_seconds: float | None = None) -> int | None: ...
    def keep_writes(self, target: Path) -> None: ...


def save(container: Savable, directory: Path) -> CriuCheckpoint:
    """Write the container into ``directory`` and end it. Raises LabError with criu's reason when it can't."""
    images, kernel, upper = (directory / name for name in ("images", "kernel", "upper"))
    images.mkdir()
    kernel.write_bytes(criu.look())
    streams = tuple(_name_of_stream(container.pid, number) for number in STREAMS)
    try:
        run(dump_command(container, streams, images, kernel), timeout_seconds=SAVE_SECONDS)
    except CommandError as error:
        why = criu.reason_in(images / LOG) or error.detail or error.message
        raise LabError(f"criu can't save it: {why}", hint="start=boot") from error
    container.wait(END_SECONDS)
    container.keep_writes(upper)
    return CriuCheckpoint(images=images, kernel=kernel, upper=upper, streams=streams)


def dump_command(container: Savable, streams: Sequence[str], images: Path, kernel: Path) -> list[str]:
    """criu in the container's network and under its name, which ends if lab does."""
    inside = f"/proc/{container.pid}/ns"
    external = [*streams, *(f"mnt[{place}]:{name}" for name, place in _places(container))]
    return [
        "setpriv", "--pdeathsig", "KILL", "--",
        "nsenter", f"--net={inside}/net", f"--uts={inside}/uts", "--",
        *criu.knowing(kernel, "dump", "--tree", str(container.pid), "--images-dir", str(images), *ALIKE),
        *(word for name in external for word in ("--external", name)),
    ]  # fmt: skip


def restore_command(checkpoint: CriuCheckpoint, config: Config, root: str, directory: Path) -> list[str]:
    """criu where `lab.runtime.restorer` runs it. ``directory`` is for what it has to say."""
    streams = [f"fd[{FIRST_STREAM + number}]:{name}" for number, name in enumerate(checkpoint.streams)]
    mounts = [f"mnt[{mount.destination}]:{mount.source}" for mount in _bound(config)]
    return [
        criu.program() or "criu", "restore", "--images-dir", str(checkpoint.images), "--work-dir", str(directory),
        "--root", root, "--restore-detached", "--restore-sibling", "--pidfile", str(directory / "pid"), *ALIKE,
        *(word for name in streams for word in ("--inherit-fd", name)),
        *(word for name in mounts for word in ("--external", name)),
    ]  # fmt: skip


def restoring(plan: Plan, checkpoint: Checkpoint, config: Config, directory: Path) -> Plan:
    """``plan`` for a container that goes on from ``checkpoint``: what is left to lab of making it.

    Raises LaunchError for one that another than criu saved.
    """
    if not isinstance(checkpoint, CriuCheckpoint):
        raise LaunchError(f"criu did not save {checkpoint.images}, and can't restore it", exit_code=125)
    return replace(
        plan,
        clone_flags=plan.clone_flags & (syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS),
        mounts=[],
        masks=[],
        process=replace(plan.process, init=False),
        criu=restore_command(checkpoint, config, plan.mount_point, directory),
        criu_knows=str(checkpoint.kernel),
        pid_file=str(directory / "pid"),
    )


def failure(error: LaunchError, directory: Path) -> LaunchError:
    """The same, with criu's reason if it has left one in ``directory``."""
    why = criu.reason_in(directory / LOG)
    return LaunchError(f"{error.message}: {why}", hint="start=boot", exit_code=error.exit_code) if why else error


def _name_of_stream(pid: int, number: int) -> str:
    """An open file of the host's, by the mount that it was opened on and its inode (proc(5), fdinfo)."""
    about = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split()
    mount = int(about[about.index("mnt_id:") + 1])
    return f"file[{mount:x}:{os.stat(f'/proc/{pid}/fd/{number}').st_ino:x}]"


def _bound(config: Config) -> list[MountConfig]:
    return [mount for mount in config.mounts if {"bind", "rbind"} & set(mount.options)]


def _places(container: Savable) -> Iterator[tuple[str, str]]:
    """Each bound mount's destination, and where that lies: a link of the image's may have led elsewhere."""
    lines = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
    found = {_identity(f"/proc/{container.pid}/root{place}"): place for place in (line.split()[4] for line in lines)}
    for mount in _bound(container.config):
        yield mount.destination, found[_identity(mount.source)]


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
