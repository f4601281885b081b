"""What an instance makes the host's kernel do: its system calls and exits by name, and functions where permitted.

System calls are counted by the kernel's own trace events, of lab's threads and whatever they fork, so that a start is
counted from its first call; kernel threads make none. Functions are traced on the whole host and attributed
afterwards: what kernel threads and interrupts do on an instance's behalf belongs to no process of its own.
"""

from __future__ import annotations

import math
import os
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from lab.errors import LabError
from lab.host import procstat
from lab.host.tracing.recording import FUNCTION, KALLSYMS, Recording, Tracing
from lab.host.tracing.ringbuffer import COMMON, Run, runs
from lab.runtime.seccomp.compiler import native
from lab.studies.surface.lineage import CLONE_THREAD, Born, Executed, Lineage, Side, Step, find_becoming

CALL, EXIT = "raw_syscalls/sys_enter", "kvm/kvm_exit"
BORN, EXECUTED = "task/task_newtask", "sched/sched_process_exec"
PF_KTHREAD = 0x00200000
NO_EVENT = -1
FUNCTION_SECONDS = 60.0
"""For one window with functions, and once more for reading it. A second on hardware; a start in a nested machine took
464 s under emulation.
"""


class TooSlow(LabError):
    """Functions can't be traced here within `FUNCTION_SECONDS`; events can."""


@dataclass(slots=True)
class Traced:
    """A recording, read once: what happened, not yet whose work it was."""

    steps: list[Step] = field(default_factory=list)
    calls: list[tuple[int, int, int]] = field(default_factory=list)  # time, thread, number
    exits: list[tuple[int, int]] = field(default_factory=list)  # time, thread
    functions: dict[tuple[int, bool, int], list[int]] = field(default_factory=dict)
    """By thread, whether in an interrupt, and address: from when to when, as exactly as its runs are (`Run`)."""
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one window held, by whose work it was."""

    calls: Mapping[Side, Mapping[str, int]]
    exits: Mapping[Side, int]
    functions: Mapping[Side, frozenset[str]]
    lost: int
    seconds: float


def read(recording: Recording, most_seconds: float = math.inf) -> Traced:
    """Every page of it, in one pass. Raises TooSlow."""
    found, formats = Traced(lost=recording.lost), recording.formats
    kinds = {formats[name].id: name for name in formats}
    number = formats[CALL].fields["id"]
    function = formats[FUNCTION].id if FUNCTION in formats else NO_EVENT
    deadline = time.monotonic() + most_seconds
    for page in recording.pages():
        if time.monotonic() > deadline:
            raise TooSlow(f"reading what functions were entered took longer than {most_seconds:g} s")
        for each in runs(page, function):
            if isinstance(each, Run):
                _note(found.functions, each)
                continue
            at, entry = each
            event, _, _, thread = COMMON.unpack_from(entry)
            kind = kinds.get(event)
            if kind == CALL:
                found.calls.append((at, thread, number.number(entry)))
            elif kind == EXIT:
                found.exits.append((at, thread))
            elif kind in (BORN, EXECUTED):
                found.steps.append(_step(recording, kind, at, thread, entry))
    return found


def _note(functions: dict[tuple[int, bool, int], list[int]], run: Run) -> None:
    for addresses, interrupt in ((run.own, False), (run.interrupts, True)):
        for address in addresses:
            seen = functions.setdefault((run.thread, interrupt, address), [run.first, run.last])
            seen[0], seen[1] = min(seen[0], run.first), max(seen[1], run.last)


def _step(recording: Recording, kind: str, at: int, thread: int, entry: bytes) -> Step:
    fields = recording.formats[kind].fields
    if kind == BORN:
        is_thread = bool(fields["clone_flags"].number(entry) & CLONE_THREAD)
        return Born(time=at, parent=thread, child=fields["pid"].number(entry), is_thread=is_thread)
    former = fields["old_pid"].number(entry)
    return Executed(time=at, pid=fields["pid"].number(entry), former=former, program=fields["filename"].text(entry))


def attribute(
    traced: Traced, lineage: Lineage, kernel: Collection[int], symbols: Symbols, window: tuple[int, int]
) -> Counts:
    """Whose work everything within ``window`` was, in nanoseconds; ``kernel`` are the kernel's own threads."""
    begin, end = window
    names = {number: name for name, number in native().items()}
    calls: dict[Side, Counter[str]] = {}
    exits: Counter[Side] = Counter()
    functions: dict[Side, set[int]] = {}
    for at, thread, number in traced.calls:
        if begin <= at <= end:
            calls.setdefault(lineage.side(thread, at), Counter())[names.get(number, f"number {number}")] += 1
    for at, thread in traced.exits:
        if begin <= at <= end:
            exits[lineage.side(thread, at)] += 1
    for (thread, interrupt, address), (first, last) in traced.functions.items():
        for at in {max(first, begin), min(last, end)} if first <= end and last >= begin else ():
            side = Side.KERNEL if interrupt or thread in kernel else lineage.side(thread, at)
            functions.setdefault(side, set()).add(address)
    return Counts(
        calls={side: dict(counted) for side, counted in calls.items()},
        exits=dict(exits),
        functions={side: frozenset(map(symbols.name, found)) for side, found in functions.items()},
        lost=traced.lost,
        seconds=(end - begin) / 1e9,
    )


