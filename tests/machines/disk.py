"""The disks of ordinary machines, each made once and kept: never written to, every boot has a layer of its own.

A disk lies in a folder that is named after everything it is made from. It is made in another folder and renamed, so
that a killed process leaves nothing that could be taken for a finished disk; its digest is checked before it is used,
so that a damaged one is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.host.command import run
from lab.host.home import home as lab_home
from lab.hypervisor.guest import debian as guest_debian
from lab.hypervisor.guest import osdisk, trim
from lab.hypervisor.guest.artefacts import prepare_guest
from lab.images.disk import image_disk
from lab.images.store import Store
from lab.inside import build as inside

from . import checkout
from .debian import Root

log = logging.getLogger(__name__)

DISK, KEY, RECORD = "disk.ext4", "key", "made.json"
UNFINISHED = ".unfinished"
ROOT_BYTES = 24 << 30
HOME_BYTES = 16 << 30
SPARE_BYTES = 8 << 30  # a root takes 3
CHUNK_BYTES = 1 << 20
SECONDS = 900.0
KEPT_DAYS = 7
APPLICATION = "web-app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A finished one: a raw ext4 file system; a root has the private key that its sshd lets in."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / DISK

    @property
    def key(self) -> Path:
        return self.folder / KEY

    @property
    def host_key(self) -> str:
        """The public key that its sshd shows."""
        return str(json.loads((self.folder / RECORD).read_text())["host_key"])


def cache() -> Path:
    """Where disks and machines are kept: ``$LAB_MACHINES``, on a disk with 10 GB free."""
    return Path(os.environ.get("LAB_MACHINES") or "/var/tmp/lab-machines").absolute()


def root_disk(root: Root) -> Disk:
    """The disk of ``root``, made if it is not there or is damaged: two to four minutes. Needs root."""
    return kept(folder_of(root), lambda work: make_root(root, work))


def folder_of(root: Root) -> Path:
    """Where the disk of ``root`` is, or will be."""
    return folder(root.name, root.recipe())


def home_disk() -> Disk:
    """A LAB_HOME: lab's guest and the image of web-app, which lab itself makes on this host, where it is quicker."""
    return kept(folder("home", home_recipe()), make_home)


def folder(name: str, recipe: str) -> Path:
    """Named after everything that the disk is made from."""
    return cache() / "disks" / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"


def kept(folder: Path, make: Callable[[Path], dict[str, str]]) -> Disk:
    """The disk in ``folder``. ``make`` fills another folder, and returns what else to record."""
    with locked(cache() / f"{folder.name.rpartition('-')[0]}.lock"):
        if not is_whole(folder):
            sweep(folder)
            work = folder.with_name(f"{folder.name}{UNFINISHED}")
            work.mkdir(mode=0o700)
            record = make(work)
            (work / DISK).chmod(0o400)
            (work / RECORD).write_text(json.dumps({**record, "digest": digest(work / DISK)}))
            work.rename(folder)
        os.utime(folder)
    return Disk(folder=folder)


def is_whole(folder: Path) -> bool:
    """Whether a finished disk is there, and is what it was when it was finished."""
    try:
        recorded = json.loads((folder / RECORD).read_text())["digest"]
        return bool(digest(folder / DISK) == recorded)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def sweep(folder: Path) -> None:
    """Remove what stands in the way, and disks of the same name that nobody has asked for in a week."""
    name = folder.name.rpartition("-")[0]
    for other in folder.parent.glob(f"{name}-*"):
        of_this_name = other.name.removesuffix(UNFINISHED).rpartition("-")[0] == name
        old = other.stat().st_mtime < time.time() - KEPT_DAYS * 86400
        if of_this_name and (other == folder or other.name.endswith(UNFINISHED) or old):
            shutil.rmtree(other)
    folder.parent.mkdir(parents=True, exist_ok=True)


def make_root(root: Root, work: Path) -> dict[str, str]:
    """In a mount namespace: what is made in memory there is gone with it, while removing 80,000 files takes minutes
    where the file system discards what it frees.
    """
    say(f"making Debian {root.suite}{', fresh' if root.fresh else ' with what lab needs'}: some minutes, once")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", work / KEY], timeout_seconds=60)
    said = in_a_mount_namespace("machines.disk", "fill_root", root.suite, "fresh" if root.fresh else "", work)
    shutil.rmtree(work / "tree")
    return {"host_key": said}


