"""The contract of a host factor: something of the host, not of a backend or an image, that `lab compare` may vary.

To add one, put a module beside this file that defines a `HostFactor`; `registry` finds it, ``--factor NAME=A,B``
takes its levels, ``lab compare --factors`` lists it. The experiment makes one object per run and calls, around the
whole life of *every* instance, warm-ups included::

    request = factor.asked(level, request)               # what the instance itself has to be told
    with factor.at(level, backend, request) as seen:     # the host is set, and verified to be
        append(seen)                                     # evidence, as observations of this arm
        with backend.launch(request) as instance: …      # boot, idle, load, stop
                                                         # leaving: the host is as it was
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from lab.instance import Backend, LaunchRequest
from lab.metrics.base import Observation
from lab.model import Check

if TYPE_CHECKING:
    from lab.backends.site import Site


class HostFactor(ABC):
    """One thing of the host with a closed set of levels.

    ``name`` is lower case without dots and is no limit (memory, cpus, pids) and no backend's knob. ``levels`` are all
    that it can be set to, the first being what holds when nobody sets it. ``tells`` is what varying it shows, in one
    plain sentence.
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[str, ...]]
    tells: ClassVar[str]

    def __init__(self, site: Site) -> None:
        self.site = site

    @classmethod
    def check(cls) -> list[Check]:
        """What this host must offer to set any level; quick, changes nothing. Refused when a check is not ok."""
        return []

    @classmethod
    def applies_to(cls, backend: type[Backend]) -> bool:
        """Whether it can make a difference to instances of ``backend``; where not, it does not multiply its arms."""
        return True

    def asked(self, level: str, request: LaunchRequest) -> LaunchRequest:
        """``request`` as an instance has to be launched for ``level`` to reach it. By default as it is."""
        return request

    @abstractmethod
    def at(
        self, level: str, backend: Backend, request: LaunchRequest
    ) -> AbstractContextManager[Iterable[Observation]]:
        """Set the host to ``level`` for the life of the instance that ``request`` will start, then restore it.

        Entering is not part of any measured time. It yields what proves the level, as observations whose quantity
        starts with the factor's name (``caches.resident``); they become samples of the instance's arm. Raises
        LabError when the level can't be set or does not hold: the instance then counts as failed. What a SIGKILL
        would leave behind belongs into the ledger (`lab.host.session.ledger`).
        """

    def close(self) -> None:
        """The run is over: release what was kept between instances. Idempotent."""
        return
