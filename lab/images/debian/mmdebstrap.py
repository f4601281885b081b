"""A Debian root made by mmdebstrap with the apt of this host, whether the host is that Debian, another, or Ubuntu."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.errors import CommandError, ImageError
from lab.host.command import run
from lab.host.identity import privilege
from lab.host.survey.virtualisation import platform
from lab.host.units import format_bytes
from lab.images.debian import apt
from lab.images.transfer import trust
from lab.images.transfer.trouble import find as find_trouble

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # where mmdebstrap(1) looks for Debian's keys
TIMEOUT_SECONDS = 900.0
NEEDED_BYTES = 1 << 30  # the root, the packages it is made of, and the lists of all there are


def mmdebstrap(suite: str, root: Path, scratch: Path, options: Sequence[str], sources: str | None = None) -> str:
    """Install a minimal Debian into the new directory ``root``; ``scratch`` exists and takes temporary files.

    Uses ``sources`` in deb822 style, by default the host's own archives of ``suite``; where it has none, mmdebstrap's
    default mirror and Debian's keys. Returns the sources used, "" for the default mirror. Needs root. Raises
    ImageError when there are neither archives nor keys, or no space, CommandError with mmdebstrap's last lines.
    """
    if (free := shutil.disk_usage(scratch).free) < NEEDED_BYTES:
        raise ImageError(
            f"Debian {suite} needs {format_bytes(NEEDED_BYTES)} of disk, and {scratch} has {format_bytes(free)}",
            hint="free some (lab clean; df -h), or set LAB_HOME to a larger disk",
        )
    if sources is None:
        sources = apt.sources_for(suite)
    settings = apt.settings()
    mirrors = []
    if sources:
        (scratch / "host.sources").write_text(sources)
        mirrors = [str(scratch / "host.sources")]
    elif not KEYRING.exists():
        raise ImageError(
            f"this host's apt knows no Debian {suite}, and there is no {KEYRING} to trust one",
            hint="apt-get install debian-archive-keyring",
        )
    carried = []
    if (bundle := trust.write(scratch)) is not None:
        carried.append(f'--aptopt=Acquire::https::CaInfo "{bundle}"')
    if settings:
        (scratch / "90host").write_text(settings)
        carried.append(f"--aptopt={scratch / '90host'}")
    # In namespaces of its own, and killed with lab: no mount and no process can outlive it. Not --quiet, by which
    # mmdebstrap keeps to itself why apt failed.
    try:
        run(
            [
                "setpriv", "--pdeathsig=KILL",
                "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
                "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
                '--aptopt=Acquire::Languages "none"', *options, *carried, suite, root, *mirrors,
            ],
            timeout_seconds=platform().patience * TIMEOUT_SECONDS,
            called="mmdebstrap",
            environment={"TMPDIR": str(scratch), "SOURCE_DATE_EPOCH": ""},
            hint="check that `apt-get update` works on this host",
        )  # fmt: skip
    except CommandError as error:
        if (trouble := find_trouble(error.detail)) is None:
            raise
        raise ImageError(
            f"Debian {suite} could not be fetched: {trouble.what}", hint=trouble.hint, detail=trouble.line
        ) from error
    if privilege.is_rootless():
        # Nodes can't be made: the host's were bound there meanwhile. The folder is as old as when it was unpacked.
        packed = (root / "boot").stat().st_mtime_ns
        os.utime(root / "dev", ns=(packed, packed))
    return sources
