"""Images as one file: `save` and `load`, in OCI's form and in Docker's.

An OCI archive is a tar of an OCI image layout (image-spec, image-layout.md); it keeps manifest and blobs as they are,
and with them the digest. A Docker archive (docker-save(1)) has a list of configurations and uncompressed layers; it
keeps the configuration, whose digest is what Docker calls the image's ID. An archive to load is hostile input:
its members are never written by their names.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, cast

from lab.errors import ImageError
from lab.images.image import CONFIG_TYPE, MANIFEST_TYPE, REF_NAME, Image, Origin
from lab.images.layers import CHUNK_BYTES, TAR_ZSTD, Layer, compress, epoch
from lab.images.store import Store
from lab.images.tar import tarstream
from lab.images.tar.bounds import DOCUMENT_BYTES, Bounds
from lab.images.tar.compression import Ahead, Reader, decompressed, seekable
from lab.images.tar.extract import components
from lab.images.tar.tarstream import TarStream
from lab.images.transfer.adopt import MOST_LAYERS, adopt, read_document

DOCKER_NAME = "io.containerd.image.name"
REFUSED = "save it again: lab image save, skopeo copy, docker save and podman save all do"


class Format(StrEnum):
    """The two forms, by skopeo's names."""

    OCI = "oci-archive"
    DOCKER = "docker-archive"


def save(images: Sequence[Image], store: Store, target: IO[bytes], form: Format) -> None:
    """Write the images to ``target``. Equal images give equal bytes. Raises ImageError for a missing blob."""
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES) as archive:
        if form is Format.OCI:
            _save_oci(images, store, archive)
        else:
            _save_docker(images, store, archive)


def load(source: IO[bytes], store: Store, name: str = "") -> list[Image]:
    """Take in every image of an archive of either form, plain or compressed; ``name`` for one that has none.

    Raises ImageError when it is no such archive, or one of its images is refused.
    """
    with store.scratch("load") as scratch:
        parts = _Parts(source, scratch, store)
        if (index := parts.document("index.json")) is not None:
            return [_adopt_oci(parts, entry, name, store) for entry in _list(index, "manifests")]
        if (listed := parts.document("manifest.json")) is not None:
            return [image for one in listed for image in _adopt_docker(parts, one, name, store, scratch)]
    raise ImageError("the file is neither an OCI archive nor a Docker archive", hint=REFUSED)


# -- writing -------------------------------------------------------------------------------------------------


def _save_oci(images: Sequence[Image], store: Store, archive: tarfile.TarFile) -> None:
    _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    entries = []
    blobs: dict[str, None] = {}
    for image in images:
        manifest = store.read_json(image.digest)
        kind = manifest.get("mediaType", MANIFEST_TYPE)
        size = store.blob(image.digest).stat().st_size
        notes = {REF_NAME: image.name, DOCKER_NAME: full_name(image.name)}
        entries.append({"mediaType": kind, "digest": image.digest, "size": size, "annotations": notes})
        blobs |= dict.fromkeys(
            [image.digest, manifest["config"]["digest"], *(layer.digest for layer in image.layers)]
        )
    _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": entries}))
    for digest in blobs:
        path = store.blob(digest)
        try:
            with path.open("rb") as blob:
                _add_stream(archive, f"blobs/sha256/{path.name}", blob, path.stat().st_size)
        except FileNotFoundError as error:
            raise ImageError(f"blob {digest} is missing", hint="build or fetch the image again") from error


def _save_docker(images: Sequence[Image], store: Store, archive: tarfile.TarFile) -> None:
    listed = []
    done: set[str] = set()
    for image in images:
        config = store.blob(store.read_json(image.digest)["config"]["digest"])
        layers = [f"{store.blob(layer.diff_id).name}.tar" for layer in image.layers]
        for layer, name in zip(image.layers, layers, strict=True):
            if name not in done:
                _add_plain_layer(archive, name, layer, store)
        if config.name not in done:
            _add(archive, f"{config.name}.json", config.read_bytes())
        done |= {config.name, *layers}
        tags = [] if "@" in image.name else [image.name]
        listed.append({"Config": f"{config.name}.json", "RepoTags": tags, "Layers": layers})
    _add(archive, "manifest.json", _json(listed))


def _add_plain_layer(archive: tarfile.TarFile, name: str, layer: Layer, store: Store) -> None:
    """The header has to tell the size, which is known only afterwards: hence twice."""
    path = store.blob(layer.digest)
    with path.open("rb") as blob:
        reader = decompressed(blob)
        size = sum(map(len, iter(lambda: reader.read(CHUNK_BYTES), b"")))
    with path.open("rb") as blob:
        _add_stream(archive, name, cast(IO[bytes], _Exactly(decompressed(blob))), size)


class _Exactly:
    """Reads as much as is asked for, where a decompressor gives what it has."""

    def __init__(self, source: Reader) -> None:
        self._source = source

    def read(self, size: int) -> bytes:
        found = self._source.read(size)
        while found and len(found) < size and (more := self._source.read(size - len(found))):
            found += more
        return found


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    _add_stream(archive, name, io.BytesIO(data), len(data))


