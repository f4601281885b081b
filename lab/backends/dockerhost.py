"""Docker, by an engine that runs on this host already: ``--docker HOST`` puts it in the place of the session's own.

Only that option leads here. What is used of the engine, and how a container is reached, says
`lab.backends.engine.hosted`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from lab.backends import registry
from lab.backends.docker import Docker
from lab.backends.support.base import raise_as_launch_error
from lab.backends.support.brought import Brought
from lab.errors import LabError, UsageError
from lab.host.identity import privilege
from lab.host.session import engines
from lab.host.survey import checks
from lab.instance import NO_KNOBS, Knob, LaunchRequest, Parity
from lab.model import Check

if TYPE_CHECKING:
    from lab.backends.engine.hosted import HostedEngine, HostedInstance
    from lab.backends.support.shared import SharedParts
    from lab.images.store import Image

NAME = "host"
OPTION = "--docker"
_allowed: set[str] = set()


def allow(host: str) -> str:
    """The word by which the backend of the engine at ``host`` is found, which the user has named by the option.

    Raises UsageError for what can't be one.
    """
    known = engines.checked(host)
    _allowed.add(known)
    return f"{DockerHost.prefix}{known}"


class DockerHost(Docker, Brought):
    """A container as ``docker run`` makes it in an engine that is there.

    ``host`` is that engine's address, ``version`` what it calls itself; if it does not answer, ``trouble`` says so.
    """

    prefix = "docker:"
    first_order = 41  # right behind the session's own
    host: ClassVar[str]
    version: ClassVar[str]
    trouble: ClassVar[str]
    knobs: ClassVar[tuple[Knob, ...]] = ()
    parity = Parity(
        differences=(
            *Docker.parity.differences[:-2],
            "The engine is another's, with its own settings: its bridge, packet filter, AppArmor profile and control "
            "groups are what it gives to anybody. It serves others too, so its memory and CPU are not shown.",
            "Network: the engine's own bridge, and a second link on lab's bridge, by which all requests come. It is "
            "put in when the engine has answered, so a first answer can be no sooner than some hundredths of a "
            "second after that.",
        ),
    )

    @classmethod
    def bring(cls, rest: str, *, form: str = "", backing: Sequence[Path] = ()) -> type[Self]:
        """Raises UsageError unless the option has named it."""
        if rest not in _allowed:
            raise UsageError(
                f"{cls.prefix}{rest}: an engine that runs already is used by {OPTION} alone",
                hint=f"--on docker {OPTION} {rest or engines.HINT}",
            )
        return cls._of(rest)

    @classmethod
    def is_same(cls, other: type[Brought]) -> bool:
        return issubclass(other, DockerHost) and cls.host == other.host

    @classmethod
    def recall(cls, rest: str) -> type[Self]:
        return cls.bring(rest)

    @classmethod
    def _of(cls, host: str) -> type[Self]:
        version = trouble = ""
        try:
            version = engines.version(host)
        except LabError as error:
            trouble = error.message
        title = f"container (this host's Docker {version})"
        word = f"{cls.prefix}{host}"
        kind = registry.make(cls, NAME, word=word, title=title, host=host, version=version, trouble=trouble)
        registry.admit(kind)
        return kind

    def __init__(self, site: SharedParts) -> None:
        super().__init__(site)
        self._hosted: HostedEngine | None = None
        self._asking = threading.Lock()

    @classmethod
    def check(cls) -> list[Check]:
        return [privilege.check(), checks.cgroup(), checks.namespaces(), cls._answers()]

    @classmethod
    def _answers(cls) -> Check:
        found, remedy = cls.trouble or f"{cls.version} at {cls.host}", f"start it, or name another: {OPTION}"
        return Check(name="docker engine", ok=not cls.trouble, found=found, remedy=remedy, required_by=(cls.name,))

    @property
    def hosted(self) -> HostedEngine:
        """The engine. Raises LabError when it does not answer."""
        from lab.backends.engine.hosted import HostedEngine

        with self._asking:
            if self._hosted is None:
                self._hosted = HostedEngine(self.site, self.host)
            return self._hosted

    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """The image in the engine, known to be the same; lab's helper program."""
        from lab.inside.build import program

        program()
        self.hosted.load(image)

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> list[Path]:
        from lab.inside.build import program

        self.hosted.load(image)
        return [*self.hosted.layers(image), program()]

    def launch(self, request: LaunchRequest) -> HostedInstance:
        from lab.backends.engine.hosted import HostedInstance

        try:
            return HostedInstance.start(self.name, request, self.hosted)
        except LabError as error:
            raise_as_launch_error(error)
            raise

    def close(self) -> None:
        with self._asking:
            hosted, self._hosted = self._hosted, None
        if hosted is not None:
            hosted.close()
