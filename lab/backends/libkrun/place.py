"""Where one machine of libkrun's runs: its program, what that sees of the host, and what it may do there.

libkrun is a library, and whatever process calls it becomes the machine's monitor. That process is lab's (vmm.c), in a
container of lab's own runtime: namespaces of its own, a network namespace with nothing in it among them; a user that
nobody else is, without a capability; lab's filter of system calls; a root with nothing in it but what stands here. Of
the host's devices it has two, which it is given open: its tap, and /dev/kvm.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.support.programs.fetched import asked
from lab.host import compiler
from lab.host.home import home
from lab.instance import INSIDE
from lab.model import Limits, Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Capabilities, Config, MountConfig
from lab.runtime.launcher.spec import Spec
from lab.runtime.rootfs.layers import Overlay

if TYPE_CHECKING:
    from lab.backends.libkrun.origin import Libraries

SOURCE = Path(__file__).parent / "vmm.c"
COMPILE = ("gcc", "-std=gnu11", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-rdynamic")
LINKED = ("-ldl", "-lpthread")
PROGRAM, LIBRARY, KERNEL = "/vmm", "/libkrun.so", "/libkrunfw.so"  # where it sees them
ROOT, IMAGE, LAYER = "/first", "/disk/image", "/layer"
FIRST_PROCESS = "init.krun"  # libkrunfw's kernel executes it
USUAL = ("/proc", "/dev", "/dev/pts")  # of a container's own mounts
LINE = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x")


class Start(StrEnum):
    """The steps of a start that are lab's."""

    PARTS = "write the first root"
    CHANNELS = "listen at the virtio ports"
    LAUNCH = "start the monitor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One guest's own files on the host: its first root file system, and a folder for the layer that it writes to."""

    first: Path
    layer: Path
    root: Path  # an empty folder, to be the lowest layer of the monitor's root


def program() -> Path:
    """vmm.c, compiled if it is not there yet. Raises as `compiler.compiled` does."""
    finished = home() / "vmm" / compiler.digest_of(COMPILE, [SOURCE]) / "vmm"
    return compiler.compiled(finished, COMPILE, [SOURCE], libraries=LINKED)


@cache
def libraries(path: Path) -> tuple[Path, ...]:
    """What the library at ``path`` is linked with, and the loader, as that finds them: ldd(1)."""
    return tuple(Path(found) for found in LINE.findall(asked("ldd", path)))


def make_parts(folder: Path, files: dict[str, bytes], helper: Path, user: int) -> Parts:
    """Write them into ``folder``: below /lab of the guest's first root ``files``, and lab's ``helper``."""
    parts = Parts(first=folder / "first", layer=folder / "layer", root=folder / "root")
    parts.root.mkdir()
    parts.layer.mkdir(mode=0o700)
    for name in ("dev", "lab/image", "lab/helper", "lab/cgroup"):
        (parts.first / name).mkdir(parents=True)
    for name, content in files.items():
        (parts.first / "lab" / name).parent.mkdir(exist_ok=True)
        (parts.first / "lab" / name).write_bytes(content)
    (parts.first / FIRST_PROCESS).write_bytes(helper.read_bytes())
    os.link(parts.first / FIRST_PROCESS, parts.first / "lab/helper/inside")
    for path in (parts.first, *parts.first.rglob("*")):  # files of root's, which another user reads
        path.chmod(0o755 if path.is_dir() or path.name in (FIRST_PROCESS, "inside") else 0o644)
    os.chown(parts.layer, user, user)
    return parts


def words(memory_bytes: int, processors: int, mac: str, ports: int) -> list[str]:
    """The monitor's command."""
    sizes = [str(memory_bytes >> 20), str(processors)]
    return [PROGRAM, LIBRARY, KERNEL, ROOT, IMAGE, f"{LAYER}/disk", *sizes, mac, str(ports)]


def specification(
    name: str, made: Libraries, command: list[str], parts: Parts, *, image_disk: Path, user: int, given: int,
    survives: bool,
) -> Spec:  # fmt: skip
    """The container around the monitor, in which it gets ``given`` descriptors over standard input."""
    process = Process(
        argv=(INSIDE, "wire", str(given), "--", *command),
        environment={"HOME": LAYER, "TMPDIR": LAYER},
        working_directory="/",
        uid=user,
        gid=user,
    )
    usual = bundle.container_config(process, Limits(), hostname="krun", extra_mounts=())
    config: Config = replace(
        usual,
        process=replace(usual.process, capabilities=Capabilities()),
        mounts=(
            *(mount for mount in usual.mounts if mount.destination in USUAL),
            *_own_mounts(made, parts, image_disk),
        ),
    )
    return Spec(name=name, config=config, root=Overlay(lower=(parts.root,)), survives=survives)


def _own_mounts(made: Libraries, parts: Parts, image_disk: Path) -> tuple[MountConfig, ...]:
    layer = MountConfig(
        destination=LAYER, type="none", source=str(parts.layer), options=("bind", "nosuid", "nodev", "noexec")
    )
    linked = {*libraries(made.library.path), *libraries(program())}
    return (
        layer,
        bundle.bind(program(), PROGRAM),
        bundle.bind(made.library.path, LIBRARY),
        bundle.bind(made.kernel.path, KERNEL),
        bundle.bind(parts.first, ROOT),
        bundle.bind(image_disk, IMAGE),
        *(bundle.bind(path.resolve(), str(path)) for path in sorted(linked)),
    )
