"""Where COPY and ADD take files from: the build context, another stage, an image; seen as one tree, links and all.

A symbolic link that a source names is followed, inside its place only; links below a copied directory stay links.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lab.errors import DockerfileError
from lab.images.dockerfile.globs import BadPattern, Patterns, clean, has_wildcards, name_pattern
from lab.images.tar.attributes import keeps_xattr
from lab.images.tree import Entry, Tree

NOTHING = Patterns()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One path to be copied: ``target`` is relative to where its selection goes, "" for that itself."""

    target: str
    real: bytes
    status: os.stat_result


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What one source means. A directory's pieces are itself and what is in it; a file has one piece, ``""``.

    ``name`` is the file's own, where the destination is a directory.
    """

    name: str
    is_directory: bool
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How an instruction asks for sources."""

    line: int
    parents: bool = False
    excludes: Patterns = NOTHING


class CopySource:
    """Files to be copied. ``title`` is for errors: "the build context", "stage builder".

    ``owned``: they belong to somebody, as a stage's do, and not to whoever has the checkout.
    """

    def __init__(self, tree: Tree, title: str, *, hidden: Patterns | None = None, owned: bool = False) -> None:
        self.tree = tree
        self.title = title
        self.hidden = hidden or NOTHING
        self.owned = owned

    def select(self, pattern: str, wanted: Wanted) -> list[Selection]:
        """What ``pattern`` names; empty when wildcards match nothing.

        Raises DockerfileError for a plain name that does not exist, or a path that leads out.
        """
        if wanted.parents:
            return self._with_parents(pattern, wanted)
        path = self._inside(pattern, wanted.line)
        if not has_wildcards(path):
            return [self._selection(path, self._entry(path, pattern, wanted.line), wanted)]
        found = []
        for name in self._matching(path, pattern, wanted.line):
            entry = self._visible(name)
            if entry is not None and not wanted.excludes.matches(posixpath.basename(name)):
                found.append(self._selection(name, entry, wanted))
        return found

    def resolve(self, path: str, line: int) -> Entry:
        """The one thing at ``path``, links followed. Raises DockerfileError when there is none."""
        return self._entry(self._inside(path, line), path, line)

    def _inside(self, pattern: str, line: int) -> str:
        path = clean(pattern.lstrip("/"))
        if path == ".." or path.startswith("../"):
            raise DockerfileError(f"{pattern} is outside {self.title}", line=line, hint="copy it in there")
        return path

    def _entry(self, path: str, written: str, line: int) -> Entry:
        entry = self._visible(path)
        if entry is None:
            raise DockerfileError(f"there is no {written} in {self.title}", line=line, hint=self._why_missing(path))
        return entry

    def _visible(self, path: str) -> Entry | None:
        """What is at ``path``, links followed, unless it is hidden under either name."""
        try:
            final, entry = self.tree.resolve(os.fsencode(path))
        except OSError:
            return None
        names = {path, os.fsdecode(final) or "."} - {"."}
        directory = entry is not None and entry.is_directory and self.hidden.takes_back
        if any(self.hidden.matches(name) for name in names) and not directory:
            return None
        return entry

    def _why_missing(self, path: str) -> str:
        if path != "." and self.hidden.matches(path):
            return ".dockerignore hides it"
        entry = self.tree.lookup(os.fsencode(path))
        if entry is not None and entry.is_symlink:
            return f"it is a link to {os.fsdecode(os.readlink(entry.real))}, which is not in there"
        return f"paths are relative to {self.title}"

    def _matching(self, path: str, written: str, line: int) -> list[str]:
        """Names that match part by part; a ``*`` does not cross a slash."""
        found = [""]
        try:
            for part in path.split("/"):
                pattern = name_pattern(part)
                found = [
                    posixpath.join(parent, name)
                    for parent in found
                    for name in self._names(parent)
                    if pattern.fullmatch(name)
                ]
        except BadPattern:
            raise DockerfileError(f"{written} is no pattern", line=line, hint="close the [, or quote it") from None
        return found

    def _names(self, directory: str) -> list[str]:
        final, entry = self.tree.resolve(os.fsencode(directory))
        if entry is None or not entry.is_directory:
            return []
        return [os.fsdecode(name) for name in self.tree.names(final)]

    def _selection(self, name: str, entry: Entry, wanted: Wanted) -> Selection:
        base = "" if name == "." else posixpath.basename(name)
        if not entry.is_directory:
            piece = Piece(target="", real=entry.real, status=entry.status)
            excluded = wanted.excludes.matches(base)
            return Selection(name=base, is_directory=False, pieces=() if excluded else (piece,))
        return Selection(name=base, is_directory=True, pieces=tuple(self._below(entry, wanted.excludes)))

    def _below(self, top: Entry, excludes: Patterns) -> Iterator[Piece]:
        """A directory and everything in it that is not left out; parents first."""
        start = len(top.path) + 1 if top.path else 0
        left_out: list[tuple[str, Entry]] = []  # directories above the present path, which a ! may need all the same
        for entry in self._walk(top, excludes):
            relative = os.fsdecode(entry.path[start:])
            left_out = [(path, one) for path, one in left_out if relative.startswith(path + "/")]
            if stat.S_ISSOCK(entry.status.st_mode):
                continue
            if relative and self._is_left_out(entry, relative, excludes):
                if entry.is_directory:
                    left_out.append((relative, entry))
                continue
            for path, one in left_out:
                yield Piece(target=path, real=one.real, status=one.status)
            left_out = []
            yield Piece(target=relative, real=entry.real, status=entry.status)

    def _is_left_out(self, entry: Entry, relative: str, excludes: Patterns) -> bool:
        return excludes.matches(relative) or self.hidden.matches(os.fsdecode(entry.path))

    def _walk(self, top: Entry, excludes: Patterns) -> Iterator[Entry]:
        """As `Tree.walk`, without what is in directories that are left out for good."""
        thorough = excludes.takes_back or self.hidden.takes_back
        start = len(top.path) + 1 if top.path else 0

        def enter(entry: Entry) -> bool:
            return thorough or not self._is_left_out(entry, os.fsdecode(entry.path[start:]), excludes)

        return self.tree.walk(top.path, enter)

    def _with_parents(self, pattern: str, wanted: Wanted) -> list[Selection]:
        """``--parents``: directories above a match are kept, from ``/./`` on where the pattern has one."""
        root, pivot, rest = pattern.partition("/./")
        if not pivot:
            root, rest = ".", pattern
        top = self._entry(self._inside(root, wanted.line), root, wanted.line)
        path = self._inside(rest, wanted.line)
        try:
            matcher = Patterns.of([path.replace("!", "\\!", 1) if path.startswith("!") else path])
        except BadPattern:
            raise DockerfileError(
                f"{rest} is no pattern", line=wanted.line, hint="close the [, or quote it"
            ) from None
        pieces: dict[str, Piece] = {}
        everything = {piece.target: piece for piece in self._below(top, wanted.excludes)}
        for target, piece in everything.items():
            if target and (path == "." or matcher.matches(target)):
                parts = target.split("/")
                above = ["/".join(parts[:count]) for count in range(1, len(parts))]
                pieces |= {name: everything[name] for name in above}
                pieces[target] = piece
        if not pieces:
            if not has_wildcards(path):
                raise DockerfileError(
                    f"there is no {pattern} in {self.title}", line=wanted.line, hint="see --parents"
                )
            return []
        return [Selection(name="", is_directory=True, pieces=tuple(pieces.values()))]


