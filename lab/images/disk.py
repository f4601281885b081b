"""An image as a read-only raw disk, for instances with a kernel of their own.

The same files as `Store.lower_directories`: owners, modes, extended attributes and hard links are kept. Equal
images give equal bytes: identifiers and times are fixed, and directories are filled in sorted order. ext4, because
Debian's cloud kernel has it built in; without a journal, because nothing is ever written. Or EROFS, made for images
that nobody writes to; uncompressed, so that it differs from ext4 in nothing but the file system.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.errors import BackendUnavailable, CommandError, ImageError
from lab.host.command import run
from lab.host.survey.virtualisation import platform
from lab.images.layers import epoch
from lab.images.store import Image, Store
from lab.images.tree import Entry, Tree
from lab.model import DiskFileSystem

BLOCK_BYTES = 4096
INODE_BYTES = 256
FIRST_INODE = 11  # the first that is not reserved, ext4(5)
SPARE_BYTES = 8 << 20
ROOM_BYTES, ROOMY = 4 << 30, ".roomy"
SPARE_INODES = 64
BYTES_PER_INODE = 16384  # of free space, as in mke2fs.conf(5)
JOURNAL_MIB = 16
MAKE_SECONDS = 600.0
UUID = "6c616264-6973-4b00-8000-000000000000"
EROFS_BUILD_TIME_OFFSET = 1024 + 24  # in the superblock: include/erofs_fs.h of erofs-utils
EROFS_BUILD_TIME = struct.Struct("<QI")  # seconds, nanoseconds
LEFT_OUT_OF_EROFS = b"lost+found"  # whatever begins so: lib/inode.c of erofs-utils
HASH_SEED = "6c616264-6973-4b00-8000-000000000001"
FEATURES = (  # all of them, so that the host's mke2fs.conf has no say
    "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,"
    "metadata_csum"
)

# The overlay exists in a mount namespace that ends with the script. An empty lowest directory makes one layer enough.
MERGE = """
set -e
cd "$SCRATCH/lower"
mount -t overlay overlay -o "ro,lowerdir=$LOWER" "$SCRATCH/merged"
"""

MAKE_EXT4 = """
exec mke2fs -q -F -t ext4 $JOURNAL -b $BLOCK -I $INODE -N $INODES -m 0 -L image -O $FEATURES -U $UUID \
    -E "hash_seed=$SEED,lazy_itable_init=0,nodiscard,root_owner=$OWNER,offset=$OFFSET" -d "$SCRATCH/merged" \
    "$DISK" "${KIB}k"
"""

MAKE_EROFS = """
exec mkfs.erofs --quiet --preserve-mtime -E nosbcrc -U $UUID "$DISK" "$SCRATCH/merged"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """What a file system has to hold."""

    size_bytes: int
    inodes: int


def image_disk(store: Store, image: Image, file_system: DiskFileSystem = DiskFileSystem.EXT4) -> Path:
    """The image's disk, made at the first call and shared by every image with the same layers. Needs root.

    Attach it read-only. Raises ImageError when it can't be made, BackendUnavailable without the program that does.
    """
    require(file_system)
    return _kept(store, f"{image.chain}.{file_system}", partial(MAKERS[file_system], store, image))


def roomy_disk(store: Store, image: Image) -> Path:
    """The image's disk as ext4 with `ROOM_BYTES` to spare, for those that write to a copy-on-write layer over it.

    It is as sparse as its free space. Made, shared and refused as `image_disk`.
    """
    return _kept(store, f"{image.chain}{ROOMY}", partial(make_ext4, store, image, free_bytes=ROOM_BYTES))


def _kept(store: Store, name: str, make: Callable[[Path, Path], object]) -> Path:
    folder = store.home / "disks"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / name
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with store.scratch("disk") as scratch:
                disk = scratch / "disk"
                make(scratch, disk)
                disk.replace(target)
    return target


def require(file_system: DiskFileSystem) -> None:
    """Raises BackendUnavailable when this host lacks the program that makes it."""
    if file_system is DiskFileSystem.EROFS and shutil.which("mkfs.erofs") is None:
        raise BackendUnavailable(
            "disk=erofs can't be had here: mkfs.erofs is not installed", hint="apt-get install erofs-utils"
        )


