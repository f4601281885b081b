"""The corpus of small Dockerfiles below tests/dockerfiles, and how lab and Debian's buildah each build one.

A case is ``NAME.Dockerfile``; all share one context, made by `make_context`. Lines that begin with ``#:`` tell more:

    #: options --target wanted     given to both builders; {port}: a web server with the context's files; {context}
    #: error 4                     both fail, at this line; 0 for an error that has none
    #: plain                       this buildah does not know the feature: it builds NAME.plain, which means the same
    #: differs WHY file:/f …       on purpose, in exactly this: docs/dockerfile.md argues it under that name

``NAME.ignore`` is the case's .dockerignore.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.images.manifest import excluded
from lab.images.stages.copy_sources import xattrs
from lab.images.tree import Tree

FOLDER = Path(__file__).parents[1] / "dockerfiles"
BASE = "corpus"
APPLETS = "sh cat chmod chown cp cut echo false id ln ls mkdir mkfifo mknod pwd rm rmdir tail test touch tr true"
DEFAULTS: Mapping[str, Any] = {"WorkingDir": "/"}
TIMEOUT_SECONDS = 180
ENVIRONMENT = dict(os.environ)  # pytest changes it from test to test, and buildah runs beside them


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One Dockerfile. ``error_line`` is None for one that builds, 0 for an error without a line."""

    name: str
    options: str = ""
    error_line: int | None = None
    plain: bool = False
    differs: str = ""
    differences: frozenset[str] = frozenset()

    @property
    def dockerfile(self) -> Path:
        return FOLDER / f"{self.name}.Dockerfile"

    @property
    def for_buildah(self) -> Path:
        """What buildah is given."""
        return FOLDER / f"{self.name}.plain" if self.plain else self.dockerfile

    @property
    def ignore(self) -> Path:
        return FOLDER / f"{self.name}.ignore"

    @property
    def error_text(self) -> str:
        """The line that is wrong."""
        assert self.error_line
        return self.dockerfile.read_text().splitlines()[self.error_line - 1]

    @classmethod
    def read(cls, path: Path) -> Case:
        told = [line[2:].strip().partition(" ") for line in path.read_text().splitlines() if line.startswith("#:")]
        words = {word: rest for word, _, rest in told}
        differs, _, keys = words.get("differs", "").partition(" ")
        return cls(
            name=path.stem,
            options=words.get("options", ""),
            error_line=int(words["error"]) if "error" in words else None,
            plain="plain" in words,
            differs=differs,
            differences=frozenset(keys.split()),
        )


