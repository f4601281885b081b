"""The program that libvirt takes for QEMU: it enters lab's cgroup, then becomes QEMU.

So that every page QEMU ever touches is charged to its instance, it must be in the cgroup before it is QEMU.
libvirt's own cgroups would be other ones, with limits of their own, and joining comes after the fork there.
The path and the text are fixed, because libvirt's knowledge about an emulator is keyed by both.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.errors import BackendUnavailable

QEMU = "qemu-system-x86_64"
CGROUPS_VARIABLE = "LAB_CGROUPS"
INCOMING_VARIABLE = "LAB_INCOMING"
INCOMING = ("-incoming", "fd:0")  # QEMU's words for it: libvirt starts QEMU with nothing to read there

WRAPPER = """\
#!/bin/sh
# Written by lab (lab/hypervisor/emulator.py): enter the cgroups listed in {variable}, then become QEMU.
IFS=:
for procs in ${variable}; do
    echo $$ >"$procs" || exit 1
done
unset IFS
[ -z "${incoming}" ] || exec <"${incoming}" # a saved machine, which it reads from its standard input
exec {qemu} "$@"
"""


def install_emulator(home: Path) -> Path:
    """Write the wrapper below ``home`` unless it is there, and return its path. Raises BackendUnavailable."""
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise BackendUnavailable(f"{QEMU} is not installed", hint="apt-get install qemu-system-x86")
    path = home / "libexec" / QEMU
    text = WRAPPER.format(variable=CGROUPS_VARIABLE, incoming=INCOMING_VARIABLE, qemu=qemu)
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
        unfinished.write_text(text)
        unfinished.chmod(0o755)
        unfinished.rename(path)
    return path


def cgroups_value(directories: Sequence[Path]) -> str:
    """What `CGROUPS_VARIABLE` must hold for QEMU to enter the groups at ``directories``."""
    return ":".join(str(directory / "cgroup.procs") for directory in directories)
