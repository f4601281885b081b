"""The manifest of every file of an image: canonical text that a program inside an instance emits identically.

The format is docs/images.md's; ``lab/inside/inside.c`` is its other implementation.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from lab.images.tree import Entry, Tree

EXCLUDED_TREES = (b".lab", b"proc", b"sys", b"dev")
EXCLUDED_PATHS = (b"etc/hosts", b"etc/hostname", b"etc/resolv.conf")

_TYPES = (
    (stat.S_ISREG, "f"), (stat.S_ISDIR, "d"), (stat.S_ISLNK, "l"), (stat.S_ISCHR, "c"),
    (stat.S_ISBLK, "b"), (stat.S_ISFIFO, "p"), (stat.S_ISSOCK, "s"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``digest`` is the SHA-256 of the text in hex; ``file_count`` its number of lines."""

    digest: str
    text_path: Path
    file_count: int

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The manifest whose text is at ``path``."""
        data = path.read_bytes()
        return cls(digest=hashlib.sha256(data).hexdigest(), text_path=path, file_count=data.count(b"\n"))

    def diff(self, other_text: str | bytes) -> list[str]:
        """What another manifest's text has (``+``) and lacks (``-``); empty when the two are equal."""
        other = other_text if isinstance(other_text, str) else other_text.decode("ascii", "backslashreplace")
        mine = self.text_path.read_text("ascii").splitlines()
        return [
            line
            for line in difflib.unified_diff(mine, other.splitlines(), lineterm="", n=0)
            if not line.startswith(("---", "+++", "@@"))
        ]


def excluded(path: bytes) -> bool:
    """Whether a relative path is left out: each instance gets it from its backend."""
    return path.split(b"/", 1)[0] in EXCLUDED_TREES or path in EXCLUDED_PATHS


def escape(raw: bytes) -> str:
    r"""Printable ASCII without spaces; anything else, and the backslash, as ``\xhh``."""
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in raw)


def unescape(text: str) -> bytes:
    """The inverse of `escape`."""
    head, *rest = text.split("\\x")
    return head.encode("ascii") + b"".join(bytes.fromhex(part[:2]) + part[2:].encode("ascii") for part in rest)


def line(entry: Entry) -> str:
    """The manifest's line of one entry, without its newline."""
    status = entry.status
    kind = next(letter for test, letter in _TYPES if test(status.st_mode))
    size, value = 0, "-"
    if kind == "f":
        size, value = status.st_size, _sha256(entry.real)
    elif kind == "l":
        value = escape(os.readlink(entry.real))
    elif kind in "cb":
        value = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    mode = stat.S_IMODE(status.st_mode)
    return f"{kind} {mode:04o} {status.st_uid} {status.st_gid} {size} {value} {escape(b'/' + entry.path)}"


def write_manifest(tree: Tree, target: Path) -> None:
    """Write the manifest of ``tree`` to ``target``."""
    entries = sorted((entry for entry in tree.walk() if not excluded(entry.path)), key=lambda entry: entry.path)
    with target.open("w", encoding="ascii", newline="\n") as writer:
        writer.writelines(line(entry) + "\n" for entry in entries)


def _sha256(path: bytes) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