def make_ext4(
    store: Store,
    image: Image,
    scratch: Path,
    disk: Path,
    *,
    offset_bytes: int = 0,
    free_bytes: int = 0,
    writable: bool = False,
) -> int:
    """Write the image's files as an ext4 file system into ``disk``, from ``offset_bytes`` on; its size in bytes.

    ``scratch`` is an empty directory. A ``writable`` file system has a journal, and ``free_bytes`` to spare. Raises
    ImageError when it can't be made.
    """
    lower = store.lower_directories(image)
    tree, root = _tree(image, lower)
    size = measure(tree)
    size_bytes = size.size_bytes + free_bytes + (JOURNAL_MIB << 20 if writable else 0)
    environment = {
        "OFFSET": str(offset_bytes),
        "KIB": str(size_bytes // 1024),
        "BLOCK": str(BLOCK_BYTES),
        "INODE": str(INODE_BYTES),
        "INODES": str(size.inodes + free_bytes // BYTES_PER_INODE),
        "FEATURES": f"{FEATURES},has_journal" if writable else FEATURES,
        "JOURNAL": f"-J size={JOURNAL_MIB}" if writable else "",
        "SEED": HASH_SEED,
        "OWNER": f"{root.status.st_uid}:{root.status.st_gid}",
        "E2FSPROGS_FAKE_TIME": str(int(epoch().timestamp())),
    }
    with _explained(image):
        _make(MAKE_EXT4, lower, scratch, disk, environment)
        _settle(f"{disk}?offset={offset_bytes}", root.status.st_mode, tree.lookup(b"lost+found") is None, scratch)
    return size_bytes


def make_erofs(store: Store, image: Image, scratch: Path, disk: Path) -> None:
    """Write the image's files as an EROFS into ``disk``: mkfs.erofs(1). Raises as `make_ext4`."""
    lower = store.lower_directories(image)
    tree, _ = _tree(image, lower)
    for entry in tree.walk():
        if entry.path.rpartition(b"/")[2].startswith(LEFT_OUT_OF_EROFS):
            raise ImageError(
                f"can't make an EROFS of {image.name}: mkfs.erofs would leave out {os.fsdecode(entry.path)}",
                hint="disk=ext4, or remove it from the image",
            )
    with _explained(image):
        _make(MAKE_EROFS, lower, scratch, disk, {})
    with disk.open("rb+") as written:  # it tells when it was made; no file of the image is as new as that
        written.seek(EROFS_BUILD_TIME_OFFSET)
        written.write(EROFS_BUILD_TIME.pack(int(epoch().timestamp()), 0))


MAKERS: Mapping[DiskFileSystem, Callable[[Store, Image, Path, Path], object]] = {
    DiskFileSystem.EXT4: make_ext4,
    DiskFileSystem.EROFS: make_erofs,
}


def _tree(image: Image, lower: Sequence[Path]) -> tuple[Tree, Entry]:
    tree = Tree(lower)
    root = tree.lookup(b"")
    if root is None:
        raise ImageError(f"{image.name} has no files", hint="COPY something into it")
    return tree, root


def _make(script: str, lower: Sequence[Path], scratch: Path, disk: Path, environment: Mapping[str, str]) -> None:
    """Run ``script``, which finds the image's files below $SCRATCH/merged and writes $DISK."""
    for name in ("empty", "lower", "merged"):
        (scratch / name).mkdir()
    for number, directory in enumerate((*lower, scratch / "empty")):
        (scratch / "lower" / str(number)).symlink_to(directory)
    shared = {
        "LOWER": ":".join(map(str, range(len(lower) + 1))),  # short names: mount(2) takes one page of options
        "SCRATCH": str(scratch),
        "DISK": str(disk),
        "UUID": UUID,
        "LIBMOUNT_FORCE_MOUNT2": "always",  # fsconfig(2) takes 255 bytes a value, three layers' names
    }
    run(
        ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "sh", "-c", MERGE + script],
        timeout_seconds=platform().patience * MAKE_SECONDS,
        environment={**shared, **environment},
    )


@contextmanager
def _explained(image: Image) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        full = "No space left" in error.detail
        raise ImageError(
            f"can't make a disk of {image.name}: {error.message}",
            hint="free some disk space, or set LAB_HOME to a larger disk" if full else "see its output below",
            detail=error.detail,
        ) from error


def _settle(disk: str, root_mode: int, remove_lost_and_found: bool, scratch: Path) -> None:
    """Make the result depend on the image alone.

    mke2fs copies the access and change times of the files it read, which tell when the layer was unpacked; gives
    the root a mode of its own; and adds a directory that the image does not have.
    """
    stamp = int(epoch().timestamp())
    # dumpe2fs(8) would say it too, but since e2fsprogs 1.47.2 takes a name with "=" in it for a tag: LABEL=…
    header = run(["debugfs", "-R", "show_super_stats -h", disk], timeout_seconds=60).stdout.decode()
    counts = {key: value.strip() for key, _, value in (line.partition(":") for line in header.splitlines())}
    used = int(counts["Inode count"]) - int(counts["Free inodes"])
    lines = [f"set_inode_field <2> mode 0{root_mode:o}"]
    for inode in (2, *range(FIRST_INODE, used + 1)):
        lines += [f"set_inode_field <{inode}> {field} @{stamp}" for field in ("atime", "ctime")]
    if remove_lost_and_found:
        lines.append("rmdir lost+found")
    commands = scratch / "debugfs.txt"
    commands.write_text("\n".join(lines) + "\n")
    done = run(
        ["debugfs", "-w", "-f", commands, disk],
        timeout_seconds=platform().patience * MAKE_SECONDS,
        environment={"E2FSPROGS_FAKE_TIME": str(stamp)},
    )
    complaints = [
        line for line in done.stderr.decode("utf-8", "replace").splitlines() if not line.startswith("debugfs")
    ]
    if complaints:  # debugfs exits with 0 whatever happened
        raise CommandError("debugfs failed", detail="\n".join(complaints[:20]))


def measure(tree: Tree) -> _Size:
    """How large a file system has to be for ``tree``: generous, since a hole costs nothing on the host."""
    blocks = inodes = 0
    seen: set[tuple[int, int]] = set()
    for entry in tree.walk():
        status = entry.status
        key = (status.st_dev, status.st_ino)
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            if key in seen:
                continue
            seen.add(key)
        inodes += 1
        content = max(status.st_size, BLOCK_BYTES) if entry.is_directory else status.st_size
        blocks += -(-content // BLOCK_BYTES) + 1
    inodes += SPARE_INODES
    size = blocks * BLOCK_BYTES + inodes * INODE_BYTES
    return _Size(size_bytes=(size + size // 20 + SPARE_BYTES) // BLOCK_BYTES * BLOCK_BYTES, inodes=inodes)
