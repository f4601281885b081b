"""A disk of the user's on the command line: ``lab run --on vm DISK``, and ``vm:DISK`` among the backends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.commands.disks import READY_SECONDS
from lab.commands.output import say
from lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from lab.backends.owndisk import DiskInstance
    from lab.backends.site import Site
    from lab.commands.interrupt import Interruptible
    from lab.instance import Instance, LaunchRequest
    from lab.model import Limits, PublishedPort, Readiness, TerminalSize

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


def run_disk(
    site: Site,
    what: str,
    interruptible: Interruptible,
    *,
    form: str,
    backing: Sequence[Path],
    knobs: Mapping[str, str],
    limits: Limits,
    name: str,
    ports: tuple[PublishedPort, ...],
    interactive: bool,
    size: TerminalSize | None,
    waited: Waited | None,
) -> int:
    """Boot a disk in the foreground until it switches itself off; its serial port is the output."""
    from lab.backends.owndisk import NO_PROCESS, backend_of, placeholder
    from lab.cli.instances.request import require_usable
    from lab.hypervisor.disks.own import examine, require_used
    from lab.instance import LaunchRequest

    disk = examine(Path(what), form=form, backing=backing)
    require_used(backing, [disk])
    kind = backend_of(disk)
    backend = site.backend(kind.name)
    require_usable(backend)
    backend.settle(knobs)
    backend.check_limits(limits, knobs)
    logs = site.scratch / "logs" / name
    logs.mkdir(parents=True)
    request = LaunchRequest(
        name=name,
        image=placeholder(disk),
        process=NO_PROCESS,
        limits=limits,
        log_directory=logs,
        published=ports,
        stdout=sys.stdout.fileno(),
        terminal=size,
        knobs=knobs,
    )
    return _in_foreground(backend, request, interruptible, interactive, waited)


class Waited:
    """What is waited for, in a thread of its own, while the output goes on."""

    def __init__(self, site: Site, readiness: Readiness, port: int | None) -> None:
        self.site, self.readiness, self.port = site, readiness, port

    def begin(self, instance: Instance) -> None:
        """Say when it is ready, or that it does not become so."""
        from threading import Thread

        Thread(target=self._wait, args=(instance,), name="lab-ready", daemon=True).start()

    def _wait(self, instance: Instance) -> None:
        from lab.experiment.scenario import asked_alone
        from lab.host.units import format_seconds
        from lab.metrics.base import Subject
        from lab.metrics.readiness import wait_ready
        from lab.model import Phase

        scenario = asked_alone(instance.name, self.readiness, self.port, READY_SECONDS)
        subject = Subject.before_launch(scenario=scenario, network=self.site.network, idle_seconds=0.0)
        subject.launched(instance)
        try:
            wait_ready(subject)
        except LabError as error:
            if instance.timeline.at(Phase.STOPPING) is None:  # else it is told by its end
                say(f"lab: {error.message}")
            return
        stamps = instance.timeline.stamps()
        taken = format_seconds(stamps[Phase.RESPONDED] - stamps[Phase.REQUESTED])
        say(f"lab: {instance.name} is ready ({self.readiness.milestone}) {taken} after it was started")


def _in_foreground(
    backend: Any,
    request: LaunchRequest,
    interruptible: Interruptible,
    interactive: bool,
    waited: Waited | None,
) -> int:
    """Launch, wait, stop. The first signal presses the power button, a second one pulls the plug."""
    import signal
    from threading import Thread

    from lab.cli.instances.request import GRACE_SECONDS, announce
    from lab.commands.interrupt import Interrupted
    from lab.commands.terminal import Terminal

    backend.prepare(request.image, request.knobs)
    interruptible.hold()
    place = Terminal(interactive=True) if interactive and request.terminal else nullcontext()
    with place as terminal, backend.launch(request) as instance:
        try:
            interruptible.release()
            announce(instance)
            if waited is not None:
                waited.begin(instance)
            if terminal is not None:
                say("lab: this is its serial line; Ctrl-] leaves, and ends it")
                terminal.hand_over(lambda size: None)
            if interactive:
                Thread(target=_type, args=(instance, terminal is not None), name="lab-type", daemon=True).start()
            code: int = instance.wait()
        except Interrupted:
            kill = Thread(target=instance.signal, args=(signal.SIGKILL,), daemon=True)
            interruptible.when_impatient = lambda: None if kill.ident else kill.start()
            instance.signal(signal.SIGTERM)
            instance.wait(GRACE_SECONDS)
            instance.stop(grace_seconds=0)
            raise
        finally:
            interruptible.disarm()
    return code


def _type(instance: DiskInstance, leaves: bool) -> None:
    """Pass on what is typed, byte by byte, to the serial port."""
    import signal

    while data := os.read(0, 4096):
        before, left, _ = data.partition(LEAVE) if leaves else (data, b"", b"")
        instance.machine.type(before)
        if left:
            os.kill(os.getpid(), signal.SIGTERM)
            return
