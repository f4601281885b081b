"""A kit's making: images by their builds, the guest, the helper, the packages, lab itself."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lab import __version__
from lab.backends.site import Site
from lab.commands.building.images import build_with
from lab.commands.kit import (
    BLOBS,
    CLONE,
    DESCRIPTION,
    FORMAT,
    GUEST,
    HELPER,
    INDEX,
    PACK_SECONDS,
    SUMS,
    WHEELS,
    python,
    system,
)
from lab.commands.output import say
from lab.errors import LabError
from lab.host.command import run
from lab.hypervisor.guest.artefacts import folder_of, prepare_guest
from lab.hypervisor.kinds import MICROVM, PC
from lab.images.image import Image
from lab.images.layers import Layer
from lab.images.store import Store
from lab.images.transfer import trust
from lab.inside import build as inside
from lab.model import Scenario

ROOT = Path(__file__).parents[3]
WHEEL_SECONDS = 1800.0
BUILDING = ("pip", "setuptools>=77")
"""What an editable installation asks for besides the extra."""


class Recorded(Store):
    """The store, which remembers what was asked of it: which images a build began with, which layers were cached."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.found: dict[str, Image] = {}
        self.keys: dict[str, Layer] = {}

    def find(self, name: str) -> Image:
        image = super().find(name)
        self.found[image.name] = image
        return image

    def cached_layer(self, key: str) -> Layer | None:
        if layer := super().cached_layer(key):
            self.keys[key] = layer
        return layer


def make(target: Path, scenarios: Sequence[Scenario]) -> Mapping[str, object]:
    """Write the kit of these scenarios to ``target``, which gets its name once it is whole; its description.

    Needs root and, for what is not there yet, the network. Raises LabError when lab is no clone, or a part of it
    can't be made.
    """
    tracked = _tracked()
    with Site.open() as site:
        store = Recorded(site.store.home)
        built = [build_with(store, site.launcher, each) for each in scenarios]
        for again in scenarios:  # what a first build makes, a second finds
            build_with(store, site.launcher, again)
        images = {image.name: image for image in (*store.found.values(), *built)}
        with store.scratch("kit") as folder:
            _images(folder, store, images)
            say("packing the guest")
            _guest(folder, store.home)
            shutil.copy(inside.program(store.home), folder / HELPER)
            say("fetching and compiling Python packages")
            with store.scratch("trust") as scratch:
                _wheels(folder / WHEELS, scratch)
            description = {
                "format": FORMAT,
                "lab": __version__,
                "system": system(),
                "python": python(),
                "images": sorted(images),
                "guest": folder_of(store.home).name,
                "helper": inside.digest(),
            }
            (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
            _write(folder, target, tracked)
    return description


def _tracked() -> list[Path]:
    """What git knows of this clone, and nothing else: keys and hand-ins may lie beside. Raises LabError."""
    done = run(
        ["git", "-C", ROOT, "ls-files", "-z"],
        timeout_seconds=60,
        check=False,
    )
    names = [name for name in done.stdout.decode("utf-8", "surrogateescape").split("\0") if name]
    if done.exit_code or "bootstrap" not in names:
        raise LabError(f"{ROOT} is no clone of lab's", hint="a kit is made of one: git clone, then ./bootstrap lab …")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def _images(folder: Path, store: Recorded, images: Mapping[str, Image]) -> None:
    (folder / BLOBS).mkdir()
    layers = [*(layer for image in images.values() for layer in image.layers), *store.keys.values()]
    documents = [image.digest for image in images.values()]
    configurations = [store.read_json(digest)["config"]["digest"] for digest in documents]
    for digest in {*documents, *configurations, *(layer.digest for layer in layers)}:
        (folder / BLOBS / store.blob(digest).name).hardlink_to(store.blob(digest))
    entries = [entry for entry in store.entries() if entry["digest"] in documents]
    cache = {key: asdict(layer) for key, layer in store.keys.items()}
    (folder / INDEX).write_text(json.dumps({"images": entries, "cache": cache}, indent=1))


def _guest(folder: Path, home: Path) -> None:
    for design in (MICROVM, PC):
        prepare_guest(home, design)
    parts = folder_of(home)
    words: list[str | Path] = [
        "tar",
        "--create",
        "--sparse",
        "--gzip",
        "--file",
        folder / GUEST,
        "--directory",
        parts.parent,
    ]
    run([*words, "--exclude=loader*", parts.name], timeout_seconds=PACK_SECONDS, hint="apt-get install tar gzip")


def _wheels(folder: Path, scratch: Path) -> None:
    """Of what lab asks for, not of lab itself: that would be built in this clone. ``scratch`` is not the kit's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["measure"], *BUILDING]
    words: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--quiet"]
    constraints = ROOT / "constraints.txt"
    run(
        [*words, "--wheel-dir", folder, "--constraint", constraints, *wanted],
        timeout_seconds=WHEEL_SECONDS,
        environment={"PIP_CONSTRAINT": str(constraints), **trust.variables(trust.write(scratch))},
        hint="a kit is made where there is a network; its users need none",
    )


def _write(folder: Path, target: Path, tracked: Sequence[Path]) -> None:
    """One tar, with what names and checks the others first."""
    parts = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path for path in parts}
    named |= {f"{CLONE}/{path.relative_to(ROOT)}": path for path in tracked}
    sums = "".join(f"{_sha256(path)}  {name}\n" for name, path in named.items())
    (folder / SUMS).write_text(sums, "utf-8", "surrogateescape")
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT, dereference=True) as archive:
            for name in (DESCRIPTION, SUMS, *(name for name in named if name != DESCRIPTION)):
                archive.add(named.get(name, folder / name), name, recursive=False, filter=_nobodys)
        unfinished.replace(target)
    except OSError as error:
        raise LabError(
            f"{target} can't be written: {error.strerror}", hint="name a FILE where there is room"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o644
    return member


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
