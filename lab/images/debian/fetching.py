"""A program of Debian's, fetched past the host's own releases by the host's apt: nothing of the host's is changed.

Lists and cache are a folder of lab's that is removed afterwards. The archive is the one that the host has its Debian
from, and its signature is checked against the keys that the host's entry names, as for every package.

Source: apt-get(8), apt.conf(5), apt-secure(8), dpkg-deb(1).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab.errors import BackendUnavailable, CommandError, LabError
from lab.host.command import run
from lab.host.home import home
from lab.host.identity import private
from lab.host.survey.virtualisation import platform
from lab.images.debian import apt
from lab.images.transfer import trust
from lab.images.transfer.trouble import find as find_trouble
from lab.model import Completed

FOLDER, FETCHING = "programs", ".fetching-"
UPDATE_SECONDS, DOWNLOAD_SECONDS = 300.0, 300.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """The files of a package, below ``root``."""

    version: str
    root: Path


def programs() -> Path:
    """Where fetched programs are kept, a folder for each version of each."""
    return home() / FOLDER


def can_be_fetched(suite: str) -> bool:
    """Whether the host's apt has a Debian archive to ask."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb") and apt.sources_beyond(suite))


def fetch_once(
    package: str,
    suite: str,
    *,
    told: Callable[[Path], None],
    known: Callable[[], T | None],
    keep: Callable[[Unpacked, Path], T],
    also: Sequence[str] = (),
) -> T:
    """What ``known`` finds, or ``keep`` makes of ``package`` of ``suite``, and of those that it ``also`` needs, once
    ``told`` has heard where it will be.

    ``keep`` gets the package's files and an empty folder, which it fills and renames to its place below `programs`.
    One process fetches, and others wait for it. Raises BackendUnavailable where there is no archive to ask, LabError
    when it can't be had.
    """
    if (found := known()) is not None:
        return found
    sources = apt.sources_beyond(suite)
    if not sources:
        raise BackendUnavailable(
            f"this host's apt has no Debian archive to fetch {package} from", hint=f"put a {package} into PATH"
        )

    def obtain(scratch: Path) -> T:
        unpacked = _unpack(package, also, sources, scratch)
        made = scratch / "made"
        made.mkdir(mode=private.FOLDER)
        return keep(unpacked, made)

    return once(told=told, known=known, obtain=obtain)


def once(*, told: Callable[[Path], None], known: Callable[[], T | None], obtain: Callable[[Path], T]) -> T:
    """What ``known`` finds, or ``obtain`` gets once ``told`` has heard where it will be: below `programs`.

    ``obtain`` gets a folder that is removed afterwards. One process fetches, and others wait for it.
    """
    place = programs()
    private.make_folder(place)
    lock = private.lock_file(place / ".lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for abandoned in place.glob(f"{FETCHING}*"):  # by one that was killed: nobody else fetches now
            shutil.rmtree(abandoned)
        if (found := known()) is not None:
            return found
        told(place)
        with tempfile.TemporaryDirectory(prefix=FETCHING, dir=place) as folder:
            return obtain(Path(folder))
    finally:
        os.close(lock)


def _unpack(package: str, also: Sequence[str], sources: str, scratch: Path) -> Unpacked:
    options = _prepare(sources, scratch)
    said = ""
    try:
        # It ends well where no server answered, "old ones used instead", and there are no old ones here.
        said = _apt(scratch, [*options, "update", "--quiet"], UPDATE_SECONDS).stderr.decode("utf-8", "replace")
        _apt(scratch, [*options, "download", "--quiet", package, *also], DOWNLOAD_SECONDS)
    except CommandError as error:
        if (found := find_trouble(f"{said}\n{error.detail}")) is None:
            raise
        raise LabError(f"{package} could not be fetched: {found.what}", hint=found.hint, detail=found.line) from error
    (archive,) = scratch.glob(f"{package}_*.deb")
    version = run(["dpkg-deb", "--field", archive, "Version"], timeout_seconds=30).stdout.decode().strip()
    for each in scratch.glob("*.deb"):
        run(["dpkg-deb", "--extract", each, scratch / "root"], timeout_seconds=60)
    return Unpacked(version=version.replace("/", "-"), root=scratch / "root")


def _prepare(sources: str, scratch: Path) -> list[str]:
    """apt's options for lists and a cache of its own; nothing is written below /var."""
    for folder in ("state/lists/partial", "cache/archives/partial", "sources"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    (scratch / "sources" / "debian.sources").write_text(sources)
    settings = {
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": os.devnull,
        "Dir::Etc::sourceparts": scratch / "sources",
        "Dir::Etc::preferencesparts": os.devnull,
        "Dir::Etc::preferences": os.devnull,
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # the folder is the owner's alone
    }
    if (bundle := trust.write(scratch)) is not None:
        settings["Acquire::https::CaInfo"] = bundle
    return [f"--option={name}={value}" for name, value in settings.items()]


def _apt(scratch: Path, words: list[str], timeout_seconds: float) -> Completed:
    return run(
        ["setpriv", "--pdeathsig=KILL", "apt-get", *words],
        timeout_seconds=platform().patience * timeout_seconds,
        called="apt-get",
        directory=scratch,
        hint="check that `apt-get update` works on this host",
    )
