"""What this host's kernel runs on, hardware, a virtual machine or an emulated one, and what that does to figures.

systemd-detect-virt(1) knows it best, and is there on most hosts. Elsewhere it is concluded from what the kernel shows
in /proc and /sys: which clock a hypervisor lends it, and who made the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from lab.errors import CommandError
from lab.host.command import run

ROOT = Path("/")
DETECT_SECONDS = 10.0
EMULATORS = frozenset({"qemu", "bochs"})
"""What systemd-detect-virt(1) calls those that execute no instruction on the processor itself. Under KVM a QEMU is
"kvm" there.
"""
NESTED = "KVM inside an emulated machine: its times say nothing"
CLOCKS = {"kvm-clock": "kvm", "hyperv_clocksource_tsc_page": "microsoft", "xen": "xen"}
MAKERS = {"QEMU": "qemu", "Bochs": "bochs", "VMware, Inc.": "vmware", "innotek GmbH": "oracle"}
DUMMY = "linux,dummy-virt"
"""QEMU's board for arm64 (hw/arm/virt.c): it counts as emulated, since nothing there tells KVM from emulation."""
NAMES = {"kvm": "KVM", "qemu": "QEMU", "bochs": "Bochs", "vmware": "VMware", "microsoft": "Hyper-V", "xen": "Xen"} | {
    "oracle": "VirtualBox", "amazon": "Amazon Nitro", "google": "Google Compute Engine", "vm-other": "a hypervisor",
}  # fmt: skip

EMULATED_PATIENCE = 4


class Ground(StrEnum):
    """What executes the instructions of this host's kernel."""

    HARDWARE = "hardware"
    VIRTUAL = "virtual"
    EMULATED = "emulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a host is. ``by`` names the hypervisor or emulator as systemd-detect-virt(1) does; "none" on hardware."""

    ground: Ground
    by: str

    @property
    def title(self) -> str:
        """What the host is, as a noun."""
        who = NAMES.get(self.by, self.by)
        return {
            Ground.HARDWARE: "hardware",
            Ground.VIRTUAL: f"a virtual machine under {who}",
            Ground.EMULATED: f"a machine that {who} emulates",
        }[self.ground]

    @property
    def effect(self) -> str:
        """What that does to figures, as a clause."""
        return {
            Ground.HARDWARE: "figures are this machine's own",
            Ground.VIRTUAL: "its hypervisor and its neighbours are in every figure, and virtual machines in it are "
            "nested ones",
            Ground.EMULATED: "times and CPU figures say nothing about any processor, KVM's included",
        }[self.ground]

    @property
    def patience(self) -> int:
        """How many times as long as elsewhere a guest or a long job is waited for: under KVM on an emulated host a
        guest takes half a minute to boot, and several where the emulator shares its processors.
        """
        return EMULATED_PATIENCE if self.ground is Ground.EMULATED else 1


@cache
def platform() -> Platform:
    """What this host is, found out once per process. Never raises."""
    return of(_detected() or concluded(ROOT))


def of(by: str) -> Platform:
    """The platform that systemd-detect-virt(1) calls so."""
    if by == "none":
        return Platform(ground=Ground.HARDWARE, by=by)
    return Platform(ground=Ground.EMULATED if by in EMULATORS else Ground.VIRTUAL, by=by)


def concluded(root: Path) -> str:
    """The same word, from what the kernel shows below ``root``. "none" also where nothing hints at a hypervisor."""
    clocks = _read(root / "sys/devices/system/clocksource/clocksource0/available_clocksource").split()
    for clock, name in CLOCKS.items():
        if clock in clocks:
            return name
    if "QEMU TCG" in _processor(root):
        return "qemu"
    if DUMMY in _read(root / "proc/device-tree/compatible"):
        return "qemu"
    maker = _read(root / "sys/class/dmi/id/sys_vendor")
    if maker in MAKERS:
        return MAKERS[maker]
    return "vm-other" if "hypervisor" in processor_flags(root) else "none"


def processor_flags(root: Path = ROOT) -> set[str]:
    """What the first processor can, in the kernel's words (proc_cpuinfo(5)); none where that is not told."""
    lines = _processor(root).splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _processor(root: Path) -> str:
    return _read(root / "proc/cpuinfo").partition("\n\n")[0]


def _detected() -> str:
    """What systemd says, "" where it is not installed. Its exit code is 1 for "none"."""
    try:
        done = run(["systemd-detect-virt", "--vm"], timeout_seconds=DETECT_SECONDS, check=False)
    except CommandError:
        return ""
    words = done.stdout.decode("utf-8", "replace").split()
    return words[0] if len(words) == 1 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
