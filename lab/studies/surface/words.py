"""How the report of an attack surface speaks of sides, outcomes and numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lab.studies.surface.analyse import INSTANCE, KERNEL, LAB, SETUP

SIDES = {
    LAB: "its process and launcher, which ask for a start, and watch until it is ready",
    SETUP: "processes that lab makes, until one becomes the instance with its execve",
    INSTANCE: "the application, the monitor of its machine, or its kernel that is a program, from that execve on",
    KERNEL: "the kernel's own threads, and interrupts, beyond what an idle host does",
}
SIDE_NAMES = {
    LAB: "lab itself", SETUP: "putting the boundary up", INSTANCE: "the instance", KERNEL: "kernel threads"
}  # fmt: skip
LOOKS: Mapping[str, tuple[str, str]] = {
    "allowed": ("open", "✗"),
    "by argument": ("own", "◐"),
    "privileged": ("own", "◑"),
    "refused": ("closed", "✓"),
    "killed": ("closed", "✓"),
    "absent": ("unknown", "–"),
    "not called": ("unknown", "·"),
}
"""An outcome's class and symbol. "absent" is no merit of a boundary's: this kernel has no such call."""


def number(value: float | None) -> str:
    """A count or a rate as people read it."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:,.3g}"
