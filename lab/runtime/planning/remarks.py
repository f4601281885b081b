"""What is particular of one start, a line per step: said beside the general explanation by ``lab run --explain``."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.host import syscalls
from lab.host.clock import Remark
from lab.runtime.plan import INSIDE, Enter, Plan, Step
from lab.runtime.process.privileges import LAST_CAPABILITY
from lab.runtime.rootfs import mounts

NAMESPACES = {
    syscalls.CLONE_NEWUSER: "user",
    syscalls.CLONE_NEWNS: "mount",
    syscalls.CLONE_NEWPID: "pid",
    syscalls.CLONE_NEWIPC: "ipc",
    syscalls.CLONE_NEWUTS: "uts",
    syscalls.CLONE_NEWNET: "network",
    syscalls.CLONE_NEWCGROUP: "cgroup",
}
LEVELS = 3  # of a group's path: lab/SESSION/NAME
NO_MAP = Remark("Nothing to map without a user namespace: root inside is root.", instead=True)
NO_JOIN = Remark("Nothing to join: all its namespaces are new, or the host's.", instead=True)
NO_MASKS = Remark("Nothing is masked: all of the host's /proc and /sys is there.", instead=True)
NO_PIVOT = Remark("Only the place where / begins is changed: root can leave again.", instead=True, page="chroot(2)")
NO_ENTRY = Remark("Not here: the program to be executed does that.", instead=True)
NO_HOSTNAME = Remark("It keeps the host's name.", instead=True)
NO_PROMISE = Remark("Not set: set-uid programs give privileges.", instead=True)
NO_FILTER = Remark("No filter: every system call is allowed.", instead=True)
BPF_INSTRUCTION_BYTES = 8  # struct sock_filter (linux/filter.h)


def remarks(plan: Plan) -> dict[str, Remark]:
    """By step, what this very container gets of it; what it does without is said as well."""
    found = {
        Step.CLONE: Remark(f"new namespaces: {_names(plan.clone_flags)}"),
        Step.MAP_IDS: Remark("; ".join(f"users {line}" for line in plan.uid_map.splitlines()))
        if plan.uid_map
        else NO_MAP,
        Step.PLACE: Remark(_groups(plan)),
        Step.JOIN: _joined(plan),
        Step.ROOT: Remark(mounts.from_json(plan.root).describe()),
        Step.HOSTNAME: Remark(plan.hostname) if plan.hostname else NO_HOSTNAME,
    }
    if not plan.masks:
        found[Step.MASKS] = NO_MASKS
    if plan.enter == Enter.CHROOT:
        found[Step.ENTER] = NO_PIVOT
    elif plan.enter == Enter.STAY:
        found[Step.ENTER] = NO_ENTRY
    return found | _of_the_process(plan)


def _of_the_process(plan: Plan) -> dict[str, Remark]:
    process = plan.process
    program = [INSIDE, "init", "--", *process.argv] if process.init else process.argv
    instructions = len(process.seccomp) * 3 // 4 // BPF_INSTRUCTION_BYTES  # of base 64
    held = f"{process.bounding.bit_count()} of {LAST_CAPABILITY + 1} can ever be held"
    found = {
        Step.DIRECTORY: Remark(process.directory),
        Step.CAPABILITIES: Remark(f"{held}; {process.effective.bit_count()} are, by user {process.uid}"),
        Step.SECCOMP: Remark(f"{instructions} instructions of BPF") if instructions else NO_FILTER,
        Step.EXECVE: Remark(shlex.join(program)),
    }
    if not process.no_new_privileges:
        found[Step.NO_NEW_PRIVILEGES] = NO_PROMISE
    return found


def _names(flags: int) -> str:
    return ", ".join(name for flag, name in NAMESPACES.items() if flags & flag) or "none"


def _groups(plan: Plan) -> str:
    """Mounts of v1 hierarchies have the names of their controllers; in the v2 group it is since its birth."""
    directories = [Path(tasks).parent for tasks in plan.cgroups.tasks]
    hierarchies = [directory.parents[LEVELS - 1].name for directory in directories]
    if plan.cgroups.unified:
        directories.append(Path(plan.cgroups.unified))
        hierarchies.append("v2 since its birth")
    if not directories:
        return "none: its user has been given none"
    return f"{'/'.join(directories[0].parts[-LEVELS:])} of {', '.join(hierarchies)}"


def _joined(plan: Plan) -> Remark:
    joined = [f"the {_names(int(str(flag)))} namespace made before" for _, flag in [*plan.joined_first, *plan.joins]]
    if plan.cgroup_namespace:
        joined.append("an own view of the control groups")
    return Remark(", ".join(joined)) if joined else NO_JOIN
