"""What users bring, among the backends on the command line: ``vm:DISK`` and ``oci:RUNTIME``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands.options.disks import tell_space
from lab.commands.output import patience
from lab.errors import ResultsError, UsageError
from lab.host.units import parse_words

if TYPE_CHECKING:
    from lab.backends.owndisk import DiskBackend
    from lab.backends.support.brought import Brought as BroughtBackend
    from lab.model import Scenario
    from lab.results.record import Arm

READY_SECONDS = 300.0
RECORDED = "disks"  # in a run's settings, whose first ones were disks
DISK, ENGINE = "vm:", "docker:"
Docker = Annotated[
    str,
    typer.Option(
        "--docker",
        metavar="HOST",
        help="For docker: an engine of this host that runs already, like unix:///var/run/docker.sock.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """Those among the backends of a command. ``on`` are all backends by name, ``recorded`` is what a run keeps."""

    on: str
    kinds: tuple[type[BroughtBackend], ...] = ()
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @property
    def disks(self) -> tuple[type[DiskBackend], ...]:
        """The disks among them."""
        from lab.backends.owndisk import DiskBackend

        return tuple(kind for kind in self.kinds if issubclass(kind, DiskBackend))

    @property
    def alone(self) -> bool:
        """Whether there is nothing but disks, so that no application has to be built."""
        return bool(self.kinds) and len(self.disks) == len(parse_words(self.on))

    @classmethod
    def admitted(cls, on: str | Sequence[str], form: str = "", backing: Sequence[Path] = ()) -> Brought:
        """``on`` with each ``vm:DISK`` and ``oci:RUNTIME`` replaced by the name of the backend that is made for it.

        ``form`` and ``backing`` are about disks. What was admitted before is called by its name. Raises LabError.
        """
        from lab.backends import registry

        known = registry.admitted()
        names: list[str] = []
        words: list[str] = []
        kinds: list[type[BroughtBackend]] = []
        for word in parse_words(on) if isinstance(on, str) else on:
            family = None if word in known else registry.family_of(word)
            if family is None:
                names.append(word)
                words.append(word)
                continue
            kind = family.bring(word.removeprefix(family.prefix), form=form, backing=backing)
            if any(kind.is_same(other) for other in kinds):
                raise UsageError(f"{word} is named twice", hint="--factor varies one; once is enough")
            kinds.append(kind)
            names.append(kind.name)
            words.append(kind.word)
        found = cls(
            on=",".join(names),
            kinds=tuple(kinds),
            recorded={RECORDED: {"on": words, "format": form, "backing": [str(each.absolute()) for each in backing]}}
            if kinds
            else {},
        )
        found._require_used(form, backing)
        return found

    def _require_used(self, form: str, backing: Sequence[Path]) -> None:
        if not (form or backing):
            return
        from lab.hypervisor.disks.own import require_used

        if not self.disks:
            raise UsageError("--disk-format and --backing are about disks", hint="--on container,vm:./disk.qcow2")
        require_used(backing, [kind.disk for kind in self.disks])

    @classmethod
    def again(cls, settings: Mapping[str, Any]) -> Brought:
        """Those of a run that is gone on with."""
        from lab.backends.dockerhost import allow

        known = settings.get(RECORDED)
        if not known:
            return cls(on="")
        for word in known["on"]:
            if word.startswith(ENGINE):  # the option was given when the run began
                allow(word.removeprefix(ENGINE))
        return cls.admitted(known["on"], known["format"], [Path(each) for each in known["backing"]])

    def identify(self) -> None:
        """Read each disk once, for its digest."""
        from lab.backends.owndisk import identify

        for kind in self.disks:
            with patience(f"lab: reading {kind.disk.name}, for its digest"):
                identify(kind)

    def tell_space(self, folder: Path) -> None:
        """As `lab.commands.options.disks.tell_space`, of each: one runs after the other."""
        for kind in self.disks:
            tell_space(kind.disk, folder)

    def patient(self, scenario: Scenario) -> Scenario:
        """``scenario`` with time for a whole system to boot, which an emulated one needs."""
        if not self.disks:
            return scenario
        return replace(scenario, ready_timeout_seconds=max(scenario.ready_timeout_seconds, READY_SECONDS))

    def application(self) -> Scenario:
        """What is compared where there are only disks."""
        from lab.experiment.scenarios.scenario import asked_alone

        return asked_alone("-".join(kind.name.removeprefix(DISK) for kind in self.disks), None, None, READY_SECONDS)


def hosted(on: str, docker: str) -> str:
    """``on`` with the engine that ``--docker`` names in the place of the session's own. Raises UsageError."""
    if not docker:
        return on
    from lab.backends.dockerhost import allow

    words = parse_words(on)
    if "docker" not in words:
        raise UsageError("--docker is about the backend docker", hint="--on docker")
    word = allow(docker)
    return ",".join(word if each == "docker" else each for each in words)


def require_same_programs(arms: Sequence[Arm]) -> None:
    """Raises ResultsError when a program of others that made instances of a run's arms is not the one that it was.

    A level that named it by a path of another folder names it from now on.
    """
    from lab.backends.registry import find
    from lab.backends.support.programs.binary import BINARY, remember

    for arm in arms:
        if not arm.made_by:
            continue
        path = Path(arm.made_by["path"])
        knobs = {name: level for name, level in arm.factors.items() if name == BINARY}
        for level in knobs.values():
            remember(level, path)
        if find(arm.backend).made_by(knobs).get("digest") != arm.made_by["digest"]:
            raise ResultsError(f"{path} is another program than the run measured", hint="start a new run")


def one(on: str) -> str:
    """The word that finds the backend ``on`` from any folder, and in another process. Raises LabError for what can't
    be used, and for a disk, on which no image runs.
    """
    from lab.backends import registry

    if on.startswith(DISK):
        raise UsageError(f"{on}: a disk runs no image", hint=f"lab run --on vm {on.removeprefix(DISK)}")
    if registry.family_of(on) is None:
        return on
    (kind,) = Brought.admitted([on]).kinds
    return kind.word
