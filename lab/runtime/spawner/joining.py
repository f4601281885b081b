"""One more process on its way into a container, for as long as the container lets it take.

The go-between that joins the container is in its control groups: where the processors are taken, or all of it stands
still, that takes as long as it likes. The small process has one thread and many containers: it waits for the end of
the go-between as for every other event. Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import os

from lab.runtime import container
from lab.runtime.plan import CgroupsPlan, ProcessPlan
from lab.runtime.spawner.child import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.channel import Message


class Joining:
    """One of them. ``pidfd`` is readable when the go-between is through."""

    def __init__(self, message: Message, descriptors: list[int]) -> None:
        """Begin what EXECUTE asks for. Raises StepFailed, or anything for what is no such request."""
        value, placement = message["process"], message["cgroups"]
        assert isinstance(value, dict)
        assert isinstance(placement, dict)
        self._process = ProcessPlan(**value)
        stdio, pidfd, root = descriptors[:3], descriptors[3], descriptors[4]
        namespaces = int(str(message["namespaces"]))
        started, self._channel = container.begin_exec(
            self._process, pidfd, root, namespaces, CgroupsPlan(**placement), stdio
        )
        self.child = Child(str(message["id"]), started, self._process)
        self.child.joining = True
        self.pidfd = started.pidfd

    def finish(self) -> None:
        """The go-between has ended: its child is the one now. Raises StepFailed, and then nothing is left of it.

        What it said is there already. Nothing more is waited for: one that was killed may have borne a child that
        holds its ends of the channels.
        """
        said = self.child.started.channel.fileno()
        for channel in (said, self._channel.fileno()):
            os.set_blocking(channel, False)
        container.end_exec(self._process, self.child.started, self._channel)
        os.set_blocking(said, True)
        self.child.joining = False
        if self.child.unwanted:
            self.child.kill()
