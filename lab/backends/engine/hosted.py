"""A Docker Engine of somebody else's that runs already, and a container in it: what ``--docker HOST`` uses.

Of all that is there lab touches what it has made itself: containers with the session's label, images with its name
(`lab.host.session.engines`, which removes them after lab was killed, too). An image that the engine has already, by
the digest of its configuration, is not loaded; it gets one more name for as long as the session uses it. Nothing is
pulled or pruned.

1. ``create``, ``attach``, ``start``, as in the session's own engine (`lab.backends.engine.instance`), on the engine's
   own bridge and in its own control group                     → ISOLATED and EXECUTED when ``start`` is answered
2. the container's processes, found on this host by its id in their control groups: what is measured is read there
3. one more link in its network, on lab's bridge: by it lab asks, as it asks all others
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from lab.backends.engine.client import Client
from lab.backends.engine.instance import DockerInstance, Parts, begin, description
from lab.backends.support.output import Outputs
from lab.backends.support.programs.takenover import TakenOver
from lab.backends.support.resources import InstanceResources
from lab.errors import LabError, LaunchError
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Timeline
from lab.host.procstat import start_time
from lab.host.session import engines
from lab.host.session.ledger import Resource, ResourceKind
from lab.images.tree import Tree
from lab.instance import LaunchRequest
from lab.model import Phase

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts
    from lab.images.store import Image

LINK = "lab0"
"""What lab's link is called in a container, beside the engine's eth0."""

TAG_DIGITS = 12
GONE_SECONDS = FOUND_SECONDS = 10.0
STEP_SECONDS = 0.01
PROC = Path("/proc")


class HostedEngine:
    """The engine at ``host``, as far as one session uses it."""

    def __init__(self, site: SharedParts, host: str) -> None:
        """Raises Refused when it does not answer."""
        self.site = site
        self.host = host
        self.client = Client.connect_to(host)
        self.depth = 0
        """Until a container shows it: the engine counts processes as this host does."""
        self._images = TakenOver(
            site.store, site.scratch, whose="Docker", load=self._take_in, find=self.client.image, called=self._called
        )
        self._recorded = False

    def load(self, image: Image) -> str:
        """The image's id with the engine, which is the digest of its configuration; it is brought there, under the
        session's name, unless it is there. Raises ParityError when the engine has made other layers of it.
        """
        self._record()
        identity = self._images.take(image)
        known = self.client.image(identity).get("RepoTags") or []
        if known and self._called(image) not in known:  # who else has it may remove it meanwhile
            self.client.tag(identity, engines.repository(self.site.session.id), _tag(image))
        return identity

    def layers(self, image: Image) -> list[Path]:
        """Its own copy of the image's layers."""
        return [path for path in self._images.layers(image) if path.is_dir()]

    def close(self) -> None:
        """Remove all that is the session's. Raises LabError."""
        try:
            if self._recorded:
                engines.remove(self.host, self.site.session.id)
        finally:
            self.client.close()

    def _record(self) -> None:
        if not self._recorded:
            name = engines.noted(self.host, self.site.session.id)
            self.site.session.record(Resource(kind=ResourceKind.ENGINE, name=name))
            self._recorded = True

    def _take_in(self, packed: Path) -> None:
        with packed.open("rb") as source:
            self.client.load(source)

    def _called(self, image: Image) -> str:
        return f"{engines.repository(self.site.session.id)}:{_tag(image)}"