def _add_stream(archive: tarfile.TarFile, name: str, data: IO[bytes], size_bytes: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o644, int(epoch().timestamp())
    archive.addfile(info, data)


def full_name(name: str) -> str:
    """A name with its registry, as Docker's own tools write it: ``python:3`` → ``docker.io/library/python:3``."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# -- reading -------------------------------------------------------------------------------------------------


class _Parts:
    """An archive's files, in scratch space under numbers; found by the names they have in the archive."""

    def __init__(self, source: IO[bytes], scratch: Path, store: Store) -> None:
        self._files: dict[bytes, Path] = {}
        self._links: dict[bytes, bytes] = {}
        self._store = store
        self.missing = scratch / "missing"
        bounds = Bounds.configured()
        with Ahead(seekable(source, scratch), bounds) as content:
            stream = TarStream(content.read, bounds)
            for number, member in enumerate(stream):
                self._keep(stream, member, scratch / str(number))

    def _keep(self, stream: TarStream, member: tarstream.Member, place: Path) -> None:
        name = components(member.name)
        if member.kind == tarstream.FILE and member.extents is None:
            with place.open("wb") as writer:
                for piece in stream.data():
                    writer.write(piece)
            self._files[name] = place
        elif member.kind == tarstream.HARD_LINK:
            self._links[name] = components(member.link)
        elif member.kind == tarstream.SYMLINK:  # docker save's ../ID/layer.tar for a layer that is there twice
            self._links[name] = _beside(name, member.link)

    def path(self, name: str) -> Path:
        """Where the file ``name`` is; a path that does not exist when the archive has none."""
        wanted = name.encode()
        return self._files.get(self._links.get(wanted, wanted), self.missing)

    def blob(self, digest: str) -> Path:
        """As `path`, for a blob of an OCI layout."""
        return self.path(f"blobs/sha256/{self._store.blob(digest).name}")

    def document(self, name: str) -> Any:
        """A JSON file of the archive; None when there is none. Raises ImageError."""
        path = self.path(name)
        if not path.exists():
            return None
        try:
            if path.stat().st_size > DOCUMENT_BYTES:
                raise ValueError("too long")
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise ImageError(f"the archive's {name} can't be read: {error}", hint=REFUSED) from error


def _beside(name: bytes, target: bytes) -> bytes:
    """Where a relative link leads; nowhere when it leaves the archive."""
    parts = name.split(b"/")[:-1]
    for part in target.split(b"/"):
        if part == b"..":
            if not parts:
                return b""
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _adopt_oci(parts: _Parts, entry: Any, name: str, store: Store) -> Image:
    try:
        notes = entry.get("annotations") or {}
        digest = entry["digest"]
        known = name or notes.get(DOCKER_NAME) or notes.get(REF_NAME) or ""
        manifest = read_document(parts.blob, digest)
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise ImageError("the archive's index leads to nothing", hint=REFUSED) from error
    if not known:
        raise ImageError("the archive does not name its image", hint="lab image load FILE --name NAME")
    return adopt(manifest, parts.blob, known, store, Origin.LOADED)


def _adopt_docker(parts: _Parts, listed: Any, name: str, store: Store, scratch: Path) -> Iterator[Image]:
    """One entry of manifest.json, under each of its names."""
    try:
        config = parts.path(listed["Config"])
        names = [name] if name else list(listed.get("RepoTags") or [])
        paths = [parts.path(each) for each in listed["Layers"]]
        if config.stat().st_size > DOCUMENT_BYTES or len(paths) > MOST_LAYERS:
            raise ImageError(f"a document or a number of layers beyond {MOST_LAYERS} that no image has", hint=REFUSED)
        diff_ids = json.loads(config.read_bytes())["rootfs"]["diff_ids"]
        pairs = list(zip(diff_ids, paths, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
        raise ImageError("the archive's manifest.json leads to nothing", hint=REFUSED) from error
    if not names:
        raise ImageError("the archive does not name its image", hint="lab image load FILE --name NAME")
    found = {_digest(config): config}
    layers = []
    for number, (diff_id, path) in enumerate(pairs):
        if not path.exists():
            raise ImageError(f"layer {number + 1} is missing in the archive", hint=REFUSED)
        packed = scratch / f"{config.name}-{number}.zst"
        with path.open("rb") as plain:
            layer = compress(plain, packed, Bounds.configured())
        if layer.diff_id != diff_id:
            raise ImageError(
                f"a layer's content is {layer.diff_id}, but the image says {diff_id}", hint="build or fetch it again"
            )
        found[layer.digest] = packed
        layers.append({"mediaType": TAR_ZSTD, "digest": layer.digest, "size": layer.size_bytes})
    described = {"mediaType": CONFIG_TYPE, "digest": _digest(config), "size": config.stat().st_size}
    manifest = _json({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described, "layers": layers})
    for each in names:
        yield adopt(manifest, lambda digest: found.get(digest, parts.missing), each, store, Origin.LOADED)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return f"sha256:{hashlib.file_digest(handle, 'sha256').hexdigest()}"


def _list(document: Any, key: str) -> list[Any]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, list) or not found:
        raise ImageError(f"the archive's index has no {key}", hint=REFUSED)
    return found