def cases() -> list[Case]:
    """Every case, by name."""
    return [Case.read(path) for path in sorted(FOLDER.glob("*.Dockerfile"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a builder made: a line per file, and the configuration in Docker's terms."""

    files: dict[str, str]
    config: dict[str, Any]


def differences(ours: Result, theirs: Result) -> dict[str, str]:
    """What one has and the other has not, by ``file:/path`` and ``config:Key``; empty for equal images."""
    found = {}
    for kind, mine, other in (("file:/", ours.files, theirs.files), ("config:", ours.config, theirs.config)):
        for key in sorted(mine.keys() | other.keys()):
            if mine.get(key) != other.get(key):
                found[kind + key] = f"lab {mine.get(key)!r}, buildah {other.get(key)!r}"
    return found


def describe(tree: Tree) -> dict[str, str]:
    """Every file with its type, mode, owner, attributes, and content or link target; no times."""
    return {
        os.fsdecode(entry.path): _line(entry.real, entry.status) for entry in tree.walk() if not excluded(entry.path)
    }


def _line(real: bytes, status: os.stat_result) -> str:
    mode = status.st_mode
    value: object = ""
    if stat.S_ISREG(mode):
        value = Path(os.fsdecode(real)).read_bytes() if status.st_size < 1000 else status.st_size
    elif stat.S_ISLNK(mode):
        value = Path(os.fsdecode(real)).readlink()
    elif stat.S_ISCHR(mode):
        value = status.st_rdev
    attributes = ", ".join(f"{name}={content!r}" for name, content in xattrs(real))
    return f"{stat.filemode(mode)} {status.st_uid}:{status.st_gid} {value!r} {attributes}".strip()


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what is empty or everybody's default, and without who built it."""
    found = {key: value for key, value in config.items() if value and value != DEFAULTS.get(key)}
    found["Env"] = dict(pair.split("=", 1) for pair in found.get("Env", []))
    labels = {key: value for key, value in found.pop("Labels", {}).items() if key != "io.buildah.version"}
    known = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "StopSignal", "Healthcheck")
    return {key: found[key] for key in (*known, "Shell", "OnBuild") if key in found} | {"Labels": labels}


def make_base(folder: Path) -> None:
    """A context whose image is busybox in as few files and layers as will do: buildah copies them all each time."""
    root = folder / "root"
    for name in ("bin", "tmp", "etc", "root", "run"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    busybox = shutil.which("busybox")
    assert busybox, "apt-get install busybox-static"
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:7:8::/home/app:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nappers:x:8:\n")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")


# -- buildah ---------------------------------------------------------------------------------------------------


class Buildah:
    """Debian's buildah with a storage of its own, in memory where there is room: it syncs a lot."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "storage"
        self.run = folder / "run"
        self.images = self.root / "vfs-images"

    def take(self, layout: Path, name: str) -> None:
        """Import an image of an OCI layout under the same name."""
        store = f"containers-storage:[vfs@{self.root}+{self.run}]localhost/{name}:latest"
        words = ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}:{name}:latest", store]
        subprocess.run(words, check=True, timeout=TIMEOUT_SECONDS, capture_output=True)

    def build(self, case: Case, context: Path, options: Sequence[str]) -> Result | str:
        """The image, or what was said when it failed."""
        with tempfile.TemporaryDirectory(dir=self.root.parent) as scratch:
            identity = Path(scratch) / "iid"
            ignore = ["--ignorefile", str(case.ignore)] if case.ignore.exists() else []
            words = [
                "buildah", "--root", str(self.root), "--runroot", str(self.run), "--storage-driver", "vfs",
                "bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false", "--quiet",
                "--ulimit", "nofile=1024:1024", "--iidfile", str(identity), *ignore, *options,
                "-f", str(case.for_buildah), str(context),
            ]  # fmt: skip
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
                env=dict(ENVIRONMENT, TMPDIR=scratch),
            )  # fmt: skip
            if done.returncode:
                return done.stderr
            return self._result(identity.read_text().strip())

    def _result(self, digest: str) -> Result:
        image = digest.removeprefix("sha256:")
        records = json.loads((self.images / "images.json").read_text())
        layer = next(record["layer"] for record in records if record["id"] == image)
        document = self.images / image / ("=" + base64.b64encode(digest.encode()).decode())
        config = json.loads(document.read_text())
        root = self.root / "vfs" / "dir" / layer
        author = {"author": config["author"]} if config.get("author") else {}
        return Result(files=describe(Tree([root])), config=plain_config(config["config"]) | author)


def memory_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, in memory if there is such a place."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="lab-test-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- the context -----------------------------------------------------------------------------------------------

FILES = {
    "one.txt": "1\n", "two.txt": "2\n", "with space.txt": "space\n", "script.sh": "#!/bin/sh\n",
    "dir/a.txt": "a\n", "dir/b.log": "log\n", "dir/sub/c.txt": "c\n", "dir/sub/deep/d.txt": "d\n",
    "wild/.hidden": "hidden\n", "wild/shown": "shown\n", "private/f": "private\n",
    "modes/setuid": "s\n", "modes/group": "g\n", "modes/read-only": "r\n", "modes/sticky/f": "f\n",
    "hard/first": "hard\n", "attributes/f": "attributes\n", "special/plain": "plain\n",
    "broken.tar.gz": "this is no archive\n",
}  # fmt: skip
MODES = {
    "script.sh": 0o755, "private": 0o700, "modes/setuid": 0o4711, "modes/group": 0o2750, "modes/read-only": 0o400,
    "modes/sticky": 0o1777,
}  # fmt: skip


def make_context(context: Path) -> None:
    """What no repository can hold is in it, too: set-uid files, links, FIFOs, attributes, archives with owners."""
    for name, text in FILES.items():
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    for folder in (context, *(path for path in context.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    for name, mode in MODES.items():
        (context / name).chmod(mode)
    (context / "link.txt").symlink_to("one.txt")
    (context / "dirlink").symlink_to("dir")
    (context / "dir" / "link").symlink_to("a.txt")
    (context / "hard" / "second").hardlink_to(context / "hard" / "first")
    os.setxattr(context / "attributes" / "f", "user.lab", b"v\0\xff")
    for name in (b"caf\xe9", "é".encode(), b"n" * 200, b"new\nline"):
        (context / "special" / os.fsdecode(name)).write_bytes(name)
    os.mkfifo(context / "special" / "fifo", 0o644)
    for name, mode in (("tar", "w"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")):
        _archive(context / f"archive.{name}", mode)
    packed = gzip.compress((context / "archive.tar").read_bytes(), mtime=0)  # else it says when it was made
    (context / "archive.tar.gz").write_bytes(packed)
    shutil.copy(context / "archive.tar.gz", context / "archive.renamed")


def _archive(path: Path, mode: str) -> None:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode = kind, len(data), fields.pop("mode", 0o644)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))

        add("top", tarfile.DIRTYPE, mode=0o750, uid=7, gid=8)
        add("top/f", data=b"content", mode=0o640, uid=7, gid=8)
        add("top/setuid", data=b"s", mode=0o4755)
        add("top/soft", tarfile.SYMTYPE, linkname="/etc/passwd", mode=0o777)
        add("top/hard", tarfile.LNKTYPE, linkname="top/f", mode=0o640, uid=7, gid=8)
        add("top/attributes", data=b"a", pax_headers={"SCHILY.xattr.user.lab": "value"})
        add("implied/deep/f", data=b"deep", uid=9, gid=9)
