"""A disk of the user's on the command line: ``lab run --on vm DISK``, and ``vm:DISK`` among the backends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from lab.commands.options.disks import tell_space
from lab.commands.output import say
from lab.commands.running.foreground import Waited, foreground
from lab.commands.running.wanted import GRACE_SECONDS, Wanted, require_usable
from lab.errors import UsageError
from lab.host import waits

if TYPE_CHECKING:
    from lab.backends.owndisk import DiskInstance
    from lab.backends.site import Site
    from lab.commands.console.terminal import Terminal
    from lab.commands.interrupt import Interruptible
    from lab.instance import Instance

LEAVE = b"\x1d"  # Ctrl-], as in telnet(1) and virsh(1)


def require_vm(what: str, backend: str) -> None:
    """Raises UsageError for a backend that boots no disks."""
    if backend != "vm":
        raise UsageError(f"{what} is a disk, and {backend} boots none", hint=f"lab run --on vm {what}")


def refuse(what: str, given: Mapping[str, object]) -> None:
    """Raises UsageError for an option, by its name, that needs lab to be inside."""
    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} can't be had for the disk {what}: nothing of lab's is in there", hint=f"leave out {option}"
            )


def run_disk(site: Site, wanted: Wanted, interruptible: Interruptible, waited: Waited | None) -> int:
    """Boot a disk in the foreground until it switches itself off; its serial port is the output."""
    from lab.backends.owndisk import NO_PROCESS, DiskBackend, placeholder
    from lab.hypervisor.disks.own import examine, require_used
    from lab.instance import LaunchRequest

    disk = examine(Path(wanted.what), form=wanted.form, backing=wanted.backing)
    require_used(wanted.backing, [disk])
    kind = DiskBackend.of(disk)
    backend = site.backend(kind.name)
    require_usable(backend)
    backend.settle(wanted.knobs)
    backend.check_limits(wanted.limits, wanted.knobs)
    tell_space(disk, site.scratch)
    name = wanted.name or "run"
    logs = site.scratch / "logs" / name
    logs.mkdir(parents=True)
    request = LaunchRequest(
        name=name,
        image=placeholder(disk),
        process=NO_PROCESS,
        limits=wanted.limits,
        log_directory=logs,
        published=wanted.ports,
        stdout=sys.stdout.fileno(),
        terminal=wanted.size if wanted.interactive else None,
        knobs=wanted.knobs,
    )
    backend.prepare(request.image, request.knobs)
    attend = partial(_attend, interactive=wanted.interactive)
    return foreground(backend, request, interruptible, waited, interactive=True, attend=attend, end=_end)


def _attend(instance: Instance, terminal: Terminal | None, *, interactive: bool) -> None:
    if terminal is not None:
        say("lab: this is its serial line; Ctrl-] leaves, and ends it; a second one does not wait")
        terminal.hand_over(lambda size: None)
    if interactive:
        Thread(target=_type, args=(instance, terminal is not None), name="lab-type", daemon=True).start()


def _end(instance: Instance, _number: int) -> None:
    """Press the power button, wait, pull the plug."""
    instance.signal(signal.SIGTERM)
    waits.within(GRACE_SECONDS, instance.wait)
    instance.stop(grace_seconds=0)


def _type(instance: DiskInstance, leaves: bool) -> None:
    """Pass on what is typed, byte by byte, to the serial port. Each `LEAVE` is a signal, as Ctrl-C is without -it."""
    while data := os.read(0, 4096):
        typed, *left = data.split(LEAVE) if leaves else [data]
        instance.machine.type(typed)
        for _ in left:
            os.kill(os.getpid(), signal.SIGTERM)
