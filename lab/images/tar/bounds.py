"""How much a layer may be: what is unpacked was written by a stranger, and a few kilobytes can hold terabytes.

The defaults are far above what images are (docs/images.md lists them); the environment changes them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from lab.errors import ImageError, UsageError
from lab.host.units import format_bytes, parse_bytes

FILES_VARIABLE = "LAB_LAYER_MAX_FILES"
BYTES_VARIABLE = "LAB_LAYER_MAX_BYTES"
RATIO_VARIABLE = "LAB_LAYER_MAX_RATIO"
DOCUMENT_BYTES = 4 << 20  # a manifest or configuration; registries accept no larger manifest either


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits on one layer. ``size_bytes`` counts files as long as they say they are, holes included.

    ``ratio`` is of unpacked to packed bytes, and counts from ``free_bytes`` unpacked on: a layer of zeros that a
    step left behind compresses well and harms nobody. ``told_bytes`` is what the entries say of themselves: names,
    links and extended attributes, which are in memory until a layer is read; it grows with `files`.
    """

    files: int = 1_000_000
    size_bytes: int = 64 << 30
    ratio: int = 200
    free_bytes: int = 1 << 30
    told_bytes: int = 256 << 20

    @classmethod
    def configured(cls) -> Bounds:
        """The defaults, or what the environment sets. Raises UsageError for what is no number."""
        default = cls()
        files = _number(FILES_VARIABLE, default.files)
        return cls(
            files=files,
            told_bytes=default.told_bytes * max(files, default.files) // default.files,
            size_bytes=parse_bytes(os.environ.get(BYTES_VARIABLE) or str(default.size_bytes)),
            ratio=_number(RATIO_VARIABLE, default.ratio),
        )

    def check_files(self, count: int) -> None:
        """Raises ImageError beyond the limit, as do its siblings."""
        if count > self.files:
            raise ImageError(
                f"a layer holds more than {self.files:,} files", hint=f"if that is meant: {FILES_VARIABLE}=N"
            )

    def check_size(self, size_bytes: int) -> None:
        if size_bytes > self.size_bytes:
            raise ImageError(
                f"a layer holds more than {format_bytes(self.size_bytes)}",
                hint=f"if that is meant: {BYTES_VARIABLE}=100G",
            )

    def check_told(self, told_bytes: int) -> None:
        if told_bytes > self.told_bytes:
            raise ImageError(
                f"a layer's names and attributes take more than {format_bytes(self.told_bytes)}",
                hint=f"if that is meant: {FILES_VARIABLE}=N, of which each has room for 256 bytes",
            )

    def check_ratio(self, packed_bytes: int, unpacked_bytes: int) -> None:
        if unpacked_bytes > self.free_bytes and unpacked_bytes > self.ratio * packed_bytes:
            raise ImageError(
                f"a layer unpacks to more than {self.ratio} times its size",
                hint=f"if that is meant: {RATIO_VARIABLE}=N",
            )


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise UsageError(f"{variable}={text} is not a number above zero", hint=f"the default is {default}")
    return int(text)
