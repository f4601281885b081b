"""A disk of the user's on the command line: ``lab run --on vm DISK``, and ``vm:DISK`` among the backends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.shape import patience, say
from lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from lab.backends.owndisk import DiskBackend, DiskInstance
    from lab.backends.site import Site
    from lab.cli.interrupt import Interruptible
    from lab.instance import Instance, LaunchRequest
    from lab.model import Limits, PublishedPort, Readiness, Scenario, TerminalSize

READY_SECONDS = 300.0
LEAVE = b"\x1d"  # Ctrl-], as in telnet(1) and virsh(1)
PREFIX = "vm:"
WORDS_BETWEEN = ":"  # of vm:DISK:firmware=ovmf

DiskFormat = Annotated[
    str,
    typer.Option(
        "--disk-format", metavar="FORMAT", help="A disk's format where its suffix does not say it: raw or qcow2."
    ),
]
Backing = Annotated[
    list[Path] | None,
    typer.Option("--backing", metavar="FILE", help="A file that a qcow2 disk may refer to; repeat for more."),
]


def is_meant(what: str, form: str) -> bool:
    """Whether ``what`` names a disk; a file that is not there can be seen by its suffix to be meant as one."""
    from lab.hypervisor.disks.own import SUFFIXES, is_disk

    return is_disk(what, form) or bool(form) or Path(what).suffix in set(SUFFIXES) - {".img"}


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
    from lab.cli.run import require_usable
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

    from lab.cli.interrupt import Interrupted
    from lab.cli.run import GRACE_SECONDS, announce
    from lab.cli.terminal import Terminal

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Those among the backends of a comparison. ``on`` are all backends by name, ``recorded`` is what a run keeps."""

    on: str
    kinds: tuple[type[DiskBackend], ...] = ()
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether there is nothing else, so that no application has to be built."""
        return bool(self.kinds) and len(self.kinds) == len(_words(self.on))

    @classmethod
    def admitted(cls, on: str, form: str, backing: Sequence[Path]) -> Disks:
        """``on`` with each ``vm:DISK`` replaced by the name of the backend that is made for it.

        ``vm:DISK:firmware=ovmf:devices=plain`` sets its knobs, ``format=raw`` its format. Raises LabError.
        """
        from lab.backends.owndisk import backend_of
        from lab.hypervisor.disks.own import examine, require_used

        names: list[str] = []
        kinds: list[type[DiskBackend]] = []
        for word in _words(on):
            found = _parts(word)
            if found is None:
                names.append(word)
                continue
            path, levels = found
            disk = examine(Path(path), form=levels.pop("format", form), backing=backing)
            if any(disk.files == kind.disk.files for kind in kinds):
                raise UsageError(f"{word}: the same disk is named twice", hint="--factor varies one; once is enough")
            kinds.append(backend_of(disk, levels))
            names.append(kinds[-1].name)
        if not kinds:
            if form or backing:
                raise UsageError("--disk-format and --backing are about disks", hint="--on container,vm:./disk.qcow2")
            return cls(on=on)
        require_used(backing, [kind.disk for kind in kinds])
        again = {"on": _from_anywhere(on), "format": form, "backing": [str(each.absolute()) for each in backing]}
        return cls(on=",".join(names), kinds=tuple(kinds), recorded={"disks": again})

    @classmethod
    def again(cls, settings: Mapping[str, Any]) -> Disks:
        """Those of a run that is gone on with."""
        known = settings.get("disks")
        if not known:
            return cls(on="")
        return cls.admitted(known["on"], known["format"], [Path(each) for each in known["backing"]])

    def identify(self) -> None:
        """Read each once, for its digest."""
        from lab.backends.owndisk import identify

        for kind in self.kinds:
            with patience(f"lab: reading {kind.disk.name}, for its digest"):
                identify(kind)

    def patient(self, scenario: Scenario) -> Scenario:
        """``scenario`` with time for a whole system to boot, which an emulated one needs."""
        if not self.kinds:
            return scenario
        return replace(scenario, ready_timeout_seconds=max(scenario.ready_timeout_seconds, READY_SECONDS))

    def application(self) -> Scenario:
        """What is compared where nothing else is."""
        from lab.experiment.scenario import asked_alone

        return asked_alone("-".join(kind.name.removeprefix(PREFIX) for kind in self.kinds), None, None, READY_SECONDS)


def _from_anywhere(on: str) -> str:
    """``on`` with the absolute path of each disk, for a process that may be started elsewhere."""
    found = ((word, _parts(word)) for word in _words(on))
    return ",".join(
        word
        if parts is None
        else PREFIX + word.removeprefix(PREFIX).replace(parts[0], str(Path(parts[0]).absolute()), 1)
        for word, parts in found
    )


def _words(on: str) -> list[str]:
    return [word for each in on.split(",") if (word := each.strip())]


def _parts(word: str) -> tuple[str, dict[str, str]] | None:
    """Of ``vm:DISK`` the path, and what follows it as NAME=LEVEL; None of another backend."""
    if not word.startswith(PREFIX):
        return None
    path, *rest = word.removeprefix(PREFIX).split(WORDS_BETWEEN)
    if not path:
        raise UsageError("vm: without a disk", hint="vm:./disk.qcow2")
    levels = {}
    for each in rest:
        name, equals, level = each.partition("=")
        if not (name and equals and level):
            raise UsageError(
                f"{word}: {each!r} is not NAME=LEVEL",
                hint="vm:./disk.qcow2:firmware=ovmf:devices=plain:format=raw",
            )
        levels[name] = level
    return path, levels
