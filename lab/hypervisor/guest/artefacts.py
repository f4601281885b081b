"""Everything that guests are made of, built once and kept under ``<home>/guest/<key>/``.

A build happens in a temporary folder and is renamed into place, so that a killed build leaves nothing that
could be taken for a finished one; a lock keeps two builds apart, and the next one sweeps what was left.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.hypervisor.guest import debian, osdisk, trim
from lab.hypervisor.guest.handover import MODULES
from lab.hypervisor.guest.initramfs import build_initramfs
from lab.hypervisor.guest.kernel import copy_kernel, copy_modules, release_of
from lab.inside.build import program

log = logging.getLogger(__name__)

KEY_LENGTH = 16
UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered:
    """A raw disk nobody writes to, and an empty qcow2 layer over it, to be copied for each machine."""

    base: Path
    template: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What machines boot from; all of it read-only and shared."""

    release: str  # of the kernel, as uname -r says
    kernel: Path
    initramfs: Path
    system: Layered
    scratch: Layered
    tools_disk: Path


def prepare_guest(home: Path) -> Guest:
    """The guest's parts, built if they aren't there: about a minute the first time, milliseconds afterwards.

    Raises CommandError or LabError when Debian's packages can't be installed.
    """
    root = home / "guest"
    root.mkdir(parents=True, exist_ok=True)
    sources = [inspect.getsource(module) for module in (osdisk, trim)]
    parts = root / _key(debian.recipe(), *sources, repr(sorted(MODULES)))
    if not parts.exists():
        with _locked(root):
            if not parts.exists():
                _build(parts)
    return Guest(
        release=(parts / "release").read_text(),
        kernel=parts / "vmlinuz",
        initramfs=_initramfs(parts),
        system=Layered(base=parts / "system.ext4", template=parts / "system.qcow2"),
        scratch=Layered(base=parts / "scratch.ext4", template=parts / "scratch.qcow2"),
        tools_disk=parts / "tools.ext4",
    )


def _build(parts: Path) -> None:
    for stale in parts.parent.glob(f"*{UNFINISHED}"):
        shutil.rmtree(stale)
    work = parts.with_name(parts.name + UNFINISHED)
    work.mkdir()
    tree = work / "tree"
    (work / "apt").mkdir()
    debian.bootstrap(tree, work / "apt")
    (work / "release").write_text(release_of(tree))
    copy_kernel(tree, work / "vmlinuz")
    copy_modules(tree, MODULES, work / "modules")
    shutil.copy(tree / "bin/busybox", work / "busybox")
    osdisk.make_tools_disk(tree, work / "tools", work / "tools.ext4")
    osdisk.make_scratch_disk(work / "scratch", work / "scratch.ext4")
    osdisk.customise(tree)
    osdisk.make_system_disk(tree, work / "system.ext4")
    for name in ("system", "scratch"):
        osdisk.make_layer_template(work, name)
    for staging in (tree, work / "apt", work / "tools", work / "scratch"):
        shutil.rmtree(staging)
    work.rename(parts)


def _initramfs(parts: Path) -> Path:
    """Apart from the rest, since lab's own scripts and helper change more often than Debian's packages."""
    content = build_initramfs(busybox=parts / "busybox", modules=parts / "modules", helper=program())
    path = parts / f"initramfs-{hashlib.sha256(content).hexdigest()[:KEY_LENGTH]}.cpio"
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
        unfinished.write_bytes(content)
        unfinished.rename(path)
    return path


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_LENGTH]


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    with (root / "lock").open("w") as lock:
        log.info("another lab command may be making the guest; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
