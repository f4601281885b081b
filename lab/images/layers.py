"""Layers: overlayfs directories to OCI layer blobs and back (OCI image-spec, layer.md).

`pack` makes equal tars of equal directories: sorted, numeric owners, no atime or ctime, fixed times for fresh files.
`unpack` treats a tar as hostile: see tar/extract.py.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

import zstandard

from lab.errors import ImageError
from lab.images.manifest import excluded
from lab.images.tar.attributes import keeps_xattr
from lab.images.tar.bounds import Bounds
from lab.images.tar.compression import Ahead
from lab.images.tar.extract import OPAQUE_MARKER, WHITEOUT, unpack_archive
from lab.images.tree import is_opaque, is_whiteout

TAR_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
ZSTD_LEVEL = 3
XATTR_RECORD = "SCHILY.xattr."
CHUNK_BYTES = 1 << 20
INCOMPLETE = frozenset({"trusted.overlay.redirect", "trusted.overlay.metacopy"})
TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}
MOUNT_POINTS = (b"proc", b"sys", b"dev")
DEFAULT_EPOCH = 1_704_067_200  # 2024-01-01T00:00:00Z: any constant does


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: ``diff_id`` names its uncompressed tar, ``digest`` and ``size_bytes`` its blob."""

    diff_id: str
    digest: str
    size_bytes: int
    media_type: str


def epoch() -> datetime:
    """The time of everything lab makes: ``SOURCE_DATE_EPOCH`` (reproducible-builds.org), else a constant."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(text) if text.isdigit() else DEFAULT_EPOCH, UTC)


class _Hashing:
    """A file object that hashes and counts what passes through on its way to ``sink``."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._state = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self._state.update(data)
        self.size_bytes += len(data)
        self._sink(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._state.hexdigest()}"


# -- directory to blob ---------------------------------------------------------------------------------------


def pack(directory: Path, target: Path, *, fresh_since: float | None = None) -> Layer:
    """Write an overlayfs upper directory as a zstd-compressed layer.

    Whiteouts and opaque directories become OCI's marker files. What every instance gets from its backend is left
    out (`manifest.excluded`), but for the empty mount points /proc, /sys and /dev. Times are fixed to `epoch` where
    they are later than ``fresh_since`` (seconds since 1970); earlier ones, which came out of packages and archives,
    stay, because compiled Python modules record them. None fixes all of them.
    """
    stamp = int(epoch().timestamp())
    with target.open("wb") as file:
        blob = _Hashing(file.write)
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(cast(IO[bytes], blob), closefd=False)
        tar = _Hashing(compressor.write)
        with tarfile.open(
            fileobj=cast(IO[bytes], tar), mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES
        ) as archive:
            seen: dict[tuple[int, int], str] = {}
            for name, real, status in _entries(os.fsencode(directory)):
                fresh = fresh_since is None or status.st_mtime >= fresh_since
                _add(archive, name, real, status, stamp if fresh else int(status.st_mtime), seen)
        compressor.flush(zstandard.FLUSH_FRAME)
    return Layer(diff_id=tar.digest, digest=blob.digest, size_bytes=blob.size_bytes, media_type=TAR_ZSTD)


def compress(source: IO[bytes], target: Path, bounds: Bounds) -> Layer:
    """Write the tar in ``source``, plain or compressed, as a zstd-compressed layer, its content as it is."""
    with target.open("wb") as file, Ahead(source, bounds) as content:
        blob = _Hashing(file.write)
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(cast(IO[bytes], blob), closefd=False)
        while chunk := content.read():
            compressor.write(chunk)
        compressor.flush(zstandard.FLUSH_FRAME)
        diff_id = content.digest()
    return Layer(diff_id=diff_id, digest=blob.digest, size_bytes=blob.size_bytes, media_type=TAR_ZSTD)


