"""A reference: the same container, made by another runtime with the OCI command line.

Everything but the runtime is the same as for `lab.backends.container`: configuration, layers, network, limits,
helper, logs. How one is made: `lab.backends.support.programs.ocicontainer`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lab.backends.container import ContainerBackend
from lab.backends.support.programs.binary import BINARY, Binary, locate, look_at
from lab.backends.support.programs.ocicontainer import OciContainer
from lab.backends.support.programs.ociprogram import Runtime
from lab.errors import UsageError
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import make_room
from lab.host.clock import Timeline
from lab.host.identity import privilege
from lab.host.session.ledger import Resource, ResourceKind
from lab.host.survey import checks
from lab.images.store import Image
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity, Survivor
from lab.model import Check
from lab.runtime.launcher.spec import Spec

if TYPE_CHECKING:
    from lab.backends.support.host import Contained
    from lab.backends.support.resources import InstanceResources
    from lab.backends.support.shared import SharedParts

JOINED = "All cgroup hierarchies of the host are joined, those that lab does without too."
WRITABLE = (
    "On cgroup v1 the tmpfs above the view of the cgroups can be written to (seen: runc 1.0, 1.1, crun 0.17, 1.8)."
)
TUN_CLOSED = ((1, 2, 0), (1, 2, 4))
"""runc from 1.2.0 to before 1.2.4 allowed no tun devices; all others do (release notes of 1.2.4)."""
TUN_OPEN = (0, 17)
"""crun of that release, tried, allows them; 1.8.1, tried as well, does not."""
HABITS: Mapping[str, tuple[str, ...]] = {
    "runc": (JOINED, WRITABLE),
    "crun": (
        JOINED,
        WRITABLE,
        "Where it has to be shown cgroup v1 alone, a shell enters the v2 group first: part of its boot time.",
    ),
    "runsc": (JOINED,),
}
"""What runtimes do otherwise, by what their version begins with."""
TUN = "The device /dev/net/tun is allowed: this runtime adds it to what the configuration allows."
UNKNOWN = "What this runtime does otherwise than lab's is not known beforehand: the isolation questions ask inside."
REFUSE_HYBRID = ("crun",)


def habits(binary: Binary) -> tuple[str, ...]:
    """A sentence for each way in which containers of that program are known to differ from lab's."""
    program, release = binary.answers.program, binary.answers.release
    known = HABITS.get(program, (UNKNOWN,))
    if privilege.is_rootless():  # it joins what lab has put it into, and nobody's devices are guarded
        return tuple(each for each in known if each != JOINED)
    allows_tun = {"runc": not TUN_CLOSED[0] <= release < TUN_CLOSED[1], "crun": release == TUN_OPEN}
    return (*known, TUN) if allows_tun.get(program) else known


def binary_knob(first: str) -> Knob:
    """Which program it is; ``first`` where nobody says."""
    return Knob(
        name=BINARY,
        levels=(first,),
        is_open=True,
        example="./runc-1.3,./runc-1.4",
        tells="what another version, or another build, of the same runtime changes",
    )


def _runtime(binary: Binary) -> Runtime:
    return Runtime(binary=binary, refuses_hybrid=binary.answers.program in REFUSE_HYBRID)


class Reference(ContainerBackend):
    """lab's container, but for the runtime that makes it.

    ``program`` is what its version begins with, ``package`` what ships it in Debian and Ubuntu. Restoring is a
    knob only of those that save and restore in a way of their own that lab knows.
    """

    reference = True
    rootless = False  # but for those that have been tried so
    program: ClassVar[str]
    package: ClassVar[str]
    parity = Parity(
        differences=(
            *ContainerBackend.parity.differences,
            "The short-lived processes of the runtime itself run outside the cgroup: figures of CPU leave them out.",
            "When its first process starts can't be seen from outside: the phase until execve includes it.",
        ),
        rootless=(
            *ContainerBackend.parity.rootless,
            "The runtime is told of no control group and no limit: lab puts it into the instance's, in which limits "
            "hold. Where some hierarchies were delegated, its view of the others is of the user's own group.",
        ),
    )

    def __init__(self, site: SharedParts) -> None:
        super().__init__(site)
        self._listed = False
        self._lock = threading.Lock()

    @classmethod
    def binary(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Binary:
        """The program that makes instances with these knobs. Raises UsageError where it can't be executed."""
        return look_at(locate(knobs.get(BINARY, cls.program)))

    @classmethod
    def kin(cls) -> str:
        """What the versions of all programs begin with that may take this one's place."""
        return cls.program

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        """The path of its program among the rest. Raises UsageError for a program that is none of this runtime's."""
        levels, usual = super().settle(knobs), super().settle()
        if levels[BINARY] != usual[BINARY]:  # the usual one is looked at by `check`
            answers = cls.binary(knobs).answers
            if answers.trouble:
                raise UsageError(f"{knobs[BINARY]} is no OCI runtime: {answers.trouble}", hint=f"name a {cls.kin()}")
            if answers.program != cls.kin():
                raise UsageError(
                    f"{knobs[BINARY]} is no {cls.kin()}: it says {answers.version or 'no version'!r}",
                    hint=f"--on oci:{knobs[BINARY]}",
                )
            levels[BINARY] = str(cls.binary(knobs).path)
        return levels

    @classmethod
    def differences(cls, knobs: Mapping[str, str] = NO_KNOBS) -> tuple[str, ...]:
        binary = cls.binary(knobs)
        told = binary.identity
        made = f"Made by {told['path']}: {binary.answers.describe()}, {told['digest'][:19]}…"
        return (*super().differences(knobs), *habits(binary), made)

    @classmethod
    def made_by(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        return cls.binary(knobs).identity

    @classmethod
    def check(cls) -> list[Check]:
        own_ids = [checks.subordinate_ids()] if privilege.is_rootless() else []
        return [*super().check(), *own_ids, cls._check_program()]

    @classmethod
    def _check_program(cls) -> Check:
        remedy = f"apt-get install {cls.package}"
        try:
            binary = cls.binary()
        except UsageError:
            found, is_ok = "not installed", False
        else:
            trouble, said = binary.answers.trouble, binary.answers.describe()
            found = f"{binary.path}: {trouble or said}"
            is_ok = not trouble and binary.answers.program == cls.kin()
        return Check(name=cls.name, ok=is_ok, found=found, remedy=remedy, required_by=(cls.name,))

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        self.settle(knobs)
        self.binary(knobs).require_unchanged()
        super().prepare(image, knobs)
        self._list_groups()

    def _contain(self, spec: Spec, stdio: list[int], timeline: Timeline, resources: InstanceResources) -> Contained:
        self._list_groups()
        self.settle(resources.request.knobs)
        binary = self.binary(resources.request.knobs)
        return OciContainer.launch(_runtime(binary), self.site, spec, stdio, timeline)

    def _take_over(self, request: LaunchRequest, spec: Spec, survivor: Survivor) -> Contained:
        try:
            binary = self.binary(request.knobs)
        except UsageError:  # what it made still runs, and can be ended without it
            binary = look_at(Path(request.knobs.get(BINARY, self.program)))
        return OciContainer.take_over(_runtime(binary), self.site, spec, survivor)

    def _list_groups(self) -> None:
        """Once: tell the ledger of the groups runtimes make beyond lab's hierarchies, and make their parents.

        A parent that is not empty can't be removed from under one by another lab that ends meanwhile.
        """
        with self._lock:
            if not self._listed:
                path = group_of(self.site.session.id)
                self.site.session.record(Resource(kind=ResourceKind.OTHER_CGROUP, name=path))
                make_room(f"{path}/any")
                self._listed = True
