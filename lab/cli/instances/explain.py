"""``lab run --explain``: each step of a start as it happens, with its manual page and how long it took."""

from __future__ import annotations

import sys
import textwrap
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TextIO

from lab.backends.libkrun.place import Start
from lab.backends.support.programs.ocicontainer import Made
from lab.backends.usermode import place
from lab.cli.instances.explanations import EXPLANATIONS, HELPER, number
from lab.host.clock import RUNNING, Remark, Taken
from lab.hypervisor.boot import Boot
from lab.instance import LaunchRequest
from lab.model import Kernel, Phase
from lab.runtime.plan import Step

WIDTH = 118
INDENT = 36  # where the names of steps begin
AFTERWARDS: dict[Kernel, dict[Phase, tuple[str, str]]] = {
    Kernel.HOST: {Phase.INIT: ("child", Step.EXECVE), Phase.EXECUTED: ("inside", HELPER)},
    Kernel.OWN: {
        Phase.KERNEL: ("guest", Boot.FIRMWARE),
        Phase.INIT: ("guest", Boot.KERNEL),
        Phase.EXECUTED: ("guest", Boot.USER_SPACE),
        Phase.RESTORED: ("guest", Boot.WAKE),
    },
    Kernel.USER_SPACE: {Phase.EXECUTED: ("inside", HELPER)},
    Kernel.USER_MODE: {
        Phase.KERNEL: ("guest", place.Boot.FIRST_LINE),
        Phase.INIT: ("guest", place.Boot.KERNEL),
        Phase.EXECUTED: ("guest", place.Boot.USER_SPACE),
    },
}
"""Steps that nobody can tell of from within: the host sees the phase that each ends with."""
BEGINS_AFTER: dict[Kernel, tuple[str, ...]] = {
    Kernel.HOST: (Step.SECCOMP,),
    Kernel.OWN: (Boot.LAUNCH, Start.LAUNCH),
    Kernel.USER_SPACE: (Made.CREATE,),
    Kernel.USER_MODE: (place.Boot.LAUNCH,),
}


def explained(request: LaunchRequest, kernel: Kernel) -> LaunchRequest:
    """The same request, whose start is printed to standard error."""
    return replace(request, listener=Explainer(sys.stderr, kernel))


class Explainer:
    """Hears of a start and prints it. Thread-safe; a reader that went away is no reason to fail."""

    def __init__(self, stream: TextIO, kernel: Kernel) -> None:
        self._stream = stream
        self._afterwards = AFTERWARDS[kernel]
        self._begins_after = BEGINS_AFTER[kernel]
        self._lock = threading.RLock()
        self._remarks: dict[str, Remark] = {}
        self._requested = 0.0
        self._known_to: float | None = None  # until when what happens within has been told
        self._waiting: list[tuple[Phase, float]] = []

    def remark(self, remarks: Mapping[str, Remark]) -> None:
        with self._lock:
            self._remarks.update(remarks)

    def taken(self, taken: Taken) -> None:
        with self._lock:
            self._print_step(taken)
            if taken.step in self._begins_after:
                self._known_to = taken.ended
                for phase, at in self._waiting:
                    self.marked(phase, at)

    def marked(self, phase: Phase, at: float) -> None:
        """A phase may be seen before the step that led to it has returned: then it waits for that."""
        with self._lock:
            if phase is Phase.REQUESTED:
                self._begin(at)
            elif phase in self._afterwards and self._known_to is None:
                self._waiting.append((phase, at))
            elif phase in self._afterwards:
                side, step = self._afterwards[phase]
                assert self._known_to is not None
                self._print_step(Taken(side=side, step=step, began=min(self._known_to, at), ended=at))
                self._known_to = at
            if phase in RUNNING:
                self._end(at)

    def _begin(self, at: float) -> None:
        self._requested = at
        self._say(f"{'at ms':>9} {'took ms':>9}  {'where':<8}  {'#':>3}  {'step':<29} {'see':<19} by")

    def _end(self, at: float) -> None:
        self._say(f"{self._since(at)}{'':12}the application runs; now it is its own")

    def _print_step(self, taken: Taken) -> None:
        explained = EXPLANATIONS[taken.step]
        remark = self._remarks.get(taken.step, Remark(""))
        page = remark.page or explained.page
        calls = "" if remark.instead else explained.calls
        self._say(
            f"{self._since(taken.began)} {_milliseconds(taken.ended - taken.began)}  {taken.side:<8}  "
            f"{number(taken.step) or '':>3}  {taken.step:<29} {page:<19} {calls}"
        )
        if remark.instead:
            self._explain(remark.text)
        else:
            self._explain(explained.what)
            self._explain(f"here: {remark.text}" if remark.text else "")
            self._explain(explained.reason)
        for part in taken.parts:
            self._say(f"{'':9} {_milliseconds(part.ended - part.began)}  {'':13}  {part.text}")

    def _explain(self, text: str) -> None:
        for line in textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False):
            self._say(f"{'':{INDENT}}{line}")

    def _since(self, at: float) -> str:
        return _milliseconds(at - self._requested)

    def _say(self, line: str) -> None:
        try:
            print(line.rstrip(), file=self._stream, flush=True)
        except (OSError, ValueError):
            pass


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:9.3f}"