def _entries(root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Every path below ``root``, sorted by bytes within each directory, and the root itself as ``b""``."""
    yield b"", root, os.lstat(root)
    pending = [b""]
    while pending:
        path = pending.pop()
        names = sorted(os.listdir(os.path.join(root, path)))
        below = []
        for name in names:
            inner = os.path.join(path, name)
            real = os.path.join(root, inner)
            status = os.lstat(real)
            if excluded(inner) and not (inner in MOUNT_POINTS and stat.S_ISDIR(status.st_mode)):
                continue
            yield inner, real, status
            if stat.S_ISDIR(status.st_mode) and inner not in MOUNT_POINTS:
                below.append(inner)
        pending.extend(reversed(below))


def _add(
    archive: tarfile.TarFile,
    name: bytes,
    real: bytes,
    status: os.stat_result,
    mtime: int,
    seen: dict[tuple[int, int], str],
) -> None:
    """One path of the directory; ``seen`` has the first name of every file with several."""
    if is_whiteout(status):
        _add_marker(archive, os.path.join(os.path.dirname(name), WHITEOUT + os.path.basename(name)), mtime)
        return
    if os.path.basename(name).startswith(WHITEOUT):
        raise ImageError(
            f"a layer can't hold {os.fsdecode(name)!r}: in an archive that name is a deletion",
            hint="call it otherwise",
        )
    if stat.S_ISSOCK(status.st_mode):
        return  # of no use without the process that bound it, and tar has no type for it
    info = header(name, real, status)
    info.mtime = mtime
    key = (status.st_dev, status.st_ino)
    if not info.isreg():
        archive.addfile(info)
        if info.isdir() and is_opaque(real):
            _add_marker(archive, os.path.join(name, OPAQUE_MARKER), mtime)
    elif status.st_nlink > 1 and key in seen:
        info.type, info.linkname, info.size = tarfile.LNKTYPE, seen[key], 0
        archive.addfile(info)
    else:
        seen[key] = info.name
        with open(real, "rb") as content:
            archive.addfile(info, content)


def _add_marker(archive: tarfile.TarFile, name: bytes, mtime: int) -> None:
    """An empty file whose name says what is gone (layer.md, "Whiteouts")."""
    marker = tarfile.TarInfo(os.fsdecode(name))
    marker.mtime = mtime
    archive.addfile(marker, io.BytesIO())


def header(name: bytes, real: bytes, status: os.stat_result) -> tarfile.TarInfo:
    """All that tar says of a path, but for its time."""
    info = tarfile.TarInfo(os.fsdecode(name) or ".")
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.pax_headers = _xattr_records(real)
    info.type = TYPES[stat.S_IFMT(status.st_mode)]
    if info.isreg():
        info.size = status.st_size
    elif info.issym():
        info.linkname = os.fsdecode(os.readlink(real))
    elif info.ischr() or info.isblk():
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info


def _xattr_records(real: bytes) -> dict[str, str]:
    """Extended attributes as PAX records; the values' bytes survive as surrogate escapes."""
    try:
        names = sorted(os.listxattr(real, follow_symlinks=False))
    except OSError:
        return {}
    if INCOMPLETE.intersection(names):
        raise ImageError(
            f"overlayfs left only a reference to a lower layer at {os.fsdecode(real)}",
            hint="echo N | tee /sys/module/overlay/parameters/redirect_dir /sys/module/overlay/parameters/metacopy",
        )
    return {
        XATTR_RECORD + name: os.getxattr(real, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for name in names
        if keeps_xattr(name)
    }


# -- blob to directory ---------------------------------------------------------------------------------------


def unpack(blob: IO[bytes], target: Path, *, expected_diff_id: str) -> None:
    """Unpack a layer into the new directory ``target`` the way overlayfs wants a lower directory.

    Raises ImageError when the content does not match ``expected_diff_id``, is not a sane tar, or is too much.
    """
    found = unpack_archive(blob, target, whiteouts=True)
    if found != expected_diff_id:
        raise ImageError(
            f"a layer's content is {found}, but the image says {expected_diff_id}", hint="build or fetch it again"
        )
