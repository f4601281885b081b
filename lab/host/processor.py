"""Which processors lab is written for, and what it has for each.

Processes, containers and all that is measured of them ask the kernel, whose system calls have other numbers on each
kind: lab has them for two. Virtual machines and User-mode Linux are of one kind alone: their kernels, firmware,
machine types and boot loaders are x86-64's. docs/development.md says what was tried where.
"""

from __future__ import annotations

import os

from lab.errors import BackendUnavailable
from lab.model import Check

WITH_CALLS = ("x86_64", "aarch64")
WITH_MACHINES = ("x86_64",)
REMEDY = "use a host with an x86-64 processor"


def machine() -> str:
    """The kind of this host's processor, as uname(2) says it."""
    return os.uname().machine


def has_calls() -> bool:
    """Whether processes and containers can be started here."""
    return machine() in WITH_CALLS


def has_machines() -> bool:
    """Whether kernels of their own can be: microvm, vm, uml, a disk that boots."""
    return machine() in WITH_MACHINES


def require_machines() -> None:
    """Raises BackendUnavailable where lab has no virtual machine for this processor."""
    if not has_machines():
        raise BackendUnavailable(lacking(), hint=f"{REMEDY}; process and container are to be had here")


def lacking() -> str:
    """What is said where there are none."""
    return f"lab's virtual machines are made for {', '.join(WITH_MACHINES)}, and this is {machine()}"


def check_machines() -> Check:
    """One of the checks of each backend whose kernel is its own."""
    found = f"{machine()}, for which lab has kernels" if has_machines() else lacking()
    return Check(name="machines", ok=has_machines(), found=found, remedy=REMEDY)
