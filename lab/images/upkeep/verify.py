"""Proving the store: every blob's digest, every image's parts, every unpacked layer against its own archive.

Unpacked layers are not unpacked again for that: `contents` reads the archive a second time, and what it says is
compared with what lstat(2), the files' bytes and their attributes say. Reading unpacked layers needs root; without,
everything else is proven.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lab.errors import ImageError
from lab.host.identity.privilege import Need, granted
from lab.images.image import REF_NAME, Image
from lab.images.layers import Layer
from lab.images.manifest import escape
from lab.images.space.locks import claim
from lab.images.store import Store
from lab.images.tar import contents
from lab.images.tar.bounds import DOCUMENT_BYTES
from lab.images.tar.contents import Records

MOST_DIFFERENCES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not what its digest says. ``derived`` can be removed: it is made again from the blobs."""

    what: str
    where: Path
    derived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How much was proven, and what was not true. ``skipped`` unpacked layers could not be read without root."""

    images: int
    blobs: int
    unpacked: int
    skipped: int
    problems: tuple[Problem, ...]


def verify(store: Store) -> Verdict:
    """Look at everything in the store. Never raises for what it finds there."""
    return _Verification(store).run()


def repair(store: Store, problems: tuple[Problem, ...]) -> list[Problem]:
    """Remove what is broken and can be made again from the blobs; what remains is returned."""
    left = []
    for problem in problems:
        if problem.derived and _set_aside(store, problem.where):
            continue
        left.append(problem)
    return left


class _Verification:
    """One pass; a layer that several images share is read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.problems: list[Problem] = []
        self.good: set[str] = set()
        self.records: dict[str, Records | None] = {}
        self.unpacked = self.skipped = 0

    def run(self) -> Verdict:
        count = self.blobs()
        images = self.images()
        for image in images:
            layers = [self.layer(layer) for layer in image.layers]
            self.manifest(image, layers)
        for key, layer in self.store.cached():
            if layer.digest.removeprefix("sha256:") not in self.good:
                self.note(
                    f"the build cache's step {key[:12]} has a broken layer", self.store.home / "cache" / key, True
                )
            else:
                self.layer(layer)
        return Verdict(
            images=len(images),
            blobs=count,
            unpacked=self.unpacked,
            skipped=self.skipped,
            problems=tuple(self.problems),
        )

    def note(self, what: str, where: Path, derived: bool = False) -> None:
        self.problems.append(Problem(what=what, where=where, derived=derived))

    def blobs(self) -> int:
        """Every file among the blobs is what its name says, whether an image has it or not."""
        paths = sorted(self.store.blobs.iterdir()) if self.store.blobs.is_dir() else []
        for path in paths:
            with path.open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
            if found == path.name:
                self.good.add(found)
            else:
                self.note(f"blob sha256:{path.name[:12]} holds something else: sha256:{found[:12]}", path)
        return len(paths)

    def images(self) -> list[Image]:
        """The images whose documents are all there; what is wrong with the others is noted."""
        try:
            entries = self.store.entries()
        except ImageError as error:
            self.note(error.message, self.store.layout / "index.json")
            return []
        found = []
        for entry in entries:
            name = entry["annotations"][REF_NAME]
            try:
                image = self.store.find(name)
                check_document(self.store, image.digest, entry["size"])
            except (ImageError, KeyError) as error:
                self.note(f"{name}: {error}", self.store.layout / "index.json")
                continue
            found.append(image)
            for layer in image.layers:
                self.blob_of(image, layer)
        return found

    def blob_of(self, image: Image, layer: Layer) -> None:
        path = self.store.blob(layer.digest)
        if not path.exists():
            self.note(f"{image.name}: blob {layer.digest[:19]} of a layer is missing", path)
        elif path.stat().st_size != layer.size_bytes:
            self.note(f"{image.name}: blob {layer.digest[:19]} has {path.stat().st_size} bytes", path)

    def layer(self, layer: Layer) -> Records | None:
        """The layer's files as its blob has them, compared with what is unpacked; None when it can't be read."""
        if layer.diff_id in self.records:
            return self.records[layer.diff_id]
        records = None
        if layer.digest.removeprefix("sha256:") in self.good:
            path = self.store.blob(layer.digest)
            try:
                with path.open("rb") as blob:
                    records = contents.read_layer(blob, expected_diff_id=layer.diff_id)
            except ImageError as error:
                self.note(f"layer {layer.diff_id[:19]}: {error.message}", path)
        self.records[layer.diff_id] = records
        if records is not None:
            self.tree(layer, records)
        return records

    def tree(self, layer: Layer, records: Records) -> None:
        directory = self.store.unpacked / layer.diff_id.removeprefix("sha256:")
        try:
            if not directory.is_dir():
                return
        except PermissionError:  # nobody but root may even see whether it is there
            self.skipped += 1
            return
        if not granted(Need.OWNERS):
            self.skipped += 1
            return
        self.unpacked += 1
        found = list(differences(records, contents.read_directory(directory)))
        if found:
            more = f", and {len(found) - MOST_DIFFERENCES} more" if len(found) > MOST_DIFFERENCES else ""
            told = "; ".join(found[:MOST_DIFFERENCES])
            self.note(f"unpacked layer {layer.diff_id[:19]}: {told}{more}", directory, True)

    def manifest(self, image: Image, layers: list[Records | None]) -> None:
        path = self.store.home / "manifests" / f"{image.chain}.txt"
        known = [records for records in layers if records is not None]
        if path.exists() and len(known) == len(layers):
            text = "".join(f"{line}\n" for line in contents.manifest_lines(contents.merge(known)))
            if text != path.read_text("ascii", "replace"):
                self.note(f"{image.name}: the manifest of its files is not that of its layers", path, True)


def check_document(store: Store, digest: str, size_bytes: int) -> None:
    """That a manifest is what its digest and size say, and no larger than one may be. Raises ImageError."""
    path = store.blob(digest)
    if path.stat().st_size != size_bytes or size_bytes > DOCUMENT_BYTES:
        raise ImageError(f"blob {digest[:19]} has {path.stat().st_size} bytes instead of {size_bytes}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
        raise ImageError(f"blob {digest[:19]} holds something else")
    json.loads(path.read_bytes())


def differences(wanted: Records, found: Records) -> Iterator[str]:
    """What an unpacked layer has that its archive does not say, a phrase for each path."""
    for path in sorted({*wanted, *found}):
        name = escape(b"/" + path)
        one, other = wanted.get(path), found.get(path)
        if one is None or other is None:
            yield f"{name} is {'missing' if other is None else 'not in the archive'}"
            continue
        if one.mtime_ns is None:
            other = replace(other, mtime_ns=None)
        if one != other:
            names = ("kind", "mode", "uid", "gid", "size", "value", "mtime_ns", "xattrs", "group", "opaque")
            changed = [field for field in names if getattr(one, field) != getattr(other, field)]
            words = {
                "value": "content",
                "mtime_ns": "time",
                "kind": "type",
                "uid": "owner",
                "gid": "group",
                "group": "links",
            }
            yield f"{name}: other {', '.join(words.get(field, field) for field in changed)}"


def _set_aside(store: Store, path: Path) -> bool:
    with claim(path) as free, store.scratch("repair") as bin_:
        if free:
            path.rename(bin_ / path.name)
        return free
