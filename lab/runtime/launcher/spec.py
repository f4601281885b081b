"""One container to start, as the rest of lab says it, and the plan that it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.errors import UsageError
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Listener
from lab.host.execution import terminals
from lab.inside import build as inside
from lab.model import TerminalSize
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Config, Hooks
from lab.runtime.launcher.checkpoint import Checkpoint
from lab.runtime.plan import INSIDE, CgroupsPlan, Enter, Plan
from lab.runtime.planning import translate
from lab.runtime.rootfs.layers import Directory, Overlay
from lab.runtime.rootfs.mounts import DirectoryRoot, OverlayRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One container to start.

    ``name`` is unique in the session. ``init`` puts lab's helper in front as PID 1; with ``terminal`` it makes one
    for the application, whose master it sends over standard input, a socket. ``hold`` stops before the application
    is executed, until `Container.proceed`. ``survives`` lets it outlive the small process; what ends with the
    session all the same, see `Launcher.keep`. ``mergeable`` offers its memory to KSM. One that is ``savable`` can be
    saved, and ``checkpoint`` is one that was: its processes go on, and none is executed. ``root`` is an overlay then,
    which begins with what that had written. ``fail_at`` names a
    `lab.runtime.plan.Step` to fail at: how tests prove that nothing is left behind. ``enter`` says how its root is
    entered: CHROOT is for the backend that isolates nothing, and beside the configuration, since annotations there
    may be an image's. ``filter`` is one that further processes get in place of the configuration's: a BPF program in
    base 64, "" for none.
    """

    name: str
    config: Config
    root: Overlay | Directory
    init: bool = True
    terminal: TerminalSize | None = None
    hold: bool = False
    survives: bool = False
    mergeable: bool = False
    savable: bool = False
    checkpoint: Checkpoint | None = None
    fail_at: str = ""
    enter: str = Enter.PIVOT_ROOT
    read_only_by_landlock: tuple[str, ...] = ()
    filter: str = ""


def with_helper(spec: Spec) -> Config:
    """Its configuration, and lab's helper in it."""
    if not spec.init:
        return spec.config
    helper = bundle.bind(inside.program().parent, str(Path(INSIDE).parent))
    return replace(spec.config, mounts=(*spec.config.mounts, helper))


def refuse_callers_share(config: Config) -> None:
    """What an OCI runtime's caller has a part in: lab's own instances get terminals from the helper, and no hooks.

    Raises UsageError.
    """
    asked = {
        "process.terminal": config.process.terminal,
        "hooks": config.hooks != Hooks(),
        "linux.intelRdt": config.linux.intel_rdt,
        "linux.netDevices": config.linux.net_devices,
    }
    for name in [name for name, value in asked.items() if value]:
        raise UsageError(f"config.json: {name} is not for lab's own instances", hint="lab-oci carries it out")


def plan_of(spec: Spec, config: Config, root: OverlayRoot | DirectoryRoot, cgroup: ControlGroup) -> Plan:
    """What the small process is told of it."""
    plan = translate.plan(
        config,
        root,
        name=spec.name,
        cgroups=placement(cgroup),
        cgroup_controllers=_shown_controllers(cgroup),
        init=spec.init,
        helper=terminals.as_option(spec.terminal) if spec.terminal else (),
        hold=spec.hold,
        fail_at=spec.fail_at,
        enter=spec.enter,
    )
    process = replace(
        plan.process,
        read_only_by_landlock=spec.read_only_by_landlock,
        survives=spec.survives,
        mergeable=spec.mergeable,
        leads=spec.savable,
    )
    return replace(plan, process=process)


def explained(plan: Plan, listener: Listener) -> Plan:
    """The same, whose steps ``listener`` hears of."""
    from lab.runtime.planning.remarks import remarks

    listener.remark(remarks(plan))
    return replace(plan, explain=True)


def placement(cgroup: ControlGroup) -> CgroupsPlan:
    """Where the processes of a container with that group are placed."""
    unified = cgroup.unified_directory
    tasks = [str(directory / "tasks") for directory in cgroup.directories if directory != unified]
    return CgroupsPlan(unified=str(unified or ""), tasks=tasks)


def _shown_controllers(cgroup: ControlGroup) -> tuple[str, ...]:
    """The v1 controllers the container is placed by; none on v2."""
    joined = cgroup.hierarchies.joined()
    return tuple(name for name, mount in cgroup.hierarchies.v1.items() if mount in joined)
