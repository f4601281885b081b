"""A kit's taking in, after `./bootstrap --kit` has installed the packages out of it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from lab import __version__
from lab.commands.kit import BLOBS, DESCRIPTION, FORMAT, GUEST, HELPER, INDEX, PACK_SECONDS, SUMS, python, system
from lab.commands.output import say
from lab.errors import ImageError, LabError
from lab.host.command import run
from lab.hypervisor.guest.artefacts import folder_of
from lab.images.image import CREATED, REF_NAME
from lab.images.layers import Layer
from lab.images.store import CACHE_KEY, Store
from lab.inside import build as inside

BLOB = re.compile(f"{BLOBS}/([0-9a-f]{{64}})")
BROKEN = "copy it again, and compare sha256sum"


def take(kit: Path) -> Mapping[str, Any]:
    """Put into lab's home what the kit holds and is not there yet; its description.

    Raises LabError for a file that is no kit, is broken, or was made for another system, Python or lab.
    """
    try:
        with tarfile.open(kit) as archive:
            description = _document(archive, DESCRIPTION)
            _require_fitting(kit, description)
            store = Store.open()
            _images(archive, store)
            program = store.home / "inside" / inside.digest() / "inside"
            if not program.exists():
                _helper(archive, program, store)
            if not folder_of(store.home).exists():
                _guest(archive, store)
    except (tarfile.TarError, EOFError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise LabError(f"{kit} is no kit of lab's, or broken: {error}", hint=BROKEN) from error
    return description


def _require_fitting(kit: Path, description: Mapping[str, Any]) -> None:
    here = {"format": FORMAT, "lab": __version__, "system": system(), "python": python()}
    here |= {"guest": folder_of(Path("/")).name, "helper": inside.digest()}
    for name, own in here.items():
        if description.get(name) != own:
            raise LabError(
                f"{kit} is for another {name}: {description.get(name)!r}, not {own!r}",
                hint="lab class kit FILE makes one, on a system like this and from the same clone",
            )


def _images(archive: tarfile.TarFile, store: Store) -> None:
    index = _document(archive, INDEX)
    with store.writing(), store.scratch("kit") as scratch:
        for member in archive:
            if (found := BLOB.fullmatch(member.name)) and member.isfile():
                digest = f"sha256:{found[1]}"
                if not store.blob(digest).exists():
                    _copy(archive, member.name, scratch / "blob")
                    store.adopt_blob(scratch / "blob", digest)
        for key, layer in index["cache"].items():
            if CACHE_KEY.fullmatch(key) and store.cached_layer(key) is None:
                store.cache_layer(key, Layer(**layer))
        for entry in index["images"]:
            notes = {name: text for name, text in entry["annotations"].items() if name not in (REF_NAME, CREATED)}
            name = entry["annotations"][REF_NAME]
            if name in store:
                say(f"{name} is here already, and kept")
            else:
                store.tag(name, entry, notes)


def _guest(archive: tarfile.TarFile, store: Store) -> None:
    """It has its name once it is whole, as where it is made."""
    wanted = folder_of(store.home)
    say("unpacking what machines boot from")
    with store.scratch("kit") as scratch:
        _copy(archive, GUEST, scratch / GUEST)
        _require_sum(archive, GUEST, scratch / GUEST)
        words: list[str | Path] = ["tar", "--extract", "--gzip", "--no-same-owner", "--file", scratch / GUEST]
        run([*words, "--directory", scratch, wanted.name], timeout_seconds=PACK_SECONDS, hint=BROKEN)
        wanted.parent.mkdir(exist_ok=True)
        (scratch / wanted.name).rename(wanted)


def _helper(archive: tarfile.TarFile, program: Path, store: Store) -> None:
    with store.scratch("kit") as scratch:
        _copy(archive, HELPER, scratch / "inside")
        _require_sum(archive, HELPER, scratch / "inside")
        (scratch / "inside").chmod(0o755)
        program.parent.mkdir(parents=True, exist_ok=True)
        (scratch / "inside").rename(program)


def _require_sum(archive: tarfile.TarFile, name: str, copy: Path) -> None:
    """Blobs are called by theirs, and wheels are checked before they are installed."""
    with copy.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if f"{found}  {name}" not in _open(archive, SUMS).read().decode("utf-8", "surrogateescape").splitlines():
        raise ImageError(f"the kit's {name} is damaged", hint=BROKEN)


def _document(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    found = json.loads(_open(archive, name).read())
    if not isinstance(found, dict):
        raise ImageError(f"the kit's {name} is no JSON object", hint=BROKEN)
    return found


def _copy(archive: tarfile.TarFile, name: str, target: Path) -> None:
    with target.open("wb") as writer:
        shutil.copyfileobj(_open(archive, name), writer)


def _open(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found
