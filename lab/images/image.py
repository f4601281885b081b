"""What an image is to the store: a manifest, a configuration and layers under a name, and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from lab.errors import ImageError
from lab.images.layers import Layer
from lab.images.ociconfig import config_from_oci
from lab.model import ImageConfig

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "org.opencontainers.image.created"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
ORIGIN = "lab.origin"
BASE_ORIGIN = "lab.base.origin"
DIGITS = 12  # of a digest, at least, to mean an image


class Origin(StrEnum):
    """Where an image's bits came from; the same name from another origin is another image."""

    BUILT = "built"
    REGISTRY = "registry"
    RECIPE = "recipe"
    LOADED = "loaded"
    IMPORTED = "imported"
    DISK = "disk"  # a disk of the user's, which is in no store


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The image that another was built from."""

    name: str
    digest: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of the store. ``digest`` is its OCI manifest's, ``sha256:…``; ``layers`` has the bottom one first."""

    name: str
    digest: str
    config: ImageConfig
    layers: tuple[Layer, ...]
    origin: Origin
    created: datetime
    base: Base | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    file_bytes: int = 0  # of a disk, which has no layers

    @property
    def size_bytes(self) -> int:
        """The sum of the layers' compressed blobs."""
        return self.file_bytes + sum(layer.size_bytes for layer in self.layers)

    @property
    def chain(self) -> str:
        """A hex name of the file system alone: two images with the same layers share it."""
        return hashlib.sha256("\n".join(layer.diff_id for layer in self.layers).encode()).hexdigest()


def is_digest_of(word: str, digest: str) -> bool:
    """Whether ``word`` is ``digest`` or, in twelve digits or more, its beginning; ``sha256:`` may be left out."""
    digits = word.removeprefix("sha256:")
    return len(digits) >= DIGITS and digest.removeprefix("sha256:").startswith(digits)


def read_image(entry: Mapping[str, Any], read_json: Callable[[str], dict[str, Any]]) -> Image:
    """The image of an index's descriptor; ``read_json`` gives a blob. Raises ImageError for a broken one."""
    manifest = read_json(entry["digest"])
    try:
        ours = {key: value for key, value in entry["annotations"].items() if key.startswith("lab.")}
        notes = dict(manifest.get("annotations") or {})
        config = read_json(manifest["config"]["digest"])
        diff_ids = config["rootfs"]["diff_ids"]
        found = tuple(
            Layer(diff_id=diff_id, digest=one["digest"], size_bytes=one["size"], media_type=one["mediaType"])
            for diff_id, one in zip(diff_ids, manifest["layers"], strict=True)
        )
        # an image that lab did not make keeps its digest, so what lab knows of it stands in the index; anybody can
        # write a manifest, so nothing that such a one says in lab's name is believed
        if Origin(ours.get(ORIGIN, Origin.BUILT)) not in (Origin.BUILT, Origin.RECIPE):
            notes = {key: value for key, value in notes.items() if not key.startswith("lab.")}
        notes |= ours
        return Image(
            name=entry["annotations"][REF_NAME],
            digest=entry["digest"],
            config=config_from_oci(config),
            layers=found,
            origin=Origin(notes.get(ORIGIN, Origin.REGISTRY)),
            created=datetime.fromisoformat(entry["annotations"][CREATED]),
            base=_base(notes),
            annotations=notes,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"the image {entry['digest']} can't be read: {error}", hint="build or fetch it again"
        ) from error


def _base(notes: Mapping[str, str]) -> Base | None:
    if BASE_ORIGIN not in notes:
        return None
    return Base(name=notes[BASE_NAME], digest=notes[BASE_DIGEST], origin=Origin(notes[BASE_ORIGIN]))
