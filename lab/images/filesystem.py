"""The file systems that an image's disk may have."""

from __future__ import annotations

from enum import StrEnum


class FileSystem(StrEnum):
    """As mount(8) calls them."""

    EXT4 = "ext4"
    EROFS = "erofs"
