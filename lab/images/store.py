"""The one image store: an OCI image layout on disk, and its layers unpacked for overlayfs.

```
<home>/images/oci-layout, index.json, blobs/sha256/<hex>   OCI image-spec, image-layout.md
<home>/layers/<diff id>/                                   a layer as overlayfs wants a lower directory
<home>/manifests/<chain>.txt                               the manifest of every file of an image
<home>/cache/<key>                                         what a build step made
<home>/pins/<chain>                                        see locks.py
<home>/tmp/                                                see scratch.py
```

Nothing is changed in place: a blob, a layer or the index is written beside, and renamed into place, so a killed
process corrupts nothing. The index is rewritten under a file lock. Layers are private to root (mode 0700): they
hold set-uid programs and device nodes as some image wants them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.errors import ImageError
from lab.host.home import home as lab_home
from lab.images import layers
from lab.images.image import (
    BASE_DIGEST,
    BASE_NAME,
    BASE_ORIGIN,
    CONFIG_TYPE,
    CREATED,
    MANIFEST_TYPE,
    ORIGIN,
    REF_NAME,
    Base,
    Image,
    Origin,
    is_digest_of,
    read_image,
)  # fmt: skip
from lab.images.layers import Layer
from lab.images.manifest import Manifest, write_manifest
from lab.images.ociconfig import Step, config_to_oci
from lab.images.reference import normalise
from lab.images.space.locks import hold
from lab.images.space.scratch import clean_scratch, scratch
from lab.images.tree import Tree
from lab.model import ImageConfig

CACHE_KEY = re.compile("[0-9a-f]{64}")

__all__ = ["Base", "Image", "Layer", "Manifest", "Origin", "Store"]


class Store:
    """Images under one home. Cheap to open; safe to use from several processes at once."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.layout = home / "images"
        self.blobs = self.layout / "blobs" / "sha256"
        self.unpacked = home / "layers"
        self._held: dict[Path, int] = {}
        weakref.finalize(self, _close_all, self._held)

    @classmethod
    def view(cls, home: Path | None = None) -> Store:
        """The store under ``home`` as it is, for who only reads: nothing is made, no privilege is needed."""
        return cls(home or lab_home())

    @classmethod
    def open(cls, home: Path | None = None) -> Store:
        """The store under ``home`` (default: lab's own), made if need be. Raises ImageError if it can't be.

        Scratch space that killed processes left there is removed on the way.
        """
        store = cls(home or lab_home())
        clean_scratch(store.home)
        try:
            store.blobs.mkdir(parents=True, exist_ok=True)
            store.unpacked.mkdir(mode=0o700, exist_ok=True)
            (store.home / "manifests").mkdir(exist_ok=True)
            (store.home / "cache").mkdir(exist_ok=True)
            marker = store.layout / "oci-layout"
            if not marker.exists():
                store._replace(marker, b'{"imageLayoutVersion": "1.0.0"}\n')
        except PermissionError as error:
            raise ImageError(f"can't write the image store {store.home}", hint="sudo, or set LAB_HOME") from error
        return store

    def scratch(self, purpose: str) -> AbstractContextManager[Path]:
        """A temporary directory on the store's file system."""
        return scratch(self.home, purpose)

    @property
    def writers(self) -> Path:
        """What `writing` locks."""
        return self.layout / "writers"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold this while blobs are added that no image refers to yet: nobody collects them meanwhile."""
        descriptor = hold(self.writers, create=True)
        try:
            yield
        finally:
            os.close(descriptor)

    def pin(self, chain: str) -> Path:
        """What a process locks that uses the files of the images with this chain (`Image.chain`)."""
        return self.home / "pins" / chain

    def _hold(self, path: Path, *, create: bool = False) -> None:
        """Lock ``path`` for as long as this store is used: until then nobody removes it."""
        if path not in self._held:
            descriptor = hold(path, create=create)
            if self._held.setdefault(path, descriptor) != descriptor:  # another thread was first
                os.close(descriptor)

    def used(self) -> list[Path]:
        """What this process has locked so far."""
        return list(self._held)

    # -- finding ---------------------------------------------------------------------------------------------

    def images(self) -> list[Image]:
        """Every tagged image, by name."""
        return sorted((self._image(entry) for entry in self.entries()), key=lambda image: image.name)

    def find(self, name: str) -> Image:
        """The image called ``name``, or whose digest it is or begins. Raises ImageError when there is none."""
        found = self.select(name)
        return self._image(next(one for one in self.entries() if one["annotations"][REF_NAME] == found[0]))

    def select(self, word: str) -> list[str]:
        """The names that ``word`` means: itself, else all of the image whose digest it is or begins.

        Raises ImageError when there is none.
        """
        known = [(entry["annotations"][REF_NAME], entry["digest"]) for entry in self.entries()]
        wanted = word if word.startswith("sha256:") else normalise(word)
        found = [name for name, digest in known if name == wanted]
        found = found or [name for name, digest in known if is_digest_of(word, digest)]
        if not found:
            raise ImageError(f"no image {word}", hint=f"lab build DIR -t {word}; lab image ls shows what there is")
        return found

    def __contains__(self, name: str) -> bool:
        try:
            self.find(name)
        except ImageError:
            return False
        return True

    # -- an image's files ------------------------------------------------------------------------------------

    def lower_directories(self, image: Image) -> tuple[Path, ...]:
        """The image's layers for overlayfs's ``lowerdir``, the top one first; unpacked at the first call.

        Whiteouts are character devices 0/0, opaque directories carry ``trusted.overlay.opaque``. Needs root.
        From here on the image counts as used by this process, and nobody removes it.
        """
        pin = self.pin(image.chain)
        pin.parent.mkdir(exist_ok=True)
        self._hold(pin, create=True)
        return self.directories(image.layers)

    def directories(self, chain: tuple[Layer, ...]) -> tuple[Path, ...]:
        """`lower_directories` for a bare chain of layers, the bottom one first in ``chain``.

        A layer that is there twice, as two steps that change nothing make it, is named once, where it is on top: what
        it has hides the same below, and overlayfs refuses one directory for two layers (ELOOP).
        """
        return tuple(dict.fromkeys(self._directory(layer) for layer in reversed(chain)))

    def _directory(self, layer: Layer) -> Path:
        target = self.unpacked / self.blob(layer.diff_id).name
        while True:
            try:
                self._hold(target)
                return target
            except FileNotFoundError:
                self.unpack(layer, self.blob(layer.digest))

    def unpack(self, layer: Layer, source: Path) -> None:
        """Unpack ``layer`` from its blob at ``source``, unless it is there already. Needs root. Raises ImageError."""
        target = self.unpacked / self.blob(layer.diff_id).name
        if target.is_dir():
            return
        try:
            blob = source.open("rb")
        except FileNotFoundError as error:
            raise ImageError(f"blob {layer.digest} is missing", hint="build or fetch the image again") from error
        with self.scratch("layer") as temporary, blob:
            fresh = temporary / "root"
            layers.unpack(blob, fresh, expected_diff_id=layer.diff_id)
            _move_directory(fresh, target)

    def manifest(self, image: Image) -> Manifest:
        """The manifest of every file of the image, computed at the first call (see docs/images.md)."""
        path = self.home / "manifests" / f"{image.chain}.txt"
        if not path.exists():
            with self.scratch("manifest") as temporary:
                fresh = temporary / "manifest.txt"
                write_manifest(Tree(self.lower_directories(image)), fresh)
                fresh.replace(path)
        return Manifest.read(path)

    # -- adding ----------------------------------------------------------------------------------------------

    def add_layer(self, directory: Path, *, fresh_since: float | None = None) -> Layer:
        """Pack an overlayfs upper directory into a layer; see `layers.pack` for what is normalised."""
        with self.scratch("blob") as temporary:
            packed = temporary / "layer.tar.zst"
            layer = layers.pack(directory, packed, fresh_since=fresh_since)
            self._adopt(packed, layer.digest)
        return layer

    def cached_layer(self, key: str) -> Layer | None:
        """The layer that a build step with this key made before, if its blob is still there."""
        try:
            layer = Layer(**{name: self._cache_record(key)[name] for name in Layer.__slots__})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return layer if self.blob(layer.digest).exists() else None

    def cache_layer(self, key: str, layer: Layer, seconds: float | None = None) -> None:
        """Remember what a build step made, and how long it took."""
        self._replace(self.home / "cache" / key, json.dumps({**asdict(layer), "seconds": seconds}).encode())

    def step_seconds(self, key: str) -> float | None:
        """How long the step took that made the cached layer; None when nobody remembers."""
        try:
            return self._cache_record(key).get("seconds")
        except (OSError, ValueError):
            return None

    def _cache_record(self, key: str) -> dict[str, Any]:
        record = json.loads((self.home / "cache" / key).read_bytes())
        return record if isinstance(record, dict) else {}

    def cached(self) -> Iterator[tuple[str, Layer]]:
        """Every key of the build cache with its layer."""
        for path in self.cache_files():
            if layer := self.cached_layer(path.name):
                yield path.name, layer

    def cache_files(self) -> list[Path]:
        """What the build cache consists of; other parts of lab keep things in the same folder."""
        return sorted(path for path in (self.home / "cache").glob("*") if CACHE_KEY.fullmatch(path.name))

    def add_image(
        self,
        name: str,
        *,
        config: ImageConfig,
        layers: tuple[Layer, ...],
        origin: Origin,
        base: Base | None = None,
        annotations: Mapping[str, str] | None = None,
        history: Sequence[Step] = (),
    ) -> Image:
        """Write configuration and manifest and give them a name. Equal input gives an equal digest."""
        notes = {ORIGIN: origin.value, **(annotations or {})}
        if base is not None:
            notes |= {BASE_NAME: base.name, BASE_DIGEST: base.digest, BASE_ORIGIN: base.origin.value}
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "layers": [
                {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size_bytes} for layer in layers
            ],
            "annotations": dict(sorted(notes.items())),
        }
        with self.writing():
            for layer in layers:
                if not self.blob(layer.digest).exists():
                    raise ImageError(f"blob {layer.digest} is missing", hint="another lab collected it: try again")
            document = config_to_oci(config, [layer.diff_id for layer in layers], history)
            manifest["config"] = {"mediaType": CONFIG_TYPE, **self._write_json(document)}
            return self.tag(name, self._write_json(manifest))

    def tag(self, name: str, described: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> Image:
        """Let ``name`` mean the manifest ``{"digest", "size"[, "mediaType"]}``, whose blobs are in the store already.

        ``annotations`` are kept beside the name, for an image whose own manifest must not change.
        """
        entry = {
            "mediaType": described.get("mediaType", MANIFEST_TYPE),
            "digest": described["digest"],
            "size": described["size"],
            "annotations": {
                REF_NAME: normalise(name),
                CREATED: datetime.now(UTC).isoformat(timespec="seconds"),
                **(annotations or {}),
            },
        }
        image = self._image(entry)
        with self._locked():
            others = [one for one in self.entries() if one["annotations"][REF_NAME] != image.name]
            self._write_index([*others, entry])
        return image

    def untag(self, names: Collection[str]) -> None:
        """Let these names, in `normalise`'s form, mean nothing any more. What they meant stays: `upkeep.prune`."""
        with self._locked():
            self._write_index([one for one in self.entries() if one["annotations"][REF_NAME] not in names])

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        index = {"schemaVersion": 2, "manifests": entries}
        self._replace(self.layout / "index.json", json.dumps(index, indent=1).encode())

    def blob(self, digest: str) -> Path:
        """Where the blob ``sha256:…`` is, or would be. Raises ImageError for another algorithm or form."""
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise ImageError(f"{digest!r} is not a SHA-256 digest", hint="the image is broken or not supported")
        return self.blobs / value

    def adopt_blob(self, source: Path, digest: str) -> None:
        """Copy a blob in, checking its digest. Raises ImageError when it does not match."""
        if self.blob(digest).exists():
            return
        with self.scratch("blob") as temporary, source.open("rb") as reader:
            copy = temporary / "blob"
            state = hashlib.sha256()
            with copy.open("wb") as writer:
                while chunk := reader.read(1 << 20):
                    state.update(chunk)
                    writer.write(chunk)
            if f"sha256:{state.hexdigest()}" != digest:
                raise ImageError(f"blob {digest} is damaged", hint="fetch the image again")
            self._adopt(copy, digest)

    # -- bytes on disk ---------------------------------------------------------------------------------------

    def read_json(self, digest: str) -> dict[str, Any]:
        """A JSON blob as a dictionary. Raises ImageError when it is missing or not one."""
        try:
            value = json.loads(self.blob(digest).read_bytes())
        except (OSError, ValueError) as error:
            raise ImageError(f"blob {digest} is missing or broken", hint="lab image verify tells more") from error
        if not isinstance(value, dict):
            raise ImageError(f"blob {digest} is not a JSON object", hint="build or fetch the image again")
        return value

    def _write_json(self, value: Mapping[str, Any]) -> dict[str, Any]:
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._replace(self.blob(digest), data)
        return {"digest": digest, "size": len(data)}

    def _adopt(self, file: Path, digest: str) -> None:
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
        file.chmod(0o644)
        file.replace(self.blob(digest))

    def _replace(self, path: Path, data: bytes) -> None:
        with self.scratch("write") as temporary:
            fresh = temporary / "fresh"
            fresh.write_bytes(data)
            with fresh.open("rb") as handle:
                os.fsync(handle.fileno())
            fresh.replace(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.layout / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def entries(self) -> list[dict[str, Any]]:
        """The index's descriptors that have a name, unread otherwise: what they mean may be missing or broken."""
        try:
            index = json.loads((self.layout / "index.json").read_bytes())
            return [entry for entry in index["manifests"] if REF_NAME in entry.get("annotations", {})]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise ImageError(
                f"{self.layout / 'index.json'} is broken", hint=f"rm -r {self.layout} and build again"
            ) from error

    def _image(self, entry: Mapping[str, Any]) -> Image:
        return read_image(entry, self.read_json)


def _close_all(held: dict[Path, int]) -> None:
    while held:
        os.close(held.popitem()[1])


def _move_directory(fresh: Path, target: Path) -> None:
    """Rename into place; another process may have been first, with the same content."""
    try:
        fresh.rename(target)
    except OSError:
        if not target.is_dir():
            raise
