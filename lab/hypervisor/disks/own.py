"""A disk of the user's: which files it consists of, each of a format that somebody has named.

Nothing is guessed from what a disk holds. A guest writes its disk's first bytes; whoever takes a raw disk that begins
like a qcow2 file for one lets the guest name any file of the host as its backing file ("Automatically detecting the
format is dangerous for raw images", QEMU says when it has done so). So the user's word or the file's suffix tells the
format, what contradicts it is refused, and a file that another one names belongs to the disk only if the user has
named it as well.
"""

from __future__ import annotations

import hashlib
import shlex
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError, UsageError
from lab.hypervisor.disks.qcow2 import MAGIC, read_header
from lab.hypervisor.domains.domain import DiskFormat

SUFFIXES = {".qcow2": DiskFormat.QCOW2, ".raw": DiskFormat.RAW, ".img": DiskFormat.RAW}
OTHERS = (  # offset, what a file of that kind has there, what it is
    (0, b"QED\0", "a QED disk"),
    (0, b"KDMV", "a VMDK disk"),
    (0, b"COWD", "a VMDK disk"),
    (0, b"# Disk DescriptorFile", "a VMDK disk"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0, b"conectix", "a VHD disk"),
    (64, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\xfd7zXZ\0", "compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (0, b"BZh", "compressed by bzip2"),
    (0, b"PK\3\4", "a ZIP archive"),
)
LONGEST_CHAIN = 16
SECTOR_BYTES = 512
OPTION = "--disk-format raw or --disk-format qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFile:
    """One file of a disk, and its format. ``data`` is where a qcow2 keeps its data, if that is another file."""

    path: Path
    format: DiskFormat
    data: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDisk:
    """A bootable disk that a person has: ``files``, the topmost first, none of which is ever written to.

    ``stamps`` tell whether one was changed since it was looked at: device, inode, size and modification time of each.
    """

    name: str  # of the file, without its folder
    files: tuple[DiskFile, ...]
    size_bytes: int  # as the guest sees it
    stamps: tuple[tuple[int, ...], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that has to be read."""
        return tuple(path for file in self.files for path in (file.path, file.data) if path)

    @property
    def file_bytes(self) -> int:
        """What the files hold in all."""
        return sum(stamp[2] for stamp in self.stamps)

    def require_unchanged(self) -> None:
        """Raises LabError when one of its files is another than it was."""
        if _stamps(self.paths) != self.stamps:
            raise LabError(
                f"{self.name} was changed since lab has looked at it: what is written to a disk while machines run "
                "from it makes their overlays useless",
                hint="end what writes to it, and begin again",
            )

    def digest(self) -> str:
        """``sha256:…`` of its file's bytes; of several files, of their digests, the topmost first."""
        digests = []
        for path in self.paths:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        whole = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        return f"sha256:{whole}"


def is_disk(word: str, form: str = "") -> bool:
    """Whether ``word`` names a disk and no image: a file that is there, with a path, a disk's suffix or a format."""
    path = Path(word)
    with suppress(OSError):  # longer than any file's name
        return path.is_file() and bool(form or "/" in word or path.suffix in SUFFIXES)
    return False


def examine(path: Path, *, form: str = "", backing: Sequence[Path] = ()) -> OwnDisk:
    """The disk at ``path``, of the format ``form`` or, without, its suffix's; ``backing`` are the further files that
    may belong to it.

    Raises UsageError when the format is not known, or a file that belongs to it was not named; LabError when what it
    holds is something else.
    """
    allowed = {_found(each): each for each in backing}
    files: list[DiskFile] = []
    sizes: list[int] = []
    at: Path | None = _found(path)
    wanted = _format(path, form)
    while at is not None:
        if len(files) == LONGEST_CHAIN or at in [file.path for file in files]:
            raise LabError(f"{path.name} has a backing file of a backing file without an end")
        _refuse_other(at, wanted)
        below, data, below_format = None, None, ""
        if wanted is DiskFormat.QCOW2:
            with at.open("rb") as opened:
                header = read_header(opened, at.name)
            if header.encrypted:
                raise LabError(f"{at.name} is encrypted, and lab asks for no key", hint="qemu-img convert")
            sizes.append(header.size_bytes)
            if header.data_file:
                data = _named(header.data_file, at, allowed, "keeps its data in")
            if header.backing:
                below, below_format = (
                    _named(header.backing, at, allowed, "has the backing file"),
                    header.backing_format,
                )
        else:
            sizes.append(-(-at.stat().st_size // SECTOR_BYTES) * SECTOR_BYTES)
        files.append(DiskFile(path=at, format=wanted, data=data))
        at = below
        wanted = _format(below, below_format) if below else wanted
    if not sizes[0]:
        raise LabError(f"{path.name} is empty")
    paths = [each for file in files for each in (file.path, file.data) if each]
    return OwnDisk(name=path.name, files=tuple(files), size_bytes=sizes[0], stamps=_stamps(paths))


def require_used(backing: Sequence[Path], disks: Sequence[OwnDisk]) -> None:
    """Raises UsageError for a further file that belongs to none of the disks."""
    for given in backing:
        if not any(_found(given) in disk.paths[1:] for disk in disks):
            raise UsageError(
                f"--backing {given}: {' and '.join(disk.name for disk in disks)} does not refer to it",
                hint="leave it out",
            )


def _found(path: Path) -> Path:
    """The file itself, looked up once. Raises UsageError."""
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError):  # a link to itself
        raise UsageError(f"there is no file {path}", hint="the path of a disk: ./debian.qcow2") from None
    if not stat.S_ISREG(found.stat().st_mode):
        raise UsageError(f"{path} is no regular file", hint="lab boots disks that are files")
    if not f"{path}{found}".isprintable():  # a line break, a sign that no XML holds, bytes that are no UTF-8
        raise UsageError(f"{path}: a disk's path holds signs that can't be printed", hint="rename it")
    return found


def _format(path: Path, word: str) -> DiskFormat:
    if word:
        if word not in list(DiskFormat):
            raise UsageError(f"{path.name}: lab boots no disks of the format {word}", hint=OPTION)
        return DiskFormat(word)
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"{path.name}: its name does not say which format it has, and lab does not guess it",
            hint=f"{OPTION}; the suffixes {', '.join(SUFFIXES)} say it too",
        )
    return SUFFIXES[path.suffix]


def _refuse_other(path: Path, wanted: DiskFormat) -> None:
    """Raises LabError for a file that begins otherwise than one of that format does."""
    with path.open("rb") as file:
        head = file.read(SECTOR_BYTES)
    for offset, mark, what in OTHERS:
        if head[offset:].startswith(mark):
            remedy = (
                "unpack it" if what.startswith("compressed") or "archive" in what else "qemu-img convert -O qcow2"
            )
            raise LabError(f"{path.name} is said to be {wanted}, and is {what}", hint=remedy)
    if wanted is DiskFormat.RAW and head.startswith(MAGIC):
        raise LabError(
            f"{path.name} is said to be raw, and begins as a qcow2 file does",
            hint="--disk-format qcow2, if it comes from somebody you trust",
        )
    if wanted is DiskFormat.QCOW2 and not head.startswith(MAGIC):
        raise LabError(
            f"{path.name} is said to be qcow2, and does not begin as one does",
            hint="--disk-format raw, if it is that",
        )


def _named(word: str, owner: Path, allowed: dict[Path, Path], relation: str) -> Path:
    """The file that ``owner``'s header names, if the user has named it too. Raises UsageError."""
    if word.startswith(("json:", "fd:")) or "://" in word or (":" in word and not word.startswith(("/", "."))):
        raise UsageError(
            f"{owner.name} {relation} {word}, which is no plain file",
            hint="make one file of it: qemu-img convert -O qcow2",
        )
    try:
        found = (owner.parent / word).resolve(strict=True)
    except (OSError, RuntimeError):
        raise UsageError(f"{owner.name} {relation} {word}, which is not there", hint="bring it there") from None
    if found not in allowed:
        raise UsageError(
            f"{owner.name} {relation} {word}: a disk gets no file of this host that you have not named",
            hint=f"--backing {shlex.quote(str(found))}, if it is meant to; or make one file of both: "
            "qemu-img convert -O qcow2",
        )
    return _found(found)


def _stamps(paths: Sequence[Path]) -> tuple[tuple[int, ...], ...]:
    try:
        found = [path.stat() for path in paths]
    except FileNotFoundError:
        return ()
    return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found)
