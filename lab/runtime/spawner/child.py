"""A process that the launcher's small process has started, as that knows it.

Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import os
import select
import time

from lab.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.channel import Message
    from lab.runtime.container import Started
    from lab.runtime.plan import Plan, ProcessPlan
    from lab.runtime.spawner.companion import Companion


def now() -> float:
    """Seconds on CLOCK_MONOTONIC; `lab.host.clock` would import more than the small process needs."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Child:
    """One process started here, until it has ended and been reaped."""

    def __init__(self, identity: str, started: Started, process: ProcessPlan, plan: Plan | None = None) -> None:
        self.identity = identity
        self.started = started
        self.hold = plan is not None and plan.hold
        self.explain = plan is not None and plan.explain
        self.pid_file = plan.pid_file if plan is not None else ""  # it is criu, and tells there whom it restored
        self.program = process.argv[0]
        self.init = process.init  # lab's helper comes first, so execve of the application is told by the status pipe
        self.executing = False  # it announced its execve: the end of the channel is that, and not its death
        self.executed = False
        self.unfit = False  # a call of its script has failed: it is to be started in the other way
        self.companion: Companion | None = None  # who sees the start through, where that may take time
        self.joining = False  # it is yet to be borne, inside: what was started is a go-between
        self.unwanted = False  # it is to be killed
        self.failure: Message | None = None
        self.status_text = b""
        self.plan = plan
        self.kept: list[int] = []  # its standard streams, while it may have to be started anew

    def not_executed(self) -> Message:
        """Why not, by what its helper has told."""
        from lab.host.execution.told import errno_told  # few starts fail

        try:
            number = errno_told(self.status_text)
        except LaunchError as error:
            return {"step": "execve", "number": 0, "text": f"{self.program}: {error.message}"}
        return {"step": "execve", "number": number, "text": f"{self.program}: {os.strerror(number)}"}

    def let_go(self) -> None:
        """It will not be started anew. Idempotent."""
        while self.kept:
            os.close(self.kept.pop())

    def kill(self) -> None:
        """SIGKILL, to whoever sees its start through as well; as soon as it is there."""
        self.unwanted = True
        if not self.joining:
            self.started.kill()
        if self.companion is not None:
            self.companion.kill()


MOST_STATUS_BYTES = 8
"""More than an errno has digits. Of what comes after so many nothing is kept."""


def readable(descriptor: int) -> bool:
    """Whether a read(2) would not wait."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