class HostedInstance(DockerInstance):
    """A container that somebody else's engine runs, and lab watches."""

    @classmethod
    def start(cls, backend: str, request: LaunchRequest, engine: HostedEngine) -> HostedInstance:
        """Raises LaunchError; nothing is left then."""
        site, client = engine.site, engine.client
        if request.detached:
            raise LaunchError(
                f"{request.name} can't go on without lab in an engine that is not lab's",
                hint="leave out -d",
                exit_code=125,
            )
        image = engine.load(request.image)
        timeline = Timeline(request.listener)
        timeline.mark(Phase.REQUESTED)
        with ExitStack() as undo:
            resources = InstanceResources(site, request)
            undo.callback(resources.release)
            outputs = undo.enter_context(Outputs())
            body = description(request, image, site.session.id)
            name = f"lab-{site.session.id}-{request.name}"
            begun = begin(client, request, name, body, timeline, undo, outputs)
            identity = begun.identity
            found = _find(client, identity, request.name)
            if found.first is None:  # it has ended: there is nobody to ask
                resources.publish_at(IPv4Address(0))
            else:
                engine.depth = found.depth
                _plug(resources, found.first, client, identity)
            parts = Parts(identity, ControlGroup.open(found.group), resources, outputs, begun.attachment)
            layers = Tree(site.store.lower_directories(request.image))
            instance = cls(backend, request, engine, parts, timeline, layers)
            if request.terminal:
                instance.resize(request.terminal)
            undo.pop_all()
        return instance

    def _verify_gone(self) -> None:
        """Its group is the engine's to remove, who does it in its own time."""
        deadline = time.monotonic() + GONE_SECONDS
        while self.cgroup.exists() and time.monotonic() < deadline:
            time.sleep(STEP_SECONDS)
        super()._verify_gone()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A container on this host: its control group's path, its first process, and how far below this namespace of
    processes the engine's is.
    """

    group: str
    first: int | None = None
    depth: int = 0


def _find(client: Client, identity: str, name: str) -> _Found:
    """By the container's id, which nobody else's group is called by. Raises LaunchError where the container is none
    of this host's processes, so that nothing of it could be measured.
    """
    deadline = time.monotonic() + FOUND_SECONDS
    state = client.inspect(identity)["State"]
    while not (groups := {pid: group for pid, group in _groups().items() if identity in group}):
        state = client.inspect(identity)["State"]
        if not state["Running"]:
            return _Found(group=f"docker/{identity}")
        if time.monotonic() > deadline:  # the engine takes a moment to notice an end
            raise LaunchError(
                f"container {name} runs, and is no process of this host: nothing of it can be measured",
                hint="--docker with an engine of this host",
                exit_code=125,
            )
        time.sleep(STEP_SECONDS)
    first = min(groups, key=lambda pid: (start_time(pid) or math.inf, pid))  # others have ended meanwhile
    return _Found(group=groups[first], first=first, depth=_depth(first, state["Pid"]))


def _groups() -> Mapping[int, str]:
    """The control group of each process, below its hierarchy's root: that of memory, or of v2 (cgroups(7))."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                lines = [line.split(":", 2) for line in (entry / "cgroup").read_text().splitlines()]
                paths = {names: path for _, names, path in lines}
                found[int(entry.name)] = paths.get("memory", paths.get("", "")).lstrip("/")
    return found


def _depth(pid: int, known: int) -> int:
    """Where among the numbers of ``pid`` the one is by which the engine knows it (proc_pid_status(5), NSpid)."""
    numbers = _numbers(str(pid))
    here = len(_numbers("self")) - 1
    return next((at - here for at in range(here, len(numbers)) if numbers[at] == known), 0)


def _numbers(pid: str) -> list[int]:
    """From this namespace's inwards; none of a process that has ended."""
    with suppress(OSError):
        if found := re.search(r"^NSpid:(.*)$", (PROC / pid / "status").read_text(), re.MULTILINE):
            return [int(word) for word in found[1].split()]
    return []


def _plug(resources: InstanceResources, pid: int, client: Client, identity: str) -> None:
    """Raises LabError, but not where the container has ended meanwhile."""
    try:
        resources.plug_into(pid, LINK)
    except (LabError, OSError):
        if start_time(pid) is not None and client.inspect(identity)["State"]["Running"]:
            raise
        resources.publish_at(IPv4Address(0))


def _tag(image: Image) -> str:
    return image.digest.partition(":")[2][:TAG_DIGITS]