def in_a_mount_namespace(module: str, function: str, *words: str | Path) -> str:
    """Call a function of the tests' with ``words`` in a process of its own, in a mount namespace of its own; what it
    has written to standard output. Raises CommandError.
    """
    script = f"import sys; from {module} import {function}; {function}(*sys.argv[1:])"
    done = run(
        ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", sys.executable, "-c", script,
         *words],
        timeout_seconds=2 * SECONDS, environment={"PYTHONPATH": f"{checkout.ROOT}:{checkout.ROOT / 'tests'}"},
    )  # fmt: skip
    return done.stdout.decode().strip()


def fill_root(suite: str, fresh: str, folder: str) -> None:
    """Write the disk, kernel and initramfs into ``folder``, and the host key of its sshd to standard output."""
    root, work = Root(suite=suite, fresh=bool(fresh)), Path(folder)
    (work / "tree").mkdir()
    if available_bytes() > SPARE_BYTES:
        run(["mount", "-t", "tmpfs", "-o", "mode=755,size=6G", "tmpfs", work / "tree"], timeout_seconds=60)
    tree, scratch = work / "tree/root", work / "tree/scratch"
    scratch.mkdir()
    root.make(tree, scratch, (work / f"{KEY}.pub").read_text())
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(tree / name, work / name)
    host_key = (tree / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
    make_ext4(tree, work / DISK, "root", ROOT_BYTES)
    sys.stdout.write(" ".join(host_key[:2]))


def available_bytes() -> int:
    """Of memory, without swapping: proc_meminfo(5)."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) << 10


def home_recipe() -> str:
    """What decides what takes long to make; lab's helper is compiled in a machine if it is another by then."""
    sources = [path for path in sorted((checkout.ROOT / "scenarios" / APPLICATION).rglob("*")) if path.is_file()]
    sources += [Path(str(module.__file__)) for module in (guest_debian, osdisk, trim)]
    sources += [
        checkout.ROOT / "lab/images" / name for name in ("debian/recipes.py", "disk.py", "layers.py", "store.py")
    ]
    return "\0".join([inspect.getsource(make_home), *(path.read_text("utf-8", "replace") for path in sources)])


def make_home(work: Path) -> dict[str, str]:
    """From lab's home here, which gets what is missing, as by any other command."""
    say("making a LAB_HOME: lab's guest, and the image of web-app")
    here, there = lab_home(), work / "tree"
    (there / "guest").mkdir(parents=True)
    parts = prepare_guest(here).kernel.parent
    run(["cp", "-a", "--sparse=always", parts, there / "guest"], timeout_seconds=SECONDS)
    lab("build", APPLICATION, home=here)
    base = Store.view(here).find(APPLICATION).base
    archive = work / "images.tar"
    lab("image", "save", APPLICATION, *([base.name] if base else []), "-o", archive, home=here)
    lab("image", "load", archive, home=there)
    lab("build", APPLICATION, home=there)  # its steps are then in the cache
    store = Store.open(there)
    image_disk(store, store.find(APPLICATION))
    inside.program(there)
    make_ext4(there, work / DISK, "lab", HOME_BYTES)
    for made in (there, archive):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    return {}


def lab(*words: str | Path, home: Path) -> None:
    run(
        [sys.executable, "-m", "lab.cli.main", *words],
        timeout_seconds=SECONDS, directory=checkout.ROOT, environment={"LAB_HOME": str(home)},
    )  # fmt: skip


def make_ext4(tree: Path, disk: Path, label: str, size_bytes: int) -> None:
    disk.touch(mode=0o600)
    os.truncate(disk, size_bytes)
    run(
        ["mke2fs", "-q", "-t", "ext4", "-L", label, "-E", "root_owner=0:0", "-d", tree, disk],
        timeout_seconds=SECONDS,
    )


def digest(path: Path) -> str:
    """SHA-256 over what a sparse file holds, and where. A hole is as good as zeros: the kernel may take one for the
    other until all is written back.
    """
    whole = hashlib.sha256()
    with path.open("rb", buffering=0) as disk:
        size = os.fstat(disk.fileno()).st_size
        offset = 0
        while (offset := data_after(disk.fileno(), offset)) < size:
            offset -= offset % CHUNK_BYTES
            disk.seek(offset)
            chunk = disk.read(CHUNK_BYTES)
            if chunk != bytes(len(chunk)):
                whole.update(f"{offset} ".encode())
                whole.update(chunk)
            offset += CHUNK_BYTES
        whole.update(str(size).encode())
    return whole.hexdigest()


def data_after(descriptor: int, offset: int) -> int:
    """The next byte that is no hole; the file's size when there is none: lseek(2)."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:
        return os.fstat(descriptor).st_size


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    sys.stderr.write(f"machines: {text}\n")
    sys.stderr.flush()
