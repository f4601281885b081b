"""What a caller may ask of an OCI runtime for convenience, and what could be got by it that nobody meant to give.

Each attempt ends with one word on standard output: ``through`` for whoever got something of the host's, ``held``
otherwise. Nothing of the host's is changed: files are opened and not written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundles import Bundle

THROUGH, HELD = "through", "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an attempt is prepared: a bundle with busybox and the escaping program, and a folder of the host's."""

    bundle: Bundle
    folder: Path

    def canary(self) -> Path:
        """A file of the host's."""
        path = self.folder / "canary"
        path.write_text("")
        return path


Prepare = Callable[[Place], list[str]]
"""Makes the bundle what is wanted, and returns options of ``run``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row of docs/security.md. ``control`` is the same without what stops it, which must get through."""

    asks: str  # as the page says
    gets: str
    prepare: Prepare
    control: Prepare | None = None


def judge(said: str) -> str:
    """What became of an attempt, from what it printed; the escaping program's words too."""
    lines = said.strip().splitlines()
    return THROUGH if lines and lines[-1] in (THROUGH, "succeeded") else HELD


def told(condition: str) -> str:
    """A shell script that says through if ``condition`` is true."""
    return f"if {condition}; then echo {THROUGH}; else echo {HELD}; fi"


MASKED = ["/proc/kcore", "/proc/interrupts"]
LOCKED = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"]
EVERYTHING = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT", "CAP_NET_ADMIN", "CAP_DAC_OVERRIDE"]


def grant(place: Place, *names: str) -> None:
    """Capabilities besides those of the bundle."""
    sets = place.bundle.value["process"]["capabilities"]
    for kind in sets:
        sets[kind] = sorted({*sets[kind], *names})


def annotations(place: Place) -> list[str]:
    place.bundle.value["annotations"] = {
        "lab.enter": "chroot",
        "lab.init": "false",
        "org.opencontainers.runtime.no-pivot": "true",
        "run.oci.no_pivot": "1",
        "run.oci.seccomp_fail_unknown_syscall": "0",
    }
    grant(place, "CAP_SYS_CHROOT")
    place.bundle.value["process"]["args"] = ["escape", "leave_chroot", str(place.canary())]
    return []


def new_proc(place: Place, masked: bool) -> list[str]:
    if masked:
        place.bundle.value["linux"] |= {"maskedPaths": MASKED, "readonlyPaths": LOCKED}
    grant(place, "CAP_SETFCAP")  # to map root to itself, since Linux 5.12; Docker's defaults have it
    opened = told("(: >> /tmp/sys/kernel/core_pattern) 2>/dev/null")
    place.bundle.script(f"unshare -Urmpf sh -c 'mount -t proc proc /tmp; {opened}' || echo {HELD}")
    return ["--no-pivot"]


ATTEMPTS = {
    "annotations": Attempt(
        asks="annotations, an image's among them",
        gets="a root that can be left by chroot(2)",
        prepare=annotations,
    ),
    "no-pivot": Attempt(
        asks="`--no-pivot`",
        gets="a /proc without masks, in a user namespace of its own",
        prepare=lambda place: new_proc(place, masked=True),
        control=lambda place: new_proc(place, masked=False),
    ),
}