class Symbols:
    """The kernel's functions by address (/proc/kallsyms); those of other kinds of symbols are left out."""

    def __init__(self, lines: Iterator[str] | Sequence[str] = ()) -> None:
        found = sorted(
            (int(words[0], 16), words[2]) for line in lines if (words := line.split())[1] in ("t", "T", "w", "W")
        )
        self._addresses = [address for address, _ in found]
        self._names = [name for _, name in found]

    @classmethod
    def of_this_kernel(cls) -> Symbols:
        """All of the running kernel's, its modules' too."""
        with KALLSYMS.open(encoding="ascii") as lines:
            return cls(lines)

    def name(self, address: int) -> str:
        """The function that ``address`` lies in."""
        place = bisect_right(self._addresses, address) - 1
        return self._names[place] if place >= 0 else hex(address)


class Observer:
    """Opens windows on one session's trace, and says what happened in them."""

    def __init__(self, tracing: Tracing, scratch: Path, *, functions: bool = True) -> None:
        """``functions`` are traced if the host permits it; `why_no_functions` says why it does not."""
        self._tracing = tracing
        self._scratch = scratch
        self.why_no_functions = tracing.add_functions() if functions else "not asked for"
        self._symbols = Symbols() if self.why_no_functions else Symbols.of_this_kernel()
        self._function_seconds = math.inf if self.why_no_functions else FUNCTION_SECONDS
        self._events = [event for event in (CALL, BORN, EXECUTED, EXIT) if tracing.has(event)]
        self.counts_exits = EXIT in self._events

    def drop_functions(self, why: str) -> None:
        """Trace events alone from now on."""
        if not self.why_no_functions:
            self._tracing.drop_functions()
            self.why_no_functions, self._function_seconds, self._symbols = why, math.inf, Symbols()

    @contextmanager
    def window(self, threads: Collection[int]) -> Iterator[Window]:
        """Record while the body runs; the window's counts are asked for afterwards.

        ``threads`` are followed with all that come of them. Raises LabError when nothing can be recorded, TooSlow
        whatever the body raised when it took too long with functions.
        """
        opened, limit = Window(self._symbols, frozenset(threads)), self._function_seconds
        with TemporaryFile(dir=self._scratch) as spool:
            recording = None
            try:
                with self._tracing.record(self._events, threads, spool, function_seconds=limit) as recording:
                    opened.began = time.monotonic_ns()
                    yield opened
                    opened.ended = time.monotonic_ns()
            except OSError as error:
                raise LabError(f"the kernel's trace can't be recorded: {error.strerror or error}") from error
            except LabError as error:
                if recording is None or not recording.cut:
                    raise
                raise TooSlow(f"it was not done within {limit:g} s with functions traced: {error.message}") from error
            if recording.cut:
                raise TooSlow(f"it was not done within {limit:g} s with functions traced")
            opened.kernel = frozenset() if self.why_no_functions else kernel_threads()
            opened.traced = read(recording, limit)


class Window:
    """What was recorded between two moments."""

    def __init__(self, symbols: Symbols, threads: frozenset[int]) -> None:
        self._symbols = symbols
        self.threads = threads
        self.began = self.ended = 0
        self.kernel: frozenset[int] = frozenset()
        self.traced = Traced()

    def steady(self) -> Counts:
        """Its threads are an instance's."""
        lineage = Lineage(self.traced.steps, self.threads, None, Side.INSTANCE)
        return attribute(self.traced, lineage, self.kernel, self._symbols, (self.began, self.ended))

    def start(
        self, members: Collection[int], program: str, kernel: int | None, between: tuple[float, float]
    ) -> Counts:
        """Its threads are lab's; ``members`` are the processes of the instance that came of them.

        ``program`` is the application's argv[0], ``kernel`` the process that is or runs its own kernel, if it has
        one; ``between`` are seconds on lab's clock: request and ready.
        """
        becomes = find_becoming(self.traced.steps, self.threads, members, program, kernel)
        if becomes is None:
            raise LabError("the trace holds no execve(2) of the instance", hint="its events were lost: try again")
        lineage = Lineage(self.traced.steps, self.threads, becomes, Side.LAB)
        begin, end = (round(at * 1e9) for at in between)
        return attribute(self.traced, lineage, self.kernel, self._symbols, (begin, end))


def threads_of(pids: Collection[int]) -> frozenset[int]:
    """All threads of the processes that are still there."""
    found: set[int] = set()
    for pid in pids:
        with suppress(OSError):
            found.update(int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir())
    return frozenset(found)


def own_threads() -> frozenset[int]:
    """All threads of this process and of those that descend from it."""
    parents = {pid: int(fields[1]) for pid, fields in _stats()}
    found, before = {os.getpid()}, 0
    while len(found) > before:
        before = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return threads_of(found)


def kernel_threads() -> frozenset[int]:
    """The kernel's own, the idle one of each processor included."""
    return frozenset({0, *(pid for pid, fields in _stats() if int(fields[6]) & PF_KTHREAD)})


def _stats() -> Iterator[tuple[int, list[bytes]]]:
    """Every process with what /proc/PID/stat says after its name: state, parent, … (proc_pid_stat(5))."""
    for pid in filter(str.isdigit, (entry.name for entry in Path("/proc").iterdir())):
        with suppress(OSError):
            yield int(pid), procstat.fields(int(pid))
