"""An image's files as one tar, and a tar's files as an image."""

from __future__ import annotations

import math
import os
import tarfile
from pathlib import Path
from typing import IO

from lab.errors import ImageError
from lab.images.layers import CHUNK_BYTES, header
from lab.images.store import Image, Origin, Store
from lab.images.tar.compression import seekable
from lab.images.tar.extract import unpack_archive
from lab.images.tree import Tree
from lab.model import ImageConfig


def export_tar(store: Store, image: Image, target: IO[bytes]) -> None:
    """Write every file of the image, its layers merged, as a tar with times and attributes. Needs root.

    Nothing is left out; equal images give equal bytes.
    """
    seen: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES) as archive:
        for entry in Tree(store.lower_directories(image)).walk():
            info = header(entry.path, entry.real, entry.status)
            info.mtime = int(entry.status.st_mtime)
            key = (entry.status.st_dev, entry.status.st_ino)
            if info.isreg() and key in seen:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, seen[key], 0
                archive.addfile(info)
            elif info.isreg():
                seen[key] = info.name
                with open(entry.real, "rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)


def export_tree(store: Store, image: Image, target: Path) -> None:
    """Copy every file of the image into the new directory ``target``. Needs root. Raises ImageError if it exists."""
    if os.path.lexists(target):
        raise ImageError(f"{target} exists already", hint="choose another place")
    with store.scratch("export") as scratch:
        whole = scratch / "whole.tar"
        with whole.open("wb") as writer:
            export_tar(store, image, writer)
        with whole.open("rb") as reader:
            unpack_archive(reader, target, whiteouts=False)


def import_tar(store: Store, source: IO[bytes], name: str) -> Image:
    """An image of one layer from a tar, plain or compressed: files, owners and times are the archive's.

    It is unpacked and packed again, so that the same files give the same image however the tar was written. Needs
    root. Raises ImageError when the archive is broken or hostile.
    """
    with store.writing(), store.scratch("import") as scratch:
        root = scratch / "root"
        unpack_archive(seekable(source, scratch), root, whiteouts=True)
        layer = store.add_layer(root, fresh_since=math.inf)
        return store.add_image(name, config=ImageConfig(), layers=(layer,), origin=Origin.IMPORTED)
