"""The build cache: which layer a step made, by a key of everything it depends on.

A key holds the layers below by content, the instruction with its variables replaced, and the bytes it copies. Never
a time, and nothing of where the build happens, so that another machine's keys, kept in the history of the images it
built, mean the same here (``--cache-from``).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.images.layers import Layer, epoch
from lab.images.ociconfig import Step, history_from_oci
from lab.images.store import Image, Store

CLOCK_LAG_SECONDS = 1.0  # files get the time of the kernel's last tick, which may lie before the step's begin
FORMAT = 2  # of keys: another one makes all that is cached unknown


def key(below: Sequence[Layer], kind: str, parts: Sequence[object]) -> str:
    """The key of a step on top of ``below``; ``parts`` survive JSON."""
    layers = [layer.diff_id for layer in below]
    text = json.dumps([FORMAT, layers, epoch().isoformat(), kind, parts], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A step's layer, and where it came from."""

    layer: Layer
    cached: bool


class Cache:
    """What one build may take from the cache; safe from several threads. ``imported`` are other images' keys."""

    def __init__(self, store: Store, *, use: bool = True, imported: Mapping[str, Layer] | None = None) -> None:
        self._store = store
        self._use = use
        self._imported = imported or {}

    def layer(self, name: str, make: Callable[[Path], None]) -> Made:
        """The layer of key ``name``, or what ``make`` fills ``upper`` of a scratch directory with."""
        if found := self._find(name):
            return Made(layer=found, cached=True)
        with self._store.scratch("step") as directory:
            began, clock = time.time() - CLOCK_LAG_SECONDS, time.monotonic()
            make(directory)
            found = self._store.add_layer(directory / "upper", fresh_since=float(int(began)))
            seconds = time.monotonic() - clock
        self._store.cache_layer(name, found, seconds=seconds)
        return Made(layer=found, cached=False)

    def _find(self, name: str) -> Layer | None:
        if not self._use:
            return None
        found = self._store.cached_layer(name)
        if found is None and (found := self._imported.get(name)) is not None:
            self._store.cache_layer(name, found)
        return found


def keys_of(store: Store, image: Image) -> dict[str, Layer]:
    """The cache keys that an image's own history holds, with the layers they made."""
    layers = iter(image.layers)
    found = {}
    for step in history(store, image):
        layer = None if step.empty_layer else next(layers, None)
        if layer is not None and step.cache_key:
            found[step.cache_key] = layer
    return found


def history(store: Store, image: Image) -> tuple[Step, ...]:
    """The steps in an image's configuration, oldest first."""
    manifest = store.read_json(image.digest)
    return history_from_oci(store.read_json(manifest["config"]["digest"]))
