"""Everything that guests are made of, built once and kept under ``<home>/guest/<key>/``.

A build happens in a temporary folder and is renamed into place, so that a killed build leaves nothing that
could be taken for a finished one; a lock keeps two builds apart, and the next one sweeps what was left.
"""

from __future__ import annotations

import fcntl
import filecmp
import hashlib
import inspect
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.host.identity import private
from lab.host.processor import require_machines
from lab.hypervisor.guest import debian, grub, loader, osdisk, trim
from lab.hypervisor.guest.handover import FILE_SYSTEM_MODULES, MODULES, POWER_BUTTON_MODULES
from lab.hypervisor.guest.initramfs import build_initramfs
from lab.hypervisor.guest.kernel import copy_kernel, copy_modules, release_of
from lab.hypervisor.kinds import MICROVM, Design, Firmware, UserSpace
from lab.inside.build import program

log = logging.getLogger(__name__)

KEY_LENGTH = 16
UNFINISHED = ".unfinished"
KERNEL = "vmlinuz"
ALL_MODULES = MODULES.union(POWER_BUTTON_MODULES, *FILE_SYSTEM_MODULES.values())


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
    loader_disk: Path | None = None  # what firmware boots from, where it boots from a disk


def prepare_guest(home: Path, design: Design = MICROVM) -> Guest:
    """The guest's parts, built if they aren't there: about a minute the first time, milliseconds afterwards.

    Designs share all that they can; the first that wants an untuned Debian takes another minute. Raises CommandError
    or LabError when Debian's packages can't be installed, BackendUnavailable when the host lacks the firmware, or is
    no x86-64.
    """
    require_machines()
    loader.require(design.firmware)
    (home / "guest").mkdir(parents=True, exist_ok=True)
    parts = _parts(home, tuned=True)
    untuned = design.user_space is UserSpace.DEBIAN and not design.tuned
    system = _parts(home, tuned=False) if untuned else parts
    if untuned and not filecmp.cmp(parts / KERNEL, system / KERNEL, shallow=False):
        raise LabError(
            "Debian's kernel is not the one that the tuned guest was made with: the two can't be compared",
            hint=f"rm -r {parts} {system}, and let lab make both anew",
        )
    initramfs = _initramfs(parts, design)
    return Guest(
        release=(parts / "release").read_text(),
        kernel=parts / KERNEL,
        initramfs=initramfs,
        system=Layered(base=system / "system.ext4", template=system / "system.qcow2"),
        scratch=Layered(base=parts / "scratch.ext4", template=parts / "scratch.qcow2"),
        loader_disk=_loader(parts, initramfs, design.firmware) if design.boots_from_disk else None,
    )


def folder_of(home: Path, *, tuned: bool = True) -> Path:
    """Where everything is, or would be, that is made from one Debian; the name tells what decides what it is."""
    sources = [inspect.getsource(module) for module in (osdisk, trim)]
    key = _key(debian.recipe(), *sources, repr(sorted(ALL_MODULES)), "" if tuned else "as installed")
    return home / "guest" / key


def _parts(home: Path, *, tuned: bool) -> Path:
    """That folder, built if it isn't there."""
    parts = folder_of(home, tuned=tuned)
    if not parts.exists():
        with _locked(parts.parent):
            if not parts.exists():
                _build(parts, tuned=tuned)
    return parts


def _build(parts: Path, *, tuned: bool) -> None:
    for stale in parts.parent.glob(f"*{UNFINISHED}"):
        shutil.rmtree(stale)
    work = parts.with_name(parts.name + UNFINISHED)
    work.mkdir()
    tree = work / "tree"
    (work / "apt").mkdir()
    debian.bootstrap(tree, work / "apt")
    (work / "release").write_text(release_of(tree))
    copy_kernel(tree, work / KERNEL)
    copy_modules(tree, ALL_MODULES, work / "modules")
    shutil.copy(tree / "bin/busybox", work / "busybox")
    osdisk.make_scratch_disk(work / "scratch", work / "scratch.ext4")
    osdisk.customise(tree, tuned=tuned)
    osdisk.make_system_disk(tree, work / "system.ext4")
    for name in ("system", "scratch"):
        osdisk.make_layer_template(work, name)
    for staging in (tree, work / "apt", work / "scratch"):
        shutil.rmtree(staging)
    work.rename(parts)


def _initramfs(parts: Path, design: Design) -> Path:
    """Apart from the rest, since lab's own scripts and helper change more often than Debian's packages."""
    names = {*MODULES, *(FILE_SYSTEM_MODULES[design.disk] if design.user_space is UserSpace.IMAGE else ())}
    modules = [parts / "modules" / f"{name}.ko" for name in names]
    content = build_initramfs(busybox=parts / "busybox", modules=modules, helper=program())
    path = parts / f"initramfs-{hashlib.sha256(content).hexdigest()[:KEY_LENGTH]}.cpio"
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
        unfinished.write_bytes(content)
        unfinished.rename(path)
    return path


def _loader(parts: Path, initramfs: Path, firmware: Firmware) -> Path:
    path = parts / f"loader-{firmware}-{_key(inspect.getsource(loader), inspect.getsource(grub), initramfs.name)}.raw"
    if not path.exists():
        with _locked(parts.parent):
            scratch = parts / f"loader{UNFINISHED}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            loader.make_loader_disk(firmware, parts / KERNEL, initramfs, scratch, scratch / "disk")
            (scratch / "disk").rename(path)
            shutil.rmtree(scratch)
    return path


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_LENGTH]


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    with os.fdopen(private.lock_file(root / "lock")) as lock:
        log.info("another lab command may be making the guest; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
