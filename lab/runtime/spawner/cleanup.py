"""The last act of the small process: it removes what is left of a session whose client is gone.

See `lab.runtime.spawner.spawner`, which imports this only then: whatever it had imported before, every fork would
copy.
"""

from __future__ import annotations

import os
import shutil

from lab.errors import LabError
from lab.host.cgroup import descent
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from lab.runtime.spawner.child import Child


def clean_up(children: Collection[Child], session: str, scratch: str, command: list[str]) -> None:
    """The client is gone: remove what is left of the session. Each part is tried even if another fails."""
    if any(child.joining for child in children):  # what it bears is not known yet
        with suppress(LabError, OSError):
            descent.kill_below(os.getpid())
    for child in children:
        child.kill()
        if child.pid_file:  # what criu has begun to restore does not end with it, and is our child by now
            _kill_group(session, child.identity)
    # In any order: the first process of a pid namespace ends only when all others in it have been reaped, and
    # those that were started beside it are ours to reap (pid_namespaces(7)).
    with suppress(ChildProcessError):
        while True:
            os.wait()
    _remove_groups(session)
    shutil.rmtree(scratch, ignore_errors=True)
    if command:
        os.posix_spawn(command[0], command, os.environ, setsigmask=[])
        os.wait()


def _kill_group(session: str, name: str) -> None:
    with suppress(LabError, OSError):
        ControlGroup.open(group_of(session, name)).kill()


def _remove_groups(session: str) -> None:
    group = ControlGroup.open(group_of(session))
    try:
        group.kill()
        group.remove()
    except (LabError, OSError):
        pass  # the session's ledger still lists it
