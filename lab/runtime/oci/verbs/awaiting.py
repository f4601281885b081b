"""``await``: what `run` becomes when it has waited for a while. Of use to nobody else."""

from __future__ import annotations

from lab.runtime.oci.options import FLAG
from lab.runtime.oci.waiting.foreground import until_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.oci.main import Call

OPTIONS = {"await": {"keep": FLAG}}


def await_child(call: Call) -> int:
    """``await ID PID PIDFD``: wait for a child that an earlier program of this process has started."""
    identity, pid, pidfd = call.given.words
    code = until_ended(int(pid), int(pidfd))
    if not call.given.flag("keep"):
        from lab.runtime.oci.verbs import life

        life.forget(call, identity)
    return code
