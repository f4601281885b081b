"""The program that libvirt takes for QEMU: it enters lab's cgroup and a jail, then becomes QEMU (jail/jail.c).

So that every page QEMU ever touches is charged to its instance, it must be in the cgroup before it is QEMU.
libvirt's own cgroups would be other ones, with limits of their own, and joining comes after the fork there.
Where it is compiled to, and when, is all that libvirt's knowledge about an emulator is keyed by: a new place for
another QEMU, so that what was learnt about the former is not taken for true of it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.errors import BackendUnavailable
from lab.host import compiler
from lab.host.processor import require_machines

QEMU = "qemu-system-x86_64"
JAIL_VARIABLE = "LAB_JAIL"
INCOMING = ("-incoming", "fd:0")  # QEMU's words for a saved machine, which the jail opens there
DEFERRED = ("-incoming", "defer")  # … once it has been told that the memory is no part of it
MEMORY = 1000
"""The descriptor of a saved machine's memory in the jail, by whose number QEMU finds it: none that libvirt has."""
SOURCE = Path(__file__).parent / "jail" / "jail.c"
COMPILE = ("gcc", "-std=gnu11", "-static", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra")


def find_qemu() -> Path:
    """The installed emulator. Raises BackendUnavailable."""
    require_machines()
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise BackendUnavailable(f"{QEMU} is not installed", hint="apt-get install qemu-system-x86")
    return Path(qemu)


def install_emulator(home: Path) -> Path:
    """Compile it below ``home`` unless it is there, and return its path. Raises BackendUnavailable, LabError."""
    qemu = find_qemu()
    status = qemu.stat()
    words = (*COMPILE, f'-DQEMU="{qemu}"', f"-DCHANGED={status.st_mtime_ns}")
    finished = home / "libexec" / compiler.digest_of(words, [SOURCE]) / QEMU
    return compiler.compiled(finished, words, [SOURCE])
