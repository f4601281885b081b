"""Disks of the user's on the command line: ``vm:DISK`` among the backends, and what is said of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands.output import patience, say
from lab.errors import UsageError
from lab.host.units import format_bytes, parse_words

if TYPE_CHECKING:
    from lab.backends.owndisk import DiskBackend
    from lab.hypervisor.disks.own import OwnDisk
    from lab.model import Scenario

READY_SECONDS = 300.0
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


def tell_space(disk: OwnDisk, folder: Path) -> None:
    """Say so where ``folder`` has not the room for all that a system could write to ``disk``."""
    if (free := shutil.disk_usage(folder).free) < disk.size_bytes:
        say(
            f"lab: {disk.name} is a disk of {format_bytes(disk.size_bytes)}, and {folder} has {format_bytes(free)} "
            "for what is written to it; a machine that writes more is unplugged"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Those among the backends of a comparison. ``on`` are all backends by name, ``recorded`` is what a run keeps."""

    on: str
    kinds: tuple[type[DiskBackend], ...] = ()
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether there is nothing else, so that no application has to be built."""
        return bool(self.kinds) and len(self.kinds) == len(parse_words(self.on))

    @classmethod
    def admitted(cls, on: str, form: str, backing: Sequence[Path]) -> Disks:
        """``on`` with each ``vm:DISK`` replaced by the name of the backend that is made for it.

        ``vm:DISK:firmware=ovmf:devices=plain`` sets its knobs, ``format=raw`` its format. Raises LabError.
        """
        from lab.backends.owndisk import backend_of
        from lab.hypervisor.disks.own import examine, require_used

        names: list[str] = []
        kinds: list[type[DiskBackend]] = []
        for word in parse_words(on):
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

    def tell_space(self, folder: Path) -> None:
        """As `tell_space`, of each: one runs after the other."""
        for kind in self.kinds:
            tell_space(kind.disk, folder)

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
    found = ((word, _parts(word)) for word in parse_words(on))
    return ",".join(
        word
        if parts is None
        else PREFIX + word.removeprefix(PREFIX).replace(parts[0], str(Path(parts[0]).absolute()), 1)
        for word, parts in found
    )


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
