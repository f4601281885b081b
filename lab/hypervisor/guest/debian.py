"""One small Debian, made once by mmdebstrap: the guest's kernel, its modules and its user space come from it.

Where the host is a Debian of the same suite its own apt sources are used, otherwise mmdebstrap's default
mirror for that suite. Out of scope: what lab adds for one machine (handover.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from lab.host.command import run

log = logging.getLogger(__name__)

SUITE = "bookworm"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "udev",
    "iproute2",
    "kmod",
    "qemu-guest-agent",
    "busybox-static",
    KERNEL_PACKAGE,
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
BOOTSTRAP_TIMEOUT_SECONDS = 900.0

# lab boots with an initramfs of its own (initramfs.py): Debian's would take longer to make than all the rest.
NO_DEBIAN_INITRAMFS = (
    'mkdir -p "$1/etc/initramfs-tools" && echo update_initramfs=no > "$1/etc/initramfs-tools/update-initramfs.conf"'
)


def recipe() -> str:
    """A digest of everything that decides what `bootstrap` makes, besides the day's package versions."""
    parts = [SUITE, PACKAGES, LEFT_OUT, NO_DEBIAN_INITRAMFS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def bootstrap(tree: Path) -> None:
    """Install Debian into the new directory ``tree``. Needs root; about half a minute and 500 MB.

    Raises CommandError with mmdebstrap's last lines.
    """
    log.info("making the guest's Debian with mmdebstrap")
    argv: list[str | Path] = ["mmdebstrap", "--mode=root", "--variant=minbase", "--include=" + ",".join(PACKAGES)]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    argv += ["--dpkgopt=force-confold", f"--essential-hook={NO_DEBIAN_INITRAMFS}", SUITE, tree, *host_sources()]
    run(
        argv,
        timeout_seconds=BOOTSTRAP_TIMEOUT_SECONDS,
        hint="check that `apt-get update` works on this host, then `lab doctor`",
    )


def host_sources() -> list[Path]:
    """The host's own apt sources that offer ``SUITE`` of Debian; empty to let mmdebstrap choose its mirror."""
    etc = Path("/etc/apt")
    candidates = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    return [path for path in candidates if path.suffix in (".list", ".sources") and _offers_suite(path)]


def _offers_suite(path: Path) -> bool:
    """Third-party repositories name suites of their own, so the suite as a whole word tells Debian's apart."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    words = {word for line in lines if not line.lstrip().startswith("#") for word in line.split()}
    return SUITE in words and "debian" in " ".join(words).lower()
