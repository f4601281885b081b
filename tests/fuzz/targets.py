"""What is fuzzed: each parser of what strangers write, or what a crash may have cut off.

A target takes bytes and either returns or raises what the parser's contract names, which `carry_out` swallows.
Whatever else comes out is a crash: a traceback, where a user was to have one line with the remedy.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import shims
from lab.errors import DockerfileError, ImageError, LabError, UsageError
from lab.host.session import ledger
from lab.hypervisor.disks import qcow2
from lab.images.dockerfile import parse as dockerfile
from lab.images.tar.bounds import Bounds
from lab.images.tar.extract import unpack_archive
from lab.images.tar.tarstream import TarStream
from lab.model import Limits, Process
from lab.runtime import bundle
from lab.runtime.channel import BadMessage, parsed
from lab.runtime.config import model, mountoptions, validate
from lab.runtime.oci import blueprint, store
from lab.runtime.plan import CgroupsPlan
from lab.runtime.planning import translate
from lab.runtime.rootfs.mounts import DirectoryRoot
from lab.runtime.rootfs.mounttrees import parameters
from lab.supervisor.record import InstanceRecord

NAMES = itertools.count()
SMALL = Bounds(files=200, size_bytes=1 << 20, free_bytes=1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``function`` raises what is ``allowed``, or a crash. A fuzzer begins with ``seeds``, which are valid."""

    function: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]

    def carry_out(self, data: bytes) -> None:
        """Raises what is a crash."""
        with suppress(*self.allowed):
            self.function(data)


def configuration(data: bytes) -> object:
    """A bundle's config.json, as far as a plan."""
    found = model.from_json(blueprint.parsed(data.decode("utf-8", "surrogateescape"), "config.json"), lambda _: None)
    validate.check(found)
    validate.warnings(found)
    return translate.plan(
        found,
        DirectoryRoot(target="/root", source="/source"),
        name="c",
        cgroups=CgroupsPlan(unified="/u", tasks=[]),
        cgroup_controllers=("memory",),
        init=False,
        bundle="/bundle",
    ).to_json()


def options(data: bytes) -> object:
    """A mount's options, and the words of a file system's own."""
    text = data.decode("utf-8", "surrogateescape")
    return mountoptions.parse(text.split("\n")), list(parameters(text))


def message(data: bytes) -> object:
    """What another process sends to lab's small one."""
    return parsed(data)


def read_layer(data: bytes) -> object:
    """A layer's archive, member by member with its data."""
    pieces = iter([data[:700], data[700:], b""])
    stream = TarStream(lambda: next(pieces, b""), SMALL)
    return [(member, sum(len(piece) for piece in stream.data())) for member in stream]


SCRATCH = Path(os.environ.get("TMPDIR", "/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"))


def unpack_layer(data: bytes) -> object:
    """A layer, unpacked: nothing of it may appear elsewhere."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        target = Path(folder) / "layer"
        try:
            return unpack_archive(io.BytesIO(data), target, whiteouts=True, bounds=SMALL)
        finally:
            assert [path.name for path in Path(folder).iterdir()] == ["layer"], "written outside"
            shutil.rmtree(target)


def build_file(data: bytes) -> object:
    """A Dockerfile."""
    return dockerfile.parse(data.decode("utf-8", "replace"))


def disk_header(data: bytes) -> object:
    """The header of a disk of the user's."""
    return qcow2.read_header(io.BytesIO(data), "disk")


