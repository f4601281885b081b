"""Files into a running instance and out of it: tar streams between this process and lab's helper inside.

The helper packs and unpacks within the instance's own root (inside/pack.c, unpack.c), so the image needs no tar and
no path leads out of the instance. What comes out of one is as hostile as the instance may be: it is unpacked below a
new folder beside the destination, which nothing in the stream can leave, and moved from there.
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lab.errors import LabError, UsageError
from lab.host.identity import privilege
from lab.images.tar import tarstream
from lab.images.tar.bounds import Bounds
from lab.images.tar.extract import Extractor
from lab.images.tar.tarstream import TarStream
from lab.instance import INSIDE
from lab.runtime.channel import Channel, ChannelClosed
from lab.supervisor import client
from lab.supervisor.control import Answer
from lab.supervisor.record import InstanceRecord

ROOT_NAME = "content"  # what the helper is told to call what it packs
CHUNK_BYTES = 1 << 18
KEPT_MODE = 0o1777  # a set-user-ID file out of an instance would be one of the host's
BOUNDS = Bounds(files=10_000_000, size_bytes=1 << 44)
LEFT_OUT = (tarstream.CHARACTER, tarstream.BLOCK_DEVICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As those of Docker's cp: keep owners and modes as they are, and follow SRC if it is a link."""

    archive: bool = False
    follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where something goes: ``directory`` exists; ``name`` is a new name in it, or ``.`` for its contents."""

    directory: str
    name: str


def place(source: str, destination: str, *, of_directory: bool, kind: str) -> Placed:
    """Docker's rules (docker cp, "Extended description"). ``kind`` of the destination is directory, file or absent.

    Raises UsageError for what they forbid.
    """
    contents = of_directory and (source in (".", "/") or source.endswith("/."))
    name = posixpath.basename(posixpath.normpath(source))
    if kind == "directory":
        return Placed(directory=destination, name="." if contents or not name else name)
    if kind == "file" and (of_directory or destination.endswith("/")):
        raise UsageError(f"{destination} is no folder")
    if kind == "absent" and not of_directory and destination.endswith("/"):
        raise UsageError(f"there is no folder {destination}", hint="make it first, or leave out the / at the end")
    folder, _, last = destination.rstrip("/").rpartition("/")
    return Placed(directory=folder or ("/" if destination.startswith("/") else "."), name=last)


# In


def send(record: InstanceRecord, source: str, destination: str, options: Options) -> None:
    """Copy ``source`` of the host, or ``-``, a tar archive on standard input, to ``destination`` inside."""
    destination = posixpath.join("/", destination)
    kind = _kind_inside(record, destination)
    if source == "-":
        if kind != "directory":
            raise UsageError(f"{record.name}:{destination} is no folder")
        _unpack(record, destination, _all_of_standard_input, Options(archive=True))
        return
    status = _status(source, follow=options.follow or source.endswith("/"))
    placed = place(source, destination, of_directory=stat.S_ISDIR(status.st_mode), kind=kind)

    def write(sink: IO[bytes]) -> None:
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            tar.add(os.path.realpath(source) if options.follow else source, arcname=placed.name)

    _unpack(record, placed.directory, write, options)


def _unpack(record: InstanceRecord, directory: str, write: Callable[[IO[bytes]], None], options: Options) -> None:
    owner = [] if options.archive else ["--owner", "0:0"]
    with ExitStack() as opened:
        read, sink = os.pipe2(os.O_CLOEXEC)
        file = opened.enter_context(os.fdopen(sink, "wb"))
        with _helper(record, ["unpack", *owner, directory], stdin=read) as end:
            os.close(read)
            with suppress(BrokenPipeError):  # the helper says why it has gone
                write(file)
                file.flush()
            with suppress(BrokenPipeError):
                file.close()
            end()


def _all_of_standard_input(sink: IO[bytes]) -> None:
    with open(0, "rb", closefd=False) as source:
        shutil.copyfileobj(source, sink, CHUNK_BYTES)


# Out


def fetch(record: InstanceRecord, source: str, destination: str, options: Options) -> list[str]:
    """Copy ``source`` inside to ``destination`` of the host. Returns the names of what was left out: devices."""
    kind = "absent"
    with suppress(FileNotFoundError):
        kind = "directory" if stat.S_ISDIR(Path(destination).stat().st_mode) else "file"
    parent = Path(destination) if kind == "directory" else Path(destination.rstrip("/")).parent
    if not parent.is_dir():
        raise UsageError(f"there is no folder {parent}")
    with tempfile.TemporaryDirectory(dir=parent, prefix=".lab-cp-") as scratch:
        staging = Path(scratch, "staging")
        left_out = _receive(record, source, staging, options)
        found = staging / ROOT_NAME
        placed = place(source, destination, of_directory=_is_directory(found), kind=kind)
        merge(found, Path(os.path.realpath(placed.directory), placed.name))
    return left_out


def stream(record: InstanceRecord, source: str, sink: int, options: Options) -> None:
    """``source`` inside as a tar archive to the descriptor ``sink``."""
    path = posixpath.join("/", source)
    name = posixpath.basename(posixpath.normpath(path)) or "."
    with _helper(record, _packing(path, "." if path.endswith("/.") else name, options), stdout=sink) as end:
        end()


def _receive(record: InstanceRecord, source: str, staging: Path, options: Options) -> list[str]:
    """Unpack ``source`` as ``staging``/ROOT_NAME."""
    read, sink = os.pipe2(os.O_CLOEXEC)
    words = _packing(posixpath.join("/", source), ROOT_NAME, options)
    with os.fdopen(read, "rb", 0) as file, _helper(record, words, stdout=sink, called=source) as end:
        os.close(sink)
        left_out = unpack_hostile(lambda: file.read(CHUNK_BYTES), staging, options)
        while file.read(CHUNK_BYTES):  # what fills up the last record
            pass
        end()
    return left_out


def unpack_hostile(read: Callable[[], bytes], staging: Path, options: Options) -> list[str]:
    """A tar archive of one entry, ROOT_NAME, with what is below it, into the new folder ``staging``.

    Returns the names that were left out. Raises LabError for an archive that holds anything else or leads out.
    """
    left_out = []
    tar = TarStream(read, BOUNDS)
    with Extractor(staging, whiteouts=False, bounds=BOUNDS) as extractor:
        for member in tar:
            if member.name.partition(b"/")[0] != ROOT_NAME.encode():
                raise LabError("the instance sent what it was not asked for")
            if member.kind in LEFT_OUT:
                left_out.append(os.fsdecode(member.name))
                continue
            member.xattrs.clear()
            if not options.archive:
                member.uid, member.gid = privilege.user_id(), privilege.group_id()
                member.mode &= KEPT_MODE
            extractor.extract(tar, member)
    return left_out


def _packing(path: str, name: str, options: Options) -> list[str]:
    follow = options.follow or path.endswith("/")
    return ["pack", *(["--follow"] if follow else []), path, name]


def merge(source: Path, target: Path) -> None:
    """Move ``source`` to be ``target``; folders that are there already are joined, anything else is replaced.

    Both are on one file system. Raises UsageError where a folder would replace a file, or a file a folder.
    """
    if _is_directory(source) and _is_directory(target):
        for child in sorted(source.iterdir()):
            merge(child, target / child.name)
    elif _is_directory(source) and os.path.lexists(target):
        raise UsageError(f"{target} is no folder")
    elif _is_directory(target):
        raise UsageError(f"{target} is a folder")
    else:
        source.rename(target)


# The helper


@contextmanager
def _helper(
    record: InstanceRecord,
    words: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    called: str = "",
) -> Iterator[Callable[[], None]]:
    """lab's helper inside, as root. Yields what waits for its end, and raises what it complained about.

    ``called`` is what the user calls what the helper knows as ROOT_NAME.
    """
    with ExitStack() as opened:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        opened.callback(os.close, null)
        complaints = os.memfd_create("stderr", os.MFD_CLOEXEC)
        opened.callback(os.close, complaints)
        channel = client.begin(
            record,
            [INSIDE, *words],
            descriptors=(null if stdin is None else stdin, null if stdout is None else stdout, complaints),
            environment={},
            directory="/",
            user="0:0",
        )
        opened.callback(channel.close)
        yield lambda: _end(record, channel, complaints, called)


def _end(record: InstanceRecord, channel: Channel, complaints: int, called: str) -> None:
    try:
        code = client.answer(channel, Answer.EXITED)["code"]
    except ChannelClosed:
        raise LabError(f"the supervisor of {record.name} has died; the copy is not complete") from None
    if code != 0:
        text = os.pread(complaints, 1 << 16, 0).decode("utf-8", "replace").strip()
        said = [line.replace(f": {ROOT_NAME}", f": {called}", 1) if called else line for line in text.splitlines()]
        last = said[-1].partition(": ")[2] if said else f"lab's helper ended with exit code {code}"
        raise LabError(f"{record.name}: {last}", detail="\n".join(said[:-1]))


def _kind_inside(record: InstanceRecord, path: str) -> str:
    answer = os.memfd_create("stdout", os.MFD_CLOEXEC)
    try:
        with _helper(record, ["stat", path], stdout=answer) as end:
            end()
        found = json.loads(os.pread(answer, 1 << 16, 0))
    finally:
        os.close(answer)
    if found["ret"] < 0:
        return "absent"
    return "directory" if stat.S_ISDIR(int(found["mode"], 8)) else "file"


def _status(path: str, *, follow: bool) -> os.stat_result:
    try:
        return Path(path).stat(follow_symlinks=follow)
    except OSError as error:
        raise UsageError(f"{path}: {os.strerror(error.errno or 0)}") from error


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
