"""A machine that was saved with its application running, and what makes another one of it.

    save      7  pause: the vCPUs stand still, so that RAM and disks are of one moment
              8  write: RAM and every device's state leave QEMU as a migration stream, into a file
              9  keep: the layers that the guest has written become disks which nobody writes to any more
    restore  10  QEMU reads the stream instead of a kernel; each machine writes to a layer of its own above the saved.
                 Where RAM was left out of it, QEMU maps that, and copies a page when the guest writes (memory.py)
             11  the guest wakes with the address, name, clock and random state of the one that was saved: it is told
                 its own (`wake_order`, and wake in guest/lab.sh)

libvirt's own restore insists on the saved machine's name, UUID and MAC address, so that of each there is one (see
https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainRestoreFlags, what dxml may change). What it consists of
does not: the same stream, read by a QEMU that libvirt starts like any other.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.host.identity import privilege
from lab.hypervisor.guest.handover import Handover
from lab.hypervisor.memory import SavedMemory

STATE = "state"
LOGS = ("stdout.log", "stderr.log")
SEED_BYTES = 64  # more than the 32 that the kernel's generator holds (random(4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved machine: files in a folder of its own, read-only from now on.

    ``parts`` are the files that were the machine's own, by name: its layers, and what it booted from. ``logs`` are
    what its application had said by then, in files named as an instance's logs.
    """

    state: Path
    memory: SavedMemory | None  # its RAM, where that is not in the state
    parts: Mapping[str, Path]
    logs: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a machine goes on from."""
        return (self.state, *self.parts.values())

    @property
    def size_bytes(self) -> int:
        """What the folder takes of the host's disk."""
        return sum(path.stat().st_blocks * 512 for path in self.files)


def keep(machine: Path, logs: Path, directory: Path, memory: SavedMemory | None = None) -> Snapshot:
    """Take over what remains of a machine whose QEMU has ended: of its folder, of its application's ``logs``, and its
    ``memory``. Raises LabError.
    """
    if memory is not None:
        memory.seal()
    parts = {}
    for path in sorted(machine.iterdir()):
        if path.is_file():
            kept = parts[path.name] = path.rename(directory / path.name)
            os.chown(kept, privilege.user_id(), privilege.group_id())  # it was the saved QEMU's
            kept.chmod(0o444)
    said = tuple(Path(shutil.copy(logs / name, directory)) for name in LOGS)
    return Snapshot(state=directory / STATE, memory=memory, parts=parts, logs=said)


def wake_order(handover: Handover) -> str:
    """What a restored guest is told first: who it is, what time it is, and randomness that no other one gets."""
    address = str(handover.address) if handover.address else "-"
    words = (address, handover.mac or "-", handover.hostname, str(time.time_ns()), os.urandom(SEED_BYTES).hex())
    return " ".join(("wake", *words))
