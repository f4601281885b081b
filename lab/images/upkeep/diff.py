"""How two images differ: file by file, and in what they say about running them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from lab.images.manifest import escape
from lab.images.store import Image, Store
from lab.images.tar import contents
from lab.images.tar.contents import FileRecord, Records

WORDS = {"kind": "type", "mode": "mode", "uid": "owner", "gid": "group", "xattrs": "attributes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``kind``: A added, C changed, D deleted, as docker diff has it; or ``config``, and then ``path`` is a field.

    ``what`` changed: content, mode, owner, …; for a field of the configuration its two values.
    """

    kind: str
    path: str
    what: tuple[str, ...] = ()


def files(store: Store, image: Image) -> Records:
    """Every path of the image, from its blobs: needs no root, and nothing has to be unpacked. Raises ImageError."""
    layers = []
    for layer in image.layers:
        with store.blob(layer.digest).open("rb") as blob:
            layers.append(contents.read_layer(blob, expected_diff_id=layer.diff_id))
    return contents.merge(layers)


def compare(store: Store, old: Image, new: Image) -> list[Change]:
    """What turns ``old`` into ``new``: the files by path, then the configuration."""
    return [*_files(files(store, old), files(store, new)), *_configuration(old, new)]


def _files(old: Records, new: Records) -> Iterator[Change]:
    for path in sorted({*old, *new}):
        before, after = old.get(path), new.get(path)
        name = escape(b"/" + path)
        if before is None:
            yield Change(kind="A", path=name)
        elif after is None:
            yield Change(kind="D", path=name)
        elif what := tuple(_changed(before, after)):
            yield Change(kind="C", path=name, what=what)


def _changed(before: FileRecord, after: FileRecord) -> Iterator[str]:
    """What an instance would see of it; times are not among that."""
    for field, word in WORDS.items():
        if getattr(before, field) != getattr(after, field):
            yield word
    if before.kind == after.kind and (before.size, before.value) != (after.size, after.value):
        yield "target" if before.kind == "l" else "content"


def _configuration(old: Image, new: Image) -> Iterator[Change]:
    for field in fields(old.config):
        before, after = getattr(old.config, field.name), getattr(new.config, field.name)
        if before != after:
            yield Change(kind="config", path=field.name, what=(repr(before), repr(after)))
