"""All that the store knows of an image, as ``lab image inspect`` and ``history`` print it."""

from __future__ import annotations

from typing import Any

from lab.images.ociconfig import history_from_oci
from lab.images.space.locks import holders
from lab.images.store import Image, Layer, Store
from lab.images.upkeep.prune import disk_usage


def describe(store: Store, image: Image) -> dict[str, Any]:
    """One image as docker inspect has it, as far as the two mean the same; and what only lab knows."""
    manifest = store.read_json(image.digest)
    document = store.read_json(manifest["config"]["digest"])
    everyone = store.images()
    return {
        "Name": image.name,
        "Names": [one.name for one in everyone if one.digest == image.digest],
        "Digest": image.digest,
        "ConfigDigest": manifest["config"]["digest"],
        "MediaType": manifest.get("mediaType", ""),
        "Created": image.created.isoformat(),
        "Architecture": document.get("architecture", ""),
        "Os": document.get("os", ""),
        "Author": document.get("author", ""),
        "Origin": str(image.origin),
        "Base": {"Name": image.base.name, "Digest": image.base.digest, "Origin": str(image.base.origin)}
        if image.base
        else None,
        "Annotations": dict(image.annotations),
        "Config": document.get("config") or {},
        "Size": image.size_bytes,
        "Layers": [_layer(store, layer) for layer in image.layers],
        "Chain": image.chain,
        "Disk": _size_of(store, f"disks/{image.chain}.ext4"),
        "Manifest": _size_of(store, f"manifests/{image.chain}.txt"),
        "UsedBy": {
            "Processes": holders(store.pin(image.chain)),
            "Images": [one.name for one in everyone if one.base is not None and one.base.digest == image.digest],
            "SharesLayersWith": _sharing(image, everyone),
        },
    }


def steps(store: Store, image: Image) -> list[dict[str, Any]]:
    """What made the image, the newest step first. A layer that no step accounts for stands by itself."""
    document = store.read_json(store.read_json(image.digest)["config"]["digest"])
    layers = list(image.layers)
    found = []
    for step in history_from_oci(document):
        layer = None if step.empty_layer or not layers else layers.pop(0)
        seconds = store.step_seconds(step.cache_key) if step.cache_key else None
        found.append(_step(step.created_by, layer, seconds))
    found += [_step("", layer, None) for layer in layers]
    return found[::-1]


def _step(created_by: str, layer: Layer | None, seconds: float | None) -> dict[str, Any]:
    return {
        "CreatedBy": created_by,
        "Layer": layer.digest if layer else "",
        "Size": layer.size_bytes if layer else 0,
        "Empty": layer is None,
        "Seconds": seconds,
    }


def _layer(store: Store, layer: Layer) -> dict[str, Any]:
    """``UnpackedSize`` is what it takes on the disk; None when it is not unpacked, or nobody may look."""
    unpacked: int | None = None
    try:
        unpacked = disk_usage(store.unpacked / layer.diff_id.removeprefix("sha256:"))
    except OSError:
        pass
    return {
        "Digest": layer.digest,
        "DiffID": layer.diff_id,
        "Size": layer.size_bytes,
        "MediaType": layer.media_type,
        "UnpackedSize": unpacked,
    }


def _size_of(store: Store, name: str) -> int | None:
    try:
        return (store.home / name).stat().st_blocks * 512
    except OSError:
        return None


def _sharing(image: Image, everyone: list[Image]) -> list[str]:
    mine = {layer.diff_id for layer in image.layers}
    return [
        one.name
        for one in everyone
        if one.digest != image.digest and any(layer.diff_id in mine for layer in one.layers)
    ]
