"""The guest's kernel: Debian's cloud kernel, a package built for virtual machines, untouched."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Iterable
from pathlib import Path

from lab.errors import LabError


def release_of(tree: Path) -> str:
    """The release (``uname -r``) of the one kernel installed in ``tree``."""
    releases = sorted(path.name for path in (tree / "lib/modules").iterdir())
    if len(releases) != 1:
        raise LabError(f"expected one kernel in {tree}, found {releases}", hint="remove lab's guest folder and retry")
    return releases[0]


def copy_kernel(tree: Path, target: Path) -> None:
    """Copy the bootable kernel out of ``tree``."""
    shutil.copyfile(tree / "boot" / f"vmlinuz-{release_of(tree)}", target)


def copy_modules(tree: Path, names: Iterable[str], target: Path) -> None:
    """Copy the modules ``names``, uncompressed, to ``target/NAME.ko``. Raises LabError if one is missing."""
    available = {path.name.split(".")[0]: path for path in (tree / "lib/modules").rglob("*.ko*")}
    target.mkdir()
    for name in names:
        path = available.get(name)
        if path is None:
            raise LabError(f"the guest kernel {release_of(tree)} has no module {name}")
        content = path.read_bytes()
        (target / f"{name}.ko").write_bytes(lzma.decompress(content) if path.suffix == ".xz" else content)
