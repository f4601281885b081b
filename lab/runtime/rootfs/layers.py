"""What a container's root is made of, prepared on the host: layers, and a skeleton of mount points below them.

The root is mounted by the container itself, in its own mount namespace, so all containers of a session share one
mount point and the host's mount table never shows any of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lab.runtime.config.model import MountConfig
from lab.runtime.rootfs.mounts import DirectoryRoot, OverlayRoot

UPPER = "upper"
MADE_BY_MOUNTS = ("/dev/", "/sys/", "/proc/")  # below these the mount points come with the mounts above them


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """An overlay as the root: ``lower`` directories top first, and where writes go.

    Without ``upper`` and ``work`` the writes go to a scratch folder that is removed with the container.
    """

    lower: tuple[Path, ...]
    upper: Path | None = None
    work: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A plain directory as the root; writes change it."""

    path: Path


def prepare(
    root: Overlay | Directory, name: str, mounts: Sequence[MountConfig], scratch: Path, undo: ExitStack
) -> OverlayRoot | DirectoryRoot:
    """The operation that mounts ``root``; what is made for it is removed by ``undo``."""
    mount_point = str(scratch / "root")
    if isinstance(root, Directory):
        return DirectoryRoot(target=mount_point, source=str(root.path))
    upper, work = root.upper, root.work
    if upper is None or work is None:
        own = folder_of(name, scratch)
        upper, work = own / UPPER, own / "work"
        undo.callback(_remove, own)
        upper.mkdir(parents=True)
        work.mkdir()
        upper.chmod(0o755)  # it becomes the root's own mode, whatever lab's umask is
    lower = (*root.lower, _skeleton(mounts, scratch))
    return OverlayRoot(target=mount_point, lower=tuple(map(str, lower)), upper=str(upper), work=str(work))


def folder_of(name: str, scratch: Path) -> Path:
    """What is made for one root, if nobody brings it: in it `UPPER`, where the writes go."""
    return scratch / "layers" / name


def _remove(layers: Path) -> None:
    """A container that wrote nothing leaves four empty folders, overlayfs' own below ``work`` among them."""
    try:
        for folder in ("work/work", "work", "upper", ""):
            (layers / folder).rmdir()
    except OSError:
        shutil.rmtree(layers)


def _skeleton(mounts: Sequence[MountConfig], scratch: Path) -> Path:
    """A lowest layer with every mount point, so that none has to be made in the layer that keeps the writes:
    it may become an image's next layer, and lab's mounts are no part of an image.
    """
    wanted = sorted(
        (mount.destination.strip("/"), _is_directory(mount))
        for mount in mounts
        if not mount.destination.startswith(MADE_BY_MOUNTS)
    )
    place = scratch / "skeletons" / sha256(repr(wanted).encode()).hexdigest()[:16]
    if place.exists():
        return place
    place.parent.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=place.parent))
    for target, directory in wanted:
        point = made / target
        if directory:
            point.mkdir(parents=True, exist_ok=True)
        else:
            point.parent.mkdir(parents=True, exist_ok=True)
            point.touch()
    try:
        made.rename(place)
    except OSError:  # another thread was faster
        shutil.rmtree(made)
    return place


def _is_directory(mount: MountConfig) -> bool:
    return not ({"bind", "rbind"} & set(mount.options)) or Path(mount.source).is_dir()
