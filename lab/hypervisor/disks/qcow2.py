"""The header of a qcow2 file, as far as it says which other files belong to the disk.

Read here and not by QEMU's own tools, which would open those other files to tell about them. Source:
docs/interop/qcow2.rst of QEMU. Out of scope: everything behind the header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from lab.errors import LabError

MAGIC = b"QFI\xfb"
FIXED = struct.Struct(">4sIQIIQIIQQIIQ")  # both versions have these: up to and with snapshots_offset
MORE = struct.Struct(">QQQII")  # version 3: three sets of features, a reference count's width, the header's length
SECOND_BYTES = FIXED.size  # of version 2, whose extensions begin there
EXTENSION = struct.Struct(">II")
END, BACKING_FORMAT, DATA_FILE = 0, 0xE2792ACA, 0x44415441
EXTERNAL_DATA = 1 << 2  # of the incompatible features
CLUSTER_BITS = range(9, 22)
LONGEST_NAME = 1023


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """``backing`` and ``data_file`` are file names as they stand there, "" for none; a format that is not named is
    "", too.
    """

    size_bytes: int  # of the disk, as a guest sees it
    backing: str = ""
    backing_format: str = ""
    data_file: str = ""
    encrypted: bool = False


def read_header(file: BinaryIO, name: str) -> Header:
    """The header of an open qcow2 file, which is called ``name`` in errors. Raises LabError for a broken one."""
    head = file.read(FIXED.size)
    if not head.startswith(MAGIC) or len(head) < FIXED.size:
        raise LabError(f"{name} does not begin as a qcow2 file does", hint="name its format: --disk-format raw")
    _, version, name_at, name_bytes, cluster_bits, size_bytes, encryption, *_ = FIXED.unpack(head)
    if version not in (2, 3) or cluster_bits not in CLUSTER_BITS:
        raise _broken(name, f"version {version}, clusters of 2^{cluster_bits} bytes")
    file.seek(0)
    cluster = file.read(1 << cluster_bits)  # header, extensions and names are in the first one
    features, begin = 0, SECOND_BYTES
    if version == 3:
        if len(cluster) < FIXED.size + MORE.size:
            raise _broken(name, "it ends within its header")
        features, _, _, _, begin = MORE.unpack_from(cluster, FIXED.size)
    found = dict(_extensions(cluster, begin, name))
    backing = cluster[name_at : name_at + name_bytes] if name_at else b""
    if name_at and (name_bytes > LONGEST_NAME or len(backing) != name_bytes or not backing):
        raise _broken(name, "the name of its backing file lies outside of its header")
    data_file = found.get(DATA_FILE, b"") if features & EXTERNAL_DATA else b""
    if features & EXTERNAL_DATA and not data_file:
        raise LabError(
            f"{name} keeps its data in another file, and does not say in which",
            hint="make one file of it: qemu-img convert -O qcow2",
        )
    return Header(
        size_bytes=size_bytes,
        backing=_text(backing, name),
        backing_format=_text(found.get(BACKING_FORMAT, b""), name),
        data_file=_text(data_file, name),
        encrypted=encryption != 0,
    )


def _extensions(cluster: bytes, at: int, name: str) -> list[tuple[int, bytes]]:
    """What follows the header, by its kind, up to its end mark or a cluster's."""
    found = []
    while at + EXTENSION.size <= len(cluster):
        kind, size = EXTENSION.unpack_from(cluster, at)
        at += EXTENSION.size
        if kind == END:
            break
        if at + size > len(cluster):
            raise _broken(name, "its header ends outside of its first cluster")
        found.append((kind, cluster[at : at + size]))
        at += -(-size // 8) * 8
    return found


def _text(raw: bytes, name: str) -> str:
    if b"\0" in raw or b"\n" in raw:
        raise _broken(name, "a file's name in its header is none")
    return raw.decode("utf-8", "surrogateescape")


def _broken(name: str, why: str) -> LabError:
    return LabError(f"{name} is no qcow2 file that can be read: {why}", hint=f"qemu-img check {name}")
