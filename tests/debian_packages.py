"""lab's Debian packages for the tests: made by ``tools/deb`` from this checkout, once, and kept beside the disks of
ordinary machines (`machines.disk`) for as long as no file that goes into them changes.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from lending import certificates
from machines import checkout
from machines.disk import DISK, folder, kept

from lab.host.command import run

ROOT = Path(__file__).parents[1]
SECONDS = 3600.0
LISTED = "./%P\t%y %m %U %G %l\n"
"""For find(1): a file, behind a tab its type, mode, owner and where it leads."""

CHANGES = re.compile(
    r"\./(dev|proc|sys|run|tmp|var/(cache|log|lib/(apt|dpkg))|(root|home/\w+)/\.(cache|config|local))(/|$)"
)
"""Where dpkg, apt and users' own programs write."""


def debian_package(suite: str, target: Path) -> Path:
    """lab's package for Debian ``suite`` as ``target``. Takes a quarter of an hour when it has to be made."""
    made = kept(folder(f"package-{suite}", f"{suite} {files()}"), lambda work: _make(suite, work))
    return Path(shutil.copy(made.path, target))


def files() -> str:
    """A digest of the checkout's files and of their names."""
    found = hashlib.sha256()
    for name in checkout.files(left_out=("tests/", "notebooks/")):  # which debian/Dockerfile.dockerignore leaves out
        data = (ROOT / name).read_bytes()
        found.update(f"{name} {len(data)} ".encode() + data)
    return found.hexdigest()


def _make(suite: str, work: Path) -> dict[str, str]:
    """By its one command; lintian's word is part of that."""
    with tempfile.TemporaryDirectory(dir=work) as place:
        run(
            [ROOT / "bootstrap", ROOT / "tools/deb", suite, place], timeout_seconds=SECONDS,
            environment=certificates(),
        )  # fmt: skip
        (built,) = Path(place).glob("lab_*.deb")
        built.rename(work / DISK)
    return {}
