"""A control group for an instance of lab's, of whatever backend: limited before anything runs in it."""

from __future__ import annotations

from pathlib import PurePosixPath

from lab.errors import LaunchError
from lab.host.cgroup import accounting
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Hierarchies
from lab.model import Limits
from lab.runtime.cgroup import resources
from lab.runtime.config.model import Resources


def limited(
    path: PurePosixPath | str, wanted: Resources | Limits, *, hierarchies: Hierarchies | None = None
) -> ControlGroup:
    """Make the group and its parents, set the limits and read them back; `lab.runtime.cgroup.resources` says how.

    Raises LimitError if a limit's controller is missing or a limit did not take, LabError if the group
    exists or can't be made; nothing is left behind then.
    """
    cgroup = ControlGroup.open(path, hierarchies=hierarchies)
    try:
        resources.make(cgroup.group, wanted if isinstance(wanted, Resources) else resources.of_limits(wanted))
    except BaseException:
        if not cgroup.exists():
            cgroup.prune_parents()
        raise
    return cgroup


def explained_by(cgroup: ControlGroup, error: LaunchError) -> LaunchError:
    """The same error of a start in that group, with the remedy if the kernel ended it for want of memory."""
    if not accounting.oom_kills(cgroup.group):
        return error
    limit = accounting.memory_held(cgroup.group)
    return LaunchError(
        f"{error.message}; it ran out of memory" + (f", of which it may have {limit} bytes" if limit else ""),
        hint="a higher limit: --memory",
        exit_code=error.exit_code,
    )
