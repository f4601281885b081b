"""Where one User-mode Linux runs: what its process is told, what it sees of the host, and what it may do there.

It is an ordinary program, put into a container of lab's own runtime: namespaces of its own, a network namespace with
nothing in it among them; a user that nobody else is, without a capability; lab's filter of system calls; a root with
nothing in it but what stands here. Its guest's memory is a file on a tmpfs there, which its control group is charged.

Source: Documentation/virt/uml/user_mode_linux_howto_v2.rst, arch/um/drivers and arch/um/os-Linux of the kernel.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.instance import INSIDE
from lab.model import Limits, Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Capabilities, Config, MountConfig
from lab.runtime.launcher.spec import Spec
from lab.runtime.rootfs.layers import Overlay

if TYPE_CHECKING:
    from lab.backends.support.programs.fetched import Program

FIRST = 3  # the descriptors that it is given have numbers from here on: lab/inside/wire.c
FIRST_USER, USERS = 2_080_000_000, 1 << 24  # systemd's docs/UIDS-GIDS.md: nobody's, as lab's QEMUs' are
KERNEL, INITRD, LAYER, MEMORY = "/kernel", "/initrd", "/layer", "/tmp"  # where it sees them
IMAGE = "/disk/image"  # below a folder, to which it changes to find out its path: cow_user.c
SPARE_BYTES = 16 << 20  # on the tmpfs: beside the guest's memory, its directory for mconsole(1)
LOOPS_PER_JIFFY = 5_000_000
"""Measuring this takes Debian's kernel 0.35 s; only busy-waiting on hardware needs it to be right."""


class Boot(StrEnum):
    """The steps of a start that are lab's, and those that its guest reports."""

    PARTS = "write the guest's parts"
    CHANNELS = "listen at the serial lines"
    LAUNCH = "start the kernel as a process"
    FIRST_LINE = "load the kernel"
    KERNEL = "boot the user-mode kernel"
    USER_SPACE = "set up the guest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One guest's own files on the host: its first root file system, and a folder that it may write to."""

    initrd: Path
    layer: Path
    root: Path  # an empty folder, to be the lowest layer of its root


def own_user() -> int:
    """A user and group id that nobody else has."""
    return FIRST_USER + secrets.randbelow(USERS)


def make_parts(folder: Path, archive: bytes, user: int) -> Parts:
    """Write them into ``folder``, which others can't enter."""
    parts = Parts(initrd=folder / "initrd", layer=folder / "layer", root=folder / "root")
    parts.initrd.write_bytes(archive)
    parts.initrd.chmod(0o644)
    parts.layer.mkdir(mode=0o700)
    os.chown(parts.layer, user, user)
    parts.root.mkdir()
    return parts


def command_line(memory_bytes: int, *, lines: int, tap: int, mac: str) -> list[str]:
    """What the kernel is told. It writes to a copy-on-write layer over the image's disk, never to that itself.

    What is not named has no other end on the host. Of the 256 old pseudo-terminals (BSD's) none is made.
    """
    serial = (f"ssl{number}=fd:{FIRST + number}" for number in range(lines))
    return [
        KERNEL, f"mem={memory_bytes >> 10}K", f"ubd0={LAYER}/cow,{IMAGE}", f"initrd={INITRD}",
        "con0=null,fd:1", "con=null", "ssl=null", *serial, f"vec0:transport=fd,fd={tap},vec=0,mac={mac}",
        f"uml_dir={MEMORY}", "umid=uml", "loglevel=4", "panic=-1", "pty.legacy_count=0", f"lpj={LOOPS_PER_JIFFY}",
        "rdinit=/lab/helper/inside", "--", "guest", "/lab",
    ]  # fmt: skip


def specification(
    name: str,
    program: Program,
    words: list[str],
    parts: Parts,
    *,
    image_disk: Path,
    user: int,
    limits: Limits,
    memory_bytes: int,
    given: int,
    survives: bool,
) -> Spec:
    """The container around it, in which it gets ``given`` descriptors over standard input. Raises LabError when its
    user can't read what it has to.
    """
    for path in (program.path, image_disk, *program.libraries):
        _require_readable(path)
    process = Process(
        argv=(INSIDE, "wire", str(given), "--", *words),
        environment={"TMPDIR": MEMORY, "HOME": MEMORY},
        working_directory="/",
        uid=user,
        gid=user,
    )
    usual = bundle.container_config(process, limits, hostname="uml", extra_mounts=())
    config: Config = replace(
        usual,
        process=replace(usual.process, capabilities=Capabilities()),
        mounts=(*_usual_mounts(usual), *_own_mounts(program, parts, image_disk, memory_bytes, user)),
    )
    return Spec(name=name, config=config, root=Overlay(lower=(parts.root,)), survives=survives)


def _usual_mounts(usual: Config) -> tuple[MountConfig, ...]:
    """Of a container's own those without which no program runs: its processes, a few devices."""
    return tuple(mount for mount in usual.mounts if mount.destination in ("/proc", "/dev"))


def _own_mounts(
    program: Program, parts: Parts, image_disk: Path, memory_bytes: int, user: int
) -> tuple[MountConfig, ...]:
    memory = MountConfig(
        destination=MEMORY,
        type="tmpfs",
        source="memory",
        options=("nosuid", "nodev", "mode=0700", f"uid={user}", f"gid={user}", f"size={memory_bytes + SPARE_BYTES}"),
    )
    layer = MountConfig(
        destination=LAYER, type="none", source=str(parts.layer), options=("bind", "nosuid", "nodev", "noexec")
    )
    libraries = [bundle.bind(path.resolve(), str(path)) for path in program.libraries]
    return (
        memory,
        layer,
        bundle.bind(program.path.resolve(), KERNEL),
        bundle.bind(image_disk, IMAGE),
        bundle.bind(parts.initrd, INITRD),
        *libraries,
    )


def _require_readable(path: Path) -> None:
    """By a user that nobody knows: whom the folders above let through does not matter, since it is bound alone."""
    if not path.stat().st_mode & stat.S_IROTH:
        raise LabError(
            f"{path} can't be read by User-mode Linux, which runs as a user of its own", hint=f"chmod o+r {path}"
        )
