"""Taking an image from elsewhere into the store: all of it is proven first, then it gets a name.

Its manifest is kept byte for byte, whoever's media types it has, so that an image keeps its digest on every way in
and out. Nobody vouches for what comes in: the digests have to match, and every layer has to unpack.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.errors import ImageError
from lab.host.identity.privilege import Need, granted
from lab.images.image import MANIFEST_TYPE, ORIGIN, Image, Origin
from lab.images.layers import Layer
from lab.images.ociconfig import architecture, config_from_oci
from lab.images.reference import normalise
from lab.images.store import Store
from lab.images.tar import contents
from lab.images.tar.bounds import DOCUMENT_BYTES

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
)  # fmt: skip
MANIFEST_TYPES = (MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
LAYER_TYPES = tuple(
    base + suffix
    for base, suffixes in {
        "application/vnd.oci.image.layer.v1.tar": ("", "+gzip", "+zstd"),
        "application/vnd.oci.image.layer.nondistributable.v1.tar": ("", "+gzip", "+zstd"),
        "application/vnd.docker.image.rootfs.diff.tar": ("", ".gzip", ".zstd"),
        "application/vnd.docker.image.rootfs.foreign.diff.tar": ("", ".gzip"),
    }.items()
    for suffix in suffixes
)
FOREIGN = ("nondistributable", "foreign")
MOST_LAYERS = 127  # as in Docker; overlayfs takes 500
REFUSED = "fetch it again, or don't use it"

Find = Callable[[str], Path]
"""Where the bytes of a digest are; a path that does not exist when they were not delivered."""


def adopt(
    manifest: bytes,
    find: Find,
    name: str,
    store: Store,
    origin: Origin,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Take in the image that ``manifest`` describes and call it ``name``.

    ``manifest`` may be an index: this machine's image is chosen. Raises ImageError, and then nothing has a name.
    """
    normalise(name)
    manifest, document = _choose(manifest, find)
    described = {
        "mediaType": document.get("mediaType", MANIFEST_TYPE),
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
    }
    try:
        config = document["config"]["digest"]
        settings = json.loads(read_document(find, config))
        layers = _layers(document["layers"], settings["rootfs"]["diff_ids"])
        config_from_oci(settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImageError(f"the image {name} can't be read: {error!r}", hint=REFUSED) from error
    for layer in layers:
        _prove(layer, find, store)
    with store.writing(), store.scratch("adopt") as scratch:
        for layer in layers:
            store.adopt_blob(find(layer.digest), layer.digest)
        store.adopt_blob(find(config), config)
        (scratch / "manifest").write_bytes(manifest)
        store.adopt_blob(scratch / "manifest", str(described["digest"]))
        return store.tag(name, described, {ORIGIN: origin.value, **(annotations or {})})


def read_document(find: Find, digest: str) -> bytes:
    """A manifest, index or configuration, proven and not too long. Raises ImageError."""
    path = find(digest)
    try:
        with path.open("rb") as handle:
            data = handle.read(DOCUMENT_BYTES + 1)
    except OSError as error:
        raise ImageError(f"blob {digest} is missing", hint=REFUSED) from error
    if len(data) > DOCUMENT_BYTES:
        raise ImageError(f"blob {digest} is larger than a document may be", hint=REFUSED)
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise ImageError(f"blob {digest} is damaged", hint=REFUSED)
    return data


def _choose(manifest: bytes, find: Find) -> tuple[bytes, dict[str, Any]]:
    """The manifest for this machine, down from an index; its bytes and what they say."""
    for _ in range(3):  # an index may hold indexes
        try:
            document = json.loads(manifest)
            kind = document.get("mediaType") or (INDEX_TYPES[0] if "manifests" in document else MANIFEST_TYPE)
            if kind in MANIFEST_TYPES:
                return manifest, document
            if kind not in INDEX_TYPES:
                raise ImageError(f"what was delivered is no image but {kind}", hint="lab runs OCI and Docker images")
            fitting = [one["digest"] for one in document["manifests"] if _fits(one)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ImageError("the image's manifest can't be read", hint=REFUSED) from error
        if not fitting:
            raise ImageError(
                "the image is not made for this machine", hint=f"this machine runs linux/{architecture()}"
            )
        manifest = read_document(find, fitting[0])
    raise ImageError("the image's manifest is an index of indexes of indexes", hint=REFUSED)


def _fits(entry: Mapping[str, Any]) -> bool:
    platform = entry.get("platform") or {}
    wanted = ("linux", architecture())
    return (platform.get("os", wanted[0]), platform.get("architecture", wanted[1])) == wanted


def _layers(listed: list[Mapping[str, Any]], diff_ids: list[str]) -> tuple[Layer, ...]:
    if len(listed) > MOST_LAYERS:
        raise ImageError(f"the image has {len(listed)} layers", hint=f"at most {MOST_LAYERS} can be stacked")
    for one in listed:
        if one["mediaType"] not in LAYER_TYPES:
            raise ImageError(f"a layer is of the unknown type {one['mediaType']}", hint=REFUSED)
    return tuple(
        Layer(diff_id=str(diff_id), digest=one["digest"], size_bytes=int(one["size"]), media_type=one["mediaType"])
        for diff_id, one in zip(diff_ids, listed, strict=True)
    )


def _prove(layer: Layer, find: Find, store: Store) -> None:
    """That the layer's bits are here, as many and as its two digests say, and that they unpack; root unpacks them."""
    path = find(layer.digest)
    if not path.exists():
        if any(word in layer.media_type for word in FOREIGN):
            raise ImageError(
                f"layer {layer.digest[:19]} is foreign: its publisher alone gives it out",
                hint="use an image without such layers",
            )
        raise ImageError(f"blob {layer.digest} is missing", hint=REFUSED)
    if path.stat().st_size != layer.size_bytes:
        raise ImageError(
            f"blob {layer.digest} has {path.stat().st_size} bytes instead of {layer.size_bytes}", hint=REFUSED
        )
    with path.open("rb") as blob:
        if hashlib.file_digest(blob, "sha256").hexdigest() != store.blob(layer.digest).name:
            raise ImageError(f"blob {layer.digest} is damaged", hint=REFUSED)
    if granted(Need.OWNERS):
        store.unpack(layer, path)
    else:
        with path.open("rb") as blob:
            contents.read_layer(blob, expected_diff_id=layer.diff_id)
