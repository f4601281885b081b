"""One small Debian, made once by mmdebstrap: the guest's kernel, its modules and its user space come from it.

Always the same suite of Debian, whatever the host is. Out of scope: how its packages are reached
(images/debian/mmdebstrap.py), what of them is left out (trim.py), what lab adds for one machine (handover.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from lab.images.debian.mmdebstrap import mmdebstrap

log = logging.getLogger(__name__)

SUITE = "bookworm"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "udev",
    "iproute2",
    "kmod",
    "busybox-static",
    KERNEL_PACKAGE,
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")

# lab boots with an initramfs of its own (initramfs.py): Debian's would take longer to make than all the rest.
NO_DEBIAN_INITRAMFS = (
    'mkdir -p "$1/etc/initramfs-tools" && echo update_initramfs=no > "$1/etc/initramfs-tools/update-initramfs.conf"'
)


def recipe() -> str:
    """A digest of everything that decides what `bootstrap` makes, besides the day's package versions."""
    parts = [SUITE, PACKAGES, LEFT_OUT, NO_DEBIAN_INITRAMFS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def bootstrap(tree: Path, scratch: Path) -> None:
    """Install Debian into the new directory ``tree``. Needs root; about half a minute and 500 MB.

    ``scratch`` exists and takes temporary files. Raises what `mmdebstrap` raises.
    """
    log.info("making the guest's Debian with mmdebstrap")
    options = ["--include=" + ",".join(PACKAGES), "--dpkgopt=force-confold"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    mmdebstrap(SUITE, tree, scratch, [*options, f"--essential-hook={NO_DEBIAN_INITRAMFS}"])