def digest(selections: Iterable[Selection], *, owned: bool) -> str:
    """What a cache key needs to know of the content: paths, types, modes, bytes, attributes; no times.

    Owners count where they are kept, in a place that is ``owned``.
    """
    state = hashlib.sha256()
    for selection in selections:
        _feed(state, os.fsencode(selection.name), b"d" if selection.is_directory else b"f")
        for piece in selection.pieces:
            status = piece.status
            who = b"%d:%d" % (status.st_uid, status.st_gid) if owned else b""
            _feed(state, os.fsencode(piece.target), b"%o" % status.st_mode, who, _content(piece))
            for name, value in xattrs(piece.real):
                _feed(state, os.fsencode(name), value)
    return state.hexdigest()


def xattrs(real: bytes) -> Sequence[tuple[str, bytes]]:
    """The extended attributes an image may carry, sorted."""
    try:
        names = sorted(filter(keeps_xattr, os.listxattr(real, follow_symlinks=False)))
    except OSError:  # a file system without
        return ()
    return [(name, os.getxattr(real, name, follow_symlinks=False)) for name in names]


def _content(piece: Piece) -> bytes:
    mode = piece.status.st_mode
    if stat.S_ISLNK(mode):
        return os.readlink(piece.real)
    if stat.S_ISREG(mode):
        with open(piece.real, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").digest()
    return b"%d" % piece.status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else b""


def _feed(state: hashlib._Hash, *parts: bytes) -> None:
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
