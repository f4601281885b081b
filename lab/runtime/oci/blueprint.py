"""What a bundle asks for, checked and turned into what `lab.runtime.container` carries out."""

from __future__ import annotations

import os
import time

from lab.errors import LabError, UsageError
from lab.record import replace
from lab.runtime.cgroup import resources
from lab.runtime.config import model as configuration
from lab.runtime.config import validate
from lab.runtime.oci import rootless
from lab.runtime.oci.store import OWN, State
from lab.runtime.oci.unit import Unit
from lab.runtime.plan import CgroupsPlan, Enter
from lab.runtime.planning import translate
from lab.runtime.rootfs.mounts import DirectoryRoot
from lab.shims import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.host.cgroup.group import Group
    from lab.runtime.config.model import Config, ProcessConfig
    from lab.runtime.plan import Plan, ProcessPlan

    Ignored = Callable[[str], None]  # is told the path of a property the specification doesn't know


class Blueprint:
    """One bundle, read and valid."""

    def __init__(self, bundle: str, text: str, config: Config) -> None:
        self.bundle = bundle
        self.text = text
        self.config = config

    @classmethod
    def read(cls, bundle: str, ignored: Ignored) -> Blueprint:
        """Raises LabError if there is no configuration, UsageError if there is a wrong one."""
        bundle = os.path.abspath(bundle)
        path = f"{bundle}/config.json"
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            raise LabError(f"JSON specification file {path} not found") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is no JSON: {error}") from error
        config = configuration.from_json(parsed(text, path), ignored)
        validate.check(config)
        return cls(bundle, text, config)

    @property
    def startable(self) -> bool:
        """Whether there is a process."""
        return self.config.process != configuration.NO_PROCESS

    @property
    def root(self) -> str:
        """The root file system, an absolute path without links. Raises LabError if there is none."""
        path = os.path.realpath(os.path.join(self.bundle, self.config.root.path))
        if not os.path.isdir(path):
            raise LabError(f"root.path: {path} is not a directory")
        return path

    def place(self, identity: str, *, by_systemd: bool) -> tuple[Group, Unit | None]:
        """The control group it is to run in, and the unit around it if there is to be one. Raises UsageError for what
        can't be meant.
        """
        path = self.config.linux.cgroups_path
        unit = Unit.wanted(path, identity, by_systemd=by_systemd)
        return (unit.group if unit else resources.group_of(path, identity)), unit

    def state(self, identity: str, group: Group) -> State:
        """What is noted before anything is made."""
        spaces = self.config.linux.namespaces
        return State(
            {
                "id": identity,
                "version": self.config.oci_version,
                "bundle": self.bundle,
                "created": timestamp(),
                "root": self.root,
                "owner": rootless.owner(),
                "group": group.path,
                "annotations": dict(self.config.annotations),
                "namespaces": translate.joined_flags(self.config),
                "pid": 0,
                "birth": 0,
                "startable": self.startable,
                "own": [OWN[space.type] for space in spaces if space.type in OWN and not space.path],
            }
        )

    def make_group(self, group: Group) -> None:
        """With its limits, and its guard over devices. Raises LimitError, LaunchError."""
        if group.exists():
            group.remove()  # an empty one: `refuse_populated` has seen to that
        resources.create(group, self.config.linux.resources)

    def plan(
        self, identity: str, group: Group, *, preserve: int, no_pivot: bool, own_keyring: bool, fail_at: str
    ) -> Plan:
        """The root is bound on itself: pivot_root(2) wants a mount point, and there is one of the right name."""
        root = self.root
        config = self.config
        if self.filters_late:
            config = replace(config, linux=replace(config.linux, seccomp=None))
        plan = translate.plan(
            config,
            DirectoryRoot(target=root, source=root),
            name=identity,
            cgroups=placement(group),
            cgroup_controllers=() if group.host.is_v2 else group.controllers,
            init=False,
            hold=True,
            fail_at=fail_at,
            bundle=self.bundle,
            cgroup_directories=directories(group),
            enter=Enter.MOVE if no_pivot else Enter.PIVOT_ROOT,
        )
        process = replace(
            surviving(plan.process, preserve), own_keyring=own_keyring, filter_follows=self.filters_late
        )
        return replace(plan, process=process)

    @property
    def can_be_watched(self) -> bool:
        """Whether processes that are not ours may trace the first one before it executes the application: those of a
        pid namespace that it joins, and hooks that run inside.
        """
        spaces = self.config.linux.namespaces
        own = any(space.type == "pid" and not space.path for space in spaces)
        return not own or bool(self.config.hooks.start_container)

    @property
    def filters_late(self) -> bool:
        """Whether the system-call filter is compiled while the first process makes its mounts: two milliseconds.

        One with a listener is not, since the first process has to meet its agent before it enters its root.
        """
        profile = self.config.linux.seccomp
        return profile is not None and not profile.listener_path

    def filter(self) -> dict[str, object]:
        """What the first process is to add to its plan, when it is told to go on."""
        if not self.filters_late:
            return {}
        return {"filter": translate.system_call_filter(self.config)}


def parsed(text: str, path: str) -> object:
    """JSON from its text. Raises UsageError."""
    try:
        value: object = loads(text)
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    return value


def refuse_populated(group: Group) -> None:
    """What runs in a group dies with the container: nothing else may be there. Raises LabError."""
    if others := group.processes():
        raise LabError(f"cgroup {group.path} is in use by process {min(others)}", hint="choose another cgroupsPath")


def placement(group: Group) -> CgroupsPlan:
    """Where a process of the container is to be."""
    return CgroupsPlan(unified=group.unified, tasks=group.tasks)


def directories(group: Group) -> dict[str, str]:
    """Its directories by controller, that of v2 by "": what a container without a cgroup namespace is shown."""
    found = {name: f"{group.host.v1[name]}/{group.path}" for name in group.controllers}
    return found | ({"": group.unified} if group.unified else {})


def surviving(process: ProcessPlan, preserve: int) -> ProcessPlan:
    """It outlives the command that makes it."""
    return replace(process, survives=True, preserve=preserve)


def exec_plan(config: Config, process: ProcessConfig, preserve: int, known: dict[str, object]) -> ProcessPlan:
    """One more process in a container of ``config`` and of state ``known``. Raises UsageError."""
    validate.check_process(process)
    return surviving(translate.process_plan(config, init=False, process=process, known=known), preserve)


def timestamp() -> str:
    """Now, as RFC 3339 with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