def disk_headers() -> list[bytes]:
    """Version 3 with a backing file, its format and a data file; version 2 with neither."""
    extensions = b"".join(
        qcow2.EXTENSION.pack(kind, len(text)) + text.ljust(-(-len(text) // 8) * 8, b"\0")
        for kind, text in [(qcow2.BACKING_FORMAT, b"raw"), (qcow2.DATA_FILE, b"data.img"), (qcow2.END, b"")]
    )
    begin = qcow2.FIXED.size + qcow2.MORE.size
    at = begin + len(extensions)
    third = qcow2.FIXED.pack(qcow2.MAGIC, 3, at, 8, 16, 1 << 20, 0, *[0] * 6)
    third += qcow2.MORE.pack(qcow2.EXTERNAL_DATA, 0, 0, 4, begin) + extensions + b"base.img"
    return [third, qcow2.FIXED.pack(qcow2.MAGIC, 2, 0, 0, 9, 1 << 20, 0, *[0] * 6)]


def oci_state(data: bytes) -> object:
    """lab-oci's state.json."""
    return store.State(shims.loads(data))


def instance_record(data: bytes) -> object:
    """A detached instance's record."""
    found = InstanceRecord.from_json(json.loads(data))
    return found.condition, json.dumps(found.to_json())


def session_ledger(data: bytes) -> object:
    """A session's ledger, which was written by a process that may have been killed meanwhile."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        for name in (ledger.LEDGER, ledger.OWNER, ledger.KEEPER):
            (Path(folder) / name).write_bytes(data)
        return ledger.resources(Path(folder)), ledger._owner_of(Path(folder))


# Seeds


def configurations() -> list[bytes]:
    small = Process(argv=("a",), environment={"A": "b"}, uid=1)
    made = [
        bundle.container_config(small, Limits(memory_bytes=1 << 26, cpus=1.0, pids=9)),
        bundle.process_config(small),
    ]
    texts = [json.dumps(model.to_json(each)).encode() for each in made]
    bare = {"ociVersion": "1.0.2", "root": {"path": "r"}, "process": {"args": ["a"], "cwd": "/"}}
    spaces = {"linux": {"namespaces": [{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/net"}]}}
    more = {"hooks": {"poststop": [{"path": "/a", "timeout": 1}]}, "annotations": {"a": "b"}}
    return [*texts, json.dumps(bare | spaces).encode(), json.dumps(bare | spaces | more).encode()]


def layers() -> list[bytes]:
    import tarfile

    found = []
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w", format=form) as archive:
            for name, kind in (("d", tarfile.DIRTYPE), ("d/f", tarfile.REGTYPE), ("l", tarfile.SYMTYPE)):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = kind, "d/f" if kind == tarfile.SYMTYPE else ""
                entry.size = 3 if kind == tarfile.REGTYPE else 0
                archive.addfile(entry, io.BytesIO(b"abc"))
            long = tarfile.TarInfo("d/" + "x" * 150 if form != tarfile.USTAR_FORMAT else "d/y")
            archive.addfile(long)
            archive.addfile(tarfile.TarInfo("d/.wh.f"))
        found.append(whole.getvalue()[:6000])
    return found


DOCKERFILES = [
    b"# syntax=docker/dockerfile:1\nARG A=1\nFROM debian AS base\nRUN --mount=type=cache,target=/c echo $A\n",
    b'FROM scratch\nCOPY --chown=1:2 --from=base a "b c" /d/\nENV A=b C="d e"\nCMD ["x", "y"]\nONBUILD RUN z\n',
    b"FROM a\nRUN <<EOF\necho\nEOF\nHEALTHCHECK --interval=3s CMD true\nEXPOSE 80/tcp\nUSER 1\nVOLUME /v\n",
]
RECORD = {
    "name": "web", "id": "0", "backend": "container", "image": "i", "digest": "d", "process": {"argv": ["a"]},
    "limits": {}, "created": 1.0, "supervisor": {"number": 1, "started": 1}, "first": {"number": 1, "started": 1},
    "state": "running", "wanted": [], "published": [],
}  # fmt: skip
STATE: dict[str, Any] = {
    "id": "c", "version": "1.1.0", "bundle": "/b", "created": "now", "root": "/r", "owner": "root", "group": "lab/c",
    "annotations": {}, "namespaces": 1, "pid": 2, "birth": 3,
}  # fmt: skip

TARGETS = {
    "config.json": Target(function=configuration, allowed=(UsageError, LabError), seeds=configurations),
    "mount options": Target(
        function=options, allowed=(), seeds=lambda: [b"ro\nrbind\nsize=4k", b'mode=1,context="a,b",x']
    ),
    "messages": Target(
        function=message,
        allowed=(BadMessage,),
        seeds=lambda: [b'{"message": "LAUNCH", "id": "c1", "plan": {"name": "c", "mounts": [{}]}}'],
    ),
    "layers": Target(function=read_layer, allowed=(ImageError,), seeds=layers),
    "layers unpacked": Target(function=unpack_layer, allowed=(ImageError,), seeds=layers),
    "Dockerfiles": Target(function=build_file, allowed=(DockerfileError,), seeds=lambda: list(DOCKERFILES)),
    "qcow2 headers": Target(function=disk_header, allowed=(LabError,), seeds=disk_headers),
    "lab-oci's state": Target(
        function=oci_state, allowed=(ValueError, KeyError, TypeError), seeds=lambda: [json.dumps(STATE).encode()]
    ),
    "records": Target(
        function=instance_record,
        allowed=(ValueError, KeyError, TypeError),
        seeds=lambda: [json.dumps(RECORD).encode()],
    ),
    "ledgers": Target(
        function=session_ledger,
        allowed=(),
        seeds=lambda: [
            b'{"kind": "cgroup", "name": "lab/x"}\n{"pid": 1, "started": 2, "boot_id": "b", "home": "/h"}\n'
        ],
    ),
}
