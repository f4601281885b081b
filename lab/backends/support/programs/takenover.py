"""lab's image in the store of another engine: brought there once, and known to be the same by its digests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.errors import LabError, ParityError
from lab.images.store import Image, Store
from lab.images.transfer import archive


class TakenOver:
    """The images that an engine has from lab. ``whose`` is how messages call the engine, ``folder`` its own place.

    ``load`` takes in a Docker archive, ``find`` tells what it knows of an image by its id, as Docker's API does
    ("ImageInspect"); both raise LabError. ``called`` is the name that an image gets there.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        whose: str,
        load: Callable[[Path], None],
        find: Callable[[str], Mapping[str, Any]],
        called: Callable[[Image], str] = lambda image: image.name,
    ) -> None:
        self._store = store
        self._folder = folder
        self._whose = whose
        self._load = load
        self._find = find
        self._called = called
        self._loaded: dict[str, str] = {}
        self._lock = threading.Lock()

    def take(self, image: Image) -> str:
        """The image's id there, which is the digest of its configuration; it is brought there the first time.

        Raises ParityError when other layers have been made of it than lab has.
        """
        with self._lock:
            if image.digest not in self._loaded:
                identity = str(self._store.read_json(image.digest)["config"]["digest"])
                if not self._has(identity):
                    self._bring(image)
                self._verify(image, identity)
                self._loaded[image.digest] = identity
            return self._loaded[image.digest]

    def layers(self, image: Image) -> list[Path]:
        """The engine's own copy of the image's layers, as folders: a driver of overlays has a folder for each."""
        data = self._find(self.take(image))["GraphDriver"].get("Data") or {}
        return [
            Path(each) for name in ("UpperDir", "LowerDir") for each in str(data.get(name, "")).split(":") if each
        ]

    def _has(self, identity: str) -> bool:
        with suppress(LabError):
            self._find(identity)
            return True
        return False

    def _bring(self, image: Image) -> None:
        place = self._folder / "image.tar"
        try:
            with place.open("wb") as target:
                archive.save([replace(image, name=self._called(image))], self._store, target, archive.Format.DOCKER)
            self._load(place)
        finally:
            place.unlink(missing_ok=True)

    def _verify(self, image: Image, identity: str) -> None:
        """There is an image with the configuration that lab's has, and layers of the same uncompressed bytes."""
        try:
            layers = self._find(identity)["RootFS"].get("Layers") or []
        except LabError as error:
            raise ParityError(
                f"{self._whose} knows no image {identity} after it was loaded: {error.message}"
            ) from error
        if layers != [layer.diff_id for layer in image.layers]:
            raise ParityError(
                f"{self._whose} made other layers of {image.name} than lab has", detail="\n".join(layers)
            )
