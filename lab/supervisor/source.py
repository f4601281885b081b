"""The image that an instance was launched from, as its record keeps it: its name may lead to another one by now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.images.image import CREATED, ORIGIN, REF_NAME, Image, read_image
from lab.images.ociconfig import config_to_oci


def encode_image(image: Image) -> dict[str, Any]:
    """As the store has it: a descriptor, a manifest, a configuration (OCI image-spec)."""
    notes = {REF_NAME: image.name, CREATED: image.created.isoformat(), ORIGIN: str(image.origin)}
    layers = [{"digest": one.digest, "size": one.size_bytes, "mediaType": one.media_type} for one in image.layers]
    return {
        "descriptor": {"digest": image.digest, "annotations": notes},
        "manifest": {"config": {"digest": "config"}, "layers": layers},
        "config": config_to_oci(image.config, [one.diff_id for one in image.layers]),
    }


def decode_image(value: Mapping[str, Any]) -> Image:
    """Raises KeyError or ImageError for what is no image."""
    descriptor = value["descriptor"]
    documents = {descriptor["digest"]: value["manifest"], "config": value["config"]}
    return read_image(descriptor, documents.__getitem__)
