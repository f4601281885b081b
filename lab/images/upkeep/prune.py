"""Removing images, and collecting what no image needs any more.

Reachable is what a name leads to, what the build cache remembers, and what a process uses (`locks`). Everything is
first renamed into scratch space, which is removed afterwards: a killed collection leaves a whole store, and what it
had set aside goes with the next command.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ImageError
from lab.images.disk import ROOMY
from lab.images.image import Image
from lab.images.space.locks import claim, holders
from lab.images.store import Store
from lab.model import DiskFileSystem

KEPT_FOR_BUILDS = {"mounts": "cache mounts", "downloads": "downloads"}
"""Folders of the store's home whose entries only spare a build work: RUN --mount=type=cache, ADD --checksum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was removed: its kind (blobs, unpacked layers, disks, …), how many, and what that freed on disk."""

    kind: str
    count: int
    size_bytes: int


def remove(store: Store, names: Sequence[str]) -> list[Collected]:
    """Take these names away, and what only they led to. Raises ImageError for one in use, before anything is done."""
    for name in names:
        try:
            image = store.find(name)
        except ImageError:
            continue  # a broken image may go
        if users := in_use(store, image):
            raise ImageError(
                f"{name} is used by process {', '.join(map(str, users))}",
                hint="stop what runs it: lab ps; lab stop NAME",
            )
    store.untag(set(names))
    try:
        return collect(store)
    except ImageError:  # busy, or another image is broken: what is unreachable waits for the next prune
        return []


def in_use(store: Store, image: Image) -> list[int]:
    """The other processes that use the image's files."""
    return [pid for pid in holders(store.pin(image.chain)) if pid != os.getpid()]


class Busy(ImageError):
    """Another process adds blobs: what seems unreachable may be about to get a name."""


def collect(store: Store, *, cache: bool = False, dry_run: bool = False) -> list[Collected]:
    """Remove what is unreachable; with ``cache``, what the build cache remembers counts as such.

    ``dry_run`` only tells. Raises Busy, or ImageError for an image that can't be read: nothing is removed then.
    """
    store.writers.touch()
    with claim(store.writers) as alone:
        if not alone:
            pids = ", ".join(map(str, holders(store.writers)))
            raise Busy(
                f"another lab command (process {pids}) is adding to the store", hint="try again when it has ended"
            )
        return _Collection(store, cache=cache, dry_run=dry_run).run()


def cache_only(store: Store) -> tuple[int, int]:
    """How many layers the build cache alone keeps; the bytes on disk of these, of cache mounts and of downloads."""
    named = {layer.diff_id for image in store.images() for layer in image.layers}
    alone = {layer.diff_id: layer for _, layer in store.cached() if layer.diff_id not in named}
    paths = [store.blob(layer.digest) for layer in alone.values()]
    paths += [store.unpacked / _hex(diff_id) for diff_id in alone]
    for folder in KEPT_FOR_BUILDS:
        paths += (store.home / folder).glob("*")
    return len(alone), sum(disk_usage(path) for path in paths if path.exists())


class _Collection:
    """One collection, under the store's exclusive lock."""

    def __init__(self, store: Store, *, cache: bool, dry_run: bool) -> None:
        self.store = store
        self.dry_run = dry_run
        self.forgotten = cache
        images = store.images()
        kept = [] if cache else [layer for _, layer in store.cached()]
        layers = {*kept, *(layer for image in images for layer in image.layers)}
        self.chains = {image.chain for image in images}
        self.diff_ids = {_hex(layer.diff_id) for layer in layers}
        self.blobs = {_hex(layer.digest) for layer in layers}
        for image in images:
            self.blobs |= {_hex(image.digest), _hex(store.read_json(image.digest)["config"]["digest"])}

    def run(self) -> list[Collected]:
        with self.store.scratch("prune") as bin_:
            found = [
                self._sweep("locks", self._unpinned(), bin_),
                self._sweep("unpacked layers", self._unheld(self.store.unpacked, self.diff_ids), bin_),
                self._sweep("disks", self._of_chains("disks", ROOMY, *(f".{one}" for one in DiskFileSystem)), bin_),
                self._sweep("manifests", self._of_chains("manifests", ".txt"), bin_),
                self._sweep("blobs", self._unheld(self.store.blobs, self.blobs), bin_),
            ]
            if self.forgotten:
                found.append(self._sweep("cached steps", iter(self.store.cache_files()), bin_))
                for folder, kind in KEPT_FOR_BUILDS.items():
                    found.append(self._sweep(kind, self._unheld(self.store.home / folder, set()), bin_))
        return [one for one in found[1:] if one.count]

    def _sweep(self, kind: str, paths: Iterator[Path], bin_: Path) -> Collected:
        count = size = 0
        for path in paths:
            freed = disk_usage(path)
            if not self.dry_run and not _set_aside(path, bin_):
                continue
            count, size = count + 1, size + freed
        return Collected(kind=kind, count=count, size_bytes=size)

    def _unheld(self, folder: Path, wanted: set[str]) -> Iterator[Path]:
        if folder.is_dir():
            yield from (path for path in sorted(folder.iterdir()) if path.name not in wanted)

    def _of_chains(self, folder: str, *suffixes: str) -> Iterator[Path]:
        for path in sorted((self.store.home / folder).glob("*")):
            if path.suffix in suffixes and path.stem not in self.chains and not holders(self.store.pin(path.stem)):
                yield path

    def _unpinned(self) -> Iterator[Path]:
        """Locks of images that are gone, and that nobody holds."""
        return self._unheld(self.store.home / "pins", self.chains)


def _set_aside(path: Path, bin_: Path) -> bool:
    """Rename it away, unless a process uses it."""
    with claim(path) as free:
        if free:
            path.rename(bin_ / f"{path.parent.name}-{path.name}")
        return free


def disk_usage(path: Path) -> int:
    """What a file or tree takes of the disk, in bytes; a file with several names counts once."""
    status = path.lstat()
    total = status.st_blocks * 512
    seen = set()
    pending = [path] if path.is_dir() and not path.is_symlink() else []
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:  # one so deep that its path is too long
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    total += status.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
    return total


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
