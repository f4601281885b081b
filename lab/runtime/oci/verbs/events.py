"""``events``: what a container uses, again and again, and that it ran out of memory when it does."""

from __future__ import annotations

import os
import select

from lab.errors import GroupGone, LabError, UsageError
from lab.runtime.oci import rootless, store
from lab.runtime.oci.options import FLAG, VALUE
from lab.shims import ExitStack, dumps, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.host.cgroup.group import Group
    from lab.runtime.oci.main import Call

OPTIONS = {"events": {"stats": FLAG, "interval": VALUE}}
INTERVAL = "5s"
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def events(call: Call) -> int:
    """``events ID``: a line of JSON every ``--interval``, until the container stops. ``--stats``: one, and done."""
    from lab.runtime.cgroup import stats

    interval = seconds(call.given.value("interval", INTERVAL))
    entry = call.entry()
    state = entry.read()
    if entry.status(state) == store.STOPPED:
        raise LabError("container not running")
    group = state.its_group()
    if rootless.without_group(state):
        raise LabError(
            "the container is in no control group, which would count for it", hint="docs/rootless.md, Limits"
        )
    if call.given.flag("stats"):
        return call.say_json(stats.event(group, state.id))
    with ExitStack() as opened:
        watch = Watch(group, state.pid, opened)
        with suppress(GroupGone):  # removed between its end and our look
            while (what := watch.wait(interval)) != Watch.ENDED:
                found = {"type": "oom", "id": state.id} if what == Watch.OOM else stats.event(group, state.id)
                call.say(dumps(found) + "\n")
        return 0


class Watch:
    """Waits for whatever comes first: the time, the container's end, the end of its memory."""

    TIME, ENDED, OOM = "time", "ended", "oom"

    def __init__(self, group: Group, pid: int, opened: ExitStack) -> None:
        self._poll = select.poll()
        self._end = os.pidfd_open(pid)
        opened.callback(os.close, self._end)
        self._poll.register(self._end, select.POLLIN)
        self._group = group
        self._kills = self._killed()
        self._memory = self._open_memory(opened)

    def wait(self, timeout_seconds: float) -> str:
        ready = {descriptor for descriptor, _ in self._poll.poll(timeout_seconds * 1000)}
        if self._memory in ready:
            self._acknowledge()
            killed = self._killed()
            if killed != self._kills or not self._group.host.is_v2:
                self._kills = killed
                return self.OOM
        return self.ENDED if self._end in ready else self.TIME

    def _open_memory(self, opened: ExitStack) -> int:
        """v1 counts on an eventfd (memory.rst, "OOM Control"); v2's file is readable anew (cgroup-v2.rst)."""
        if self._group.host.is_v2:
            memory = os.open(self._group.file("memory", "memory.events"), os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(memory, select.POLLPRI)
        elif self._group.has("memory", "memory.oom_control"):
            memory = os.eventfd(0, os.EFD_CLOEXEC)
            control = os.open(self._group.file("memory", "memory.oom_control"), os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, control)
            self._group.write("memory", "cgroup.event_control", f"{memory} {control}")
            self._poll.register(memory, select.POLLIN)
        else:
            return -1
        opened.callback(os.close, memory)
        return memory

    def _acknowledge(self) -> None:
        if self._group.host.is_v2:
            os.pread(self._memory, 4096, 0)
        else:
            os.eventfd_read(self._memory)

    def _killed(self) -> int | None:
        from lab.host.cgroup import accounting

        return accounting.oom_kills(self._group)


def seconds(word: str) -> float:
    """5s, 500ms, 1m, 1h. Raises UsageError."""
    digits = word.rstrip("mhs")
    try:
        found = float(digits) * SECONDS[word[len(digits) :]]
    except (ValueError, KeyError):
        raise UsageError(f"--interval {word}: not a duration", hint="5s, 500ms, 1m") from None
    if found <= 0:
        raise UsageError(f"--interval {word}: must be positive")
    return found
