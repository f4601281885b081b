"""What students hand in, as bytes: folders and zip files of run folders, whatever else is in them.

Nobody here believes them. No link is followed, no name becomes a path, of a run three files are read and nothing
else, and each of them only as far as a limit: what a zip file says of its sizes is not asked.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from lab.errors import ResultsError, UsageError
from lab.host.units import MIB
from lab.results.store import PROGRESS, RUN, SAMPLES

MOST_BYTES = {RUN: 2 * MIB, SAMPLES: 32 * MIB, PROGRESS: 2 * MIB}
"""Of one run's file; six blocks of four boundaries are 1 MiB of samples."""
MOST_OF_A_ZIP = 64 * MIB
MOST_HAND_INS, MOST_RUNS, MOST_ENTRIES, DEEPEST = 500, 8, 2000, 4
"""Hand-ins at once; runs, and files and folders that are looked at, of one hand-in; folders within each other."""
ZIP = ".zip"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1  # of a zip entry's flags (APPNOTE.TXT, section 4.4.4)
Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandIn:
    """What one student handed in, by a name that can be shown."""

    name: str
    path: Path


def hand_ins(paths: Sequence[Path]) -> list[HandIn]:
    """Each run folder and zip file that is named, and all that stand in a folder which is no run itself.

    Raises UsageError when there are none, or too many.
    """
    found: list[HandIn] = []
    for path in paths:
        if path.is_dir() and not (path / RUN).is_file():
            inside = sorted(each.name for each in os.scandir(path) if _may_be_one(each))
            found += [HandIn(name=_named(name), path=path / name) for name in inside]
        else:
            found.append(HandIn(name=_named(path.resolve().name), path=path))
    if not found:
        raise UsageError(
            "no run was handed in there", hint="name run folders, zip files of them, or a folder of both"
        )
    if len(found) > MOST_HAND_INS:
        raise UsageError(f"{len(found)} hand-ins at once are too many", hint=f"{MOST_HAND_INS} at most")
    return found


def _named(file: str) -> str:
    return tidy(file.removesuffix(ZIP)) or "a name that can't be shown"


def _may_be_one(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    return entry.is_symlink() or entry.is_dir(follow_symlinks=False) or entry.name.endswith(ZIP)


def runs_in(path: Path) -> Iterator[tuple[str, Files]]:
    """The runs of one hand-in, each with the name of its folder. Raises ResultsError, which says what is wrong."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise ResultsError("it is a link, which is not followed", hint="hand in the folder itself, or a zip file")
        found = _in_folder(path) if stat.S_ISDIR(status.st_mode) else _in_zip(path)
        count = 0
        for count, each in enumerate(found, 1):
            if count > MOST_RUNS:
                raise ResultsError(f"it holds more than {MOST_RUNS} runs", hint="hand in one")
            yield each
    except OSError as error:
        raise ResultsError(f"it can't be read: {error.strerror}", hint="check its permissions") from error
    if not count:
        raise ResultsError(f"it holds no run: there is no {RUN}", hint="hand in the whole run folder")


def _in_folder(path: Path) -> Iterator[tuple[str, Files]]:
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for looked, (folder, _, names, descriptor) in enumerate(_walk(path.name, top)):
            if looked > MOST_ENTRIES:
                raise ResultsError("it holds too many folders", hint="hand in the run folder alone")
            if RUN in names:
                yield (
                    PurePosixPath(folder).name,
                    {name: _read_file(name, descriptor) for name in MOST_BYTES if name in names},
                )
    finally:
        os.close(top)


def _walk(name: str, top: int) -> Iterator[tuple[str, list[str], list[str], int]]:
    """Folders from ``top`` down, by descriptors: none is entered by a link, nor one exchanged for it meanwhile."""
    for folder, folders, names, descriptor in os.fwalk(".", dir_fd=top, follow_symlinks=False):
        if folder.count("/") >= DEEPEST or RUN in names:
            folders.clear()
        folders.sort()
        yield (name if folder == "." else folder), folders, names, descriptor


def _read_file(name: str, folder: int) -> bytes:
    # without O_NONBLOCK a FIFO would be waited for (fifo(7))
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise ResultsError(f"{name} is no file", hint="hand in the whole run folder")
        return _bounded(name, file)


def _in_zip(path: Path) -> Iterator[tuple[str, Files]]:
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(opened, "rb") as file:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise ResultsError("it is neither a folder nor a file", hint="hand in a run folder, or a zip file of it")
        if status.st_size > MOST_OF_A_ZIP:
            raise ResultsError(f"it is larger than {MOST_OF_A_ZIP // MIB} MiB", hint="hand in one run")
        data = file.read(MOST_OF_A_ZIP)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from _members(archive, path.name.removesuffix(ZIP))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise ResultsError(
            f"it is no zip file that can be read: {tidy(str(error))}", hint="zip -r NAME.zip RUN"
        ) from error


def _members(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[str, Files]]:
    """The runs of an archive; of its other members, their number alone is looked at."""
    members = archive.infolist()
    if len(members) > MOST_ENTRIES:
        raise ResultsError(f"it holds more than {MOST_ENTRIES} files", hint="hand in the run folder alone")
    folders: dict[PurePosixPath, dict[str, zipfile.ZipInfo]] = {}
    for each in members:
        place = PurePosixPath(each.filename)
        if place.name not in MOST_BYTES or each.is_dir():
            continue
        if place.is_absolute() or ".." in place.parts or "\\" in each.filename or len(place.parts) > DEEPEST + 1:
            raise ResultsError(f"a name in it leads elsewhere: {tidy(each.filename)}", hint="zip -r NAME.zip RUN")
        if place.name in folders.setdefault(place.parent, {}):
            raise ResultsError(f"{tidy(each.filename)} is in it twice", hint="zip -r NAME.zip RUN")
        folders[place.parent][place.name] = each
    for folder, files in folders.items():
        if RUN in files:
            yield folder.name or name, {each: _read_member(archive, member) for each, member in files.items()}


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    name = PurePosixPath(member.filename).name
    kind = stat.S_IFMT(member.external_attr >> 16)  # as Unix's zip has it; 0 where the file was made elsewhere
    if kind not in (0, stat.S_IFREG):
        raise ResultsError(f"{name} is no file", hint="zip -r NAME.zip RUN")
    if member.flag_bits & ENCRYPTED:
        raise ResultsError("it is encrypted", hint="hand it in without a password")
    if member.compress_type not in METHODS:
        raise ResultsError("it is packed in an unusual way", hint="zip -r NAME.zip RUN")
    with archive.open(member) as file:
        return _bounded(name, file)


def _bounded(name: str, file: IO[bytes]) -> bytes:
    most = MOST_BYTES[name]
    data = file.read(most + 1)
    if len(data) > most:
        raise ResultsError(f"{name} is larger than {most // MIB} MiB", hint="hand in a shorter run")
    return data


def tidy(text: str, longest: int = 60) -> str:
    """Somebody else's text on one line, in letters that can be seen and that no terminal obeys."""
    shown = "".join(each if each.isprintable() else " " for each in text)
    plain = " ".join(shown.split())
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"
