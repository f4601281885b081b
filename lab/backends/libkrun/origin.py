"""Where libkrun comes from: two libraries of a wheel on PyPI, of one release whose bytes lab knows.

libkrun is in no release of Debian. Of what PyPI ships, `smolmachines` alone has it as a library with its C interface,
and beside it libkrunfw, which is a Linux kernel. Neither is installed: pip fetches the wheel, compares it with the
digest below, and lab keeps the two of it, and their licences. Another release is another digest, and has to be tried
first.

Source: pip's user guide, "Hash-checking Mode"; the wheel's THIRD_PARTY_NOTICES.md.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.backends.support.programs.binary import Binary, look_at
from lab.errors import BackendUnavailable, CommandError, LabError, UsageError
from lab.host.command import run
from lab.host.identity import private
from lab.host.survey.virtualisation import platform
from lab.images.debian import fetching
from lab.images.transfer import trust
from lab.images.transfer.trouble import find as find_trouble

PACKAGE, VERSION = "smolmachines", "1.32.2"
DIGEST = "81b104e2622aa0b187b6b7054397c391151b83db2638a16d0e54c517684f0dc2"
"""SHA-256 of the wheel for x86-64, cp39-abi3-manylinux_2_28."""

SIZE = "44 MB"
LIBRARY, KERNEL = "libkrun.so", "libkrunfw.so.5"
FOLDER_IN_WHEEL = "smol"
NOTICES = "THIRD_PARTY_NOTICES.md"
LICENCES = ("licenses/libkrun-LICENSE.txt", "licenses/libkrunfw-LGPL-2.1-only.txt", "licenses/linux-GPL-2.0-only.txt")
FETCH_SECONDS = 300.0
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Libraries:
    """Both, as they were when they were first looked at."""

    library: Binary
    kernel: Binary

    @property
    def identity(self) -> Mapping[str, str]:
        """What a run keeps of them. Raises LabError when they are not those that they were."""
        self.library.require_unchanged()
        self.kernel.require_unchanged()
        return {
            "path": str(self.library.path),
            "version": f"libkrun of {PACKAGE} {VERSION}",
            "digest": self.library.digest,
            "kernel": self.kernel.digest,
        }


def place() -> Path:
    """Where they are kept."""
    return fetching.programs() / f"{PACKAGE}-{VERSION}"


def find() -> Libraries | None:
    """Those that were fetched, None before."""
    return _look_at(place()) if (place() / LIBRARY).exists() else None


def require() -> Libraries:
    """Those that were fetched. Raises UsageError before."""
    if found := find():
        return found
    raise UsageError("libkrun is not here yet", hint="lab run or compare --on krun fetches it")


def can_be_fetched() -> bool:
    """Whether there is a pip to ask."""
    return importlib.util.find_spec("pip") is not None


def fetch(told: Callable[[str], None]) -> Libraries:
    """Those to use, fetched if need be, of which ``told`` gets a sentence before. Raises BackendUnavailable without
    a pip, LabError when they can't be had or are not what they should be.
    """
    if found := find():
        return found
    if not can_be_fetched():
        raise BackendUnavailable("there is no pip to fetch libkrun with", hint="apt-get install python3-pip")

    def tell(kept: Path) -> None:
        told(f"lab: fetching {PACKAGE} {VERSION} from PyPI, {SIZE}, into {kept}: once, nothing of it is installed")

    return fetching.once(told=tell, known=find, obtain=_obtain)


@cache
def _look_at(folder: Path) -> Libraries:
    return Libraries(library=look_at(folder / LIBRARY), kernel=look_at(folder / KERNEL))


def _obtain(scratch: Path) -> Libraries:
    wanted, wheels, made = scratch / "wanted.txt", scratch / "wheels", scratch / "made"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{DIGEST}\n")
    for folder in (wheels, made):
        folder.mkdir(mode=private.FOLDER)
    words = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir", "--quiet"]
    try:
        run(
            [
                "setpriv", "--pdeathsig=KILL", sys.executable, "-m", "pip", "--disable-pip-version-check", "download",
                *words, "--dest", wheels, "--requirement", wanted,
            ],
            timeout_seconds=platform().patience * FETCH_SECONDS,
            called="pip",
            directory=scratch,
            environment=trust.variables(trust.write(scratch)),
        )  # fmt: skip
    except CommandError as error:
        last = error.detail.strip().splitlines()[-1:]
        trouble = find_trouble(error.detail)
        raise LabError(
            f"{PACKAGE} {VERSION} could not be fetched{f': {trouble.what}' if trouble else ''}",
            hint=trouble.hint if trouble else f"check that `pip download {PACKAGE}` works on this host",
            detail=trouble.line if trouble else "".join(last),
        ) from error
    (wheel,) = wheels.glob("*.whl")
    keep(wheel, made)
    made.rename(place())
    return _look_at(place())


def keep(wheel: Path, made: Path) -> None:
    """Copy both libraries and their licences out of the ``wheel`` into the folder ``made``. Raises LabError when it
    lacks one.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in (LIBRARY, KERNEL, NOTICES, *LICENCES):
            try:
                entry = archive.getinfo(f"{FOLDER_IN_WHEEL}/{name}")
            except KeyError as error:
                raise LabError(f"{PACKAGE} {VERSION} holds no {name}") from error
            if entry.file_size > MOST_BYTES:
                raise LabError(f"{name} of {PACKAGE} {VERSION} has {entry.file_size >> 20} MiB")
            with archive.open(entry) as source, (made / Path(name).name).open("xb") as kept:
                shutil.copyfileobj(source, kept)
            (made / Path(name).name).chmod(0o644)
    made.chmod(0o755)
