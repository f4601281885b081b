"""The kernel's tracing, in an instance of lab's own (Documentation/trace/ftrace.rst, "Instances").

What is switched on is switched on in that instance alone, beside the host's own tracing. Should this process be
killed, its descriptor of ``free_buffer`` closes, at which the kernel stops the trace and frees its buffers; the
directory that is left is the ledger's to remove.
"""

from __future__ import annotations

import math
import os
import select
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from lab.errors import LabError
from lab.host.closing import Closing
from lab.host.kernel.tracefs import open_root, remove
from lab.host.session.ledger import Resource, ResourceKind, Session
from lab.host.tracing.ringbuffer import Format, page_size, read_format

FUNCTION = "ftrace/function"
KALLSYMS = Path("/proc/kallsyms")
BUFFER_KIB = 24 << 10  # of a processor: a busy host may keep the reader waiting
FUNCTIONS_BUFFER_KIB = 48 << 10
READ_AT_PERCENT = "10"  # of a buffer
MOST_BYTES = 2 << 30
"""Of a recording. What comes later is lost, and counted as that."""
LOST = ("overrun", "commit overrun", "dropped events")
SETTINGS = {
    "options/disable_on_free": "1",
    "options/event-fork": "1",  # who is traced, its children and threads are
    "options/overwrite": "0",  # when a buffer is full, what is new is lost, not what is known already
    "trace_clock": "mono",  # CLOCK_MONOTONIC, lab's one clock
    "tracing_on": "0",
}


@dataclass(slots=True, kw_only=True)
class Recording:
    """What was traced: whole pages, each processor's in the order they were filled. Complete when `record` ends."""

    spool: BinaryIO
    page_bytes: int
    formats: dict[str, Format]
    lost: int = 0  # entries that found no place in a buffer, or in the spool
    cut: bool = False  # stopped before its time: see `Tracing.record`

    def pages(self) -> Iterator[bytes]:
        """Every page. Those of different processors come in no order of time."""
        self.spool.seek(0)
        while page := self.spool.read(self.page_bytes):
            yield page


class Tracing(Closing):
    """One instance of the kernel's tracing, ``lab-SESSION``. A context manager that removes it."""

    def __init__(self, root: int, name: str) -> None:
        self.name = name
        self._root = root
        self._functions = False
        self._stack = ExitStack()

    @classmethod
    def make(cls, session: Session) -> Self:
        """Make it, once it is in the session's ledger. Raises LabError where this host does not permit it."""
        with ExitStack() as undo:
            made = cls(open_root(), f"lab-{session.id}")
            undo.callback(os.close, made._root)
            session.record(Resource(kind=ResourceKind.TRACE, name=made.name))
            try:
                os.mkdir(f"instances/{made.name}", dir_fd=made._root)
                undo.callback(remove, made.name)
                undo.callback(os.close, os.open(made._path("free_buffer"), os.O_WRONLY | os.O_CLOEXEC))
                for file, text in SETTINGS.items():
                    made.write(file, text)
            except OSError as error:
                raise LabError(f"this host permits no trace of lab's own: {error.strerror}") from error
            made._stack = undo.pop_all()
        return made

    def add_functions(self) -> str:
        """Trace each function of the kernel that is entered, too, by whomever; why that can't be, "" when it can.

        Switching patches every function, which takes a while, and is refused while somebody reads the trace.
        """
        if "function" not in self.read("available_tracers").split():
            return "this kernel has no function tracer (CONFIG_FUNCTION_TRACER)"
        try:
            self.write("current_tracer", "function")
        except OSError as error:
            return f"this kernel has a function tracer and refuses to switch it on ({error.strerror})"
        with KALLSYMS.open(encoding="ascii") as symbols:
            if not any(line[:16].strip("0") for line in symbols):
                self.write("current_tracer", "nop")
                return "this kernel hides the addresses of its functions (sysctl kernel.kptr_restrict)"
        self._functions = True
        return ""

    def drop_functions(self) -> None:
        """Trace events alone from now on. Not while something is recorded."""
        self.write("current_tracer", "nop")
        self._functions = False

    def has(self, event: str) -> bool:
        """Whether this kernel knows the event ``system/name``."""
        return Path(self._path(f"events/{event}")).exists()

    @contextmanager
    def record(
        self, events: Sequence[str], pids: Collection[int], spool: BinaryIO, *, function_seconds: float = math.inf
    ) -> Iterator[Recording]:
        """Record while the body runs: ``events`` of the threads ``pids``, and of all that come of them.

        The thread that reads the trace is left out, of functions too. The ``spool`` is written from its beginning.
        With functions all of it stops after ``function_seconds``, and the recording is `cut`: they slow the whole
        host down. Raises LabError.
        """
        if not pids:
            raise LabError("there is nobody to trace: all processes have ended")
        names = [*events, FUNCTION] if self._functions else events
        recording = Recording(
            spool=spool,
            page_bytes=page_size(self._shared("events/header_page")),
            formats={name: read_format(self._shared(f"events/{name}/format")) for name in names},
        )
        self.write("buffer_size_kb", str(FUNCTIONS_BUFFER_KIB if self._functions else BUFFER_KIB))
        with suppress(OSError):  # older kernels wake a reader at any event
            self.write("buffer_percent", READ_AT_PERCENT)
        self.write("trace", "")
        lost_before = self._lost()
        with ExitStack() as undo:
            reader = undo.enter_context(_Reader([cpu / "trace_pipe_raw" for cpu in self._processors()], recording))
            undo.callback(self.write, "set_event_pid", "")
            self.write("set_event_pid", " ".join(str(pid) for pid in sorted(set(pids) - {reader.thread})))
            for event in events:
                undo.callback(self.write, f"events/{event}/enable", "0")
                self.write(f"events/{event}/enable", "1")
            if self._functions:
                undo.callback(self.write, "set_ftrace_notrace_pid", "")
                self.write("set_ftrace_notrace_pid", str(reader.thread))
            undo.callback(self.write, "tracing_on", "0")
            self.write("tracing_on", "1")
            if self._functions and function_seconds < math.inf:
                timer = threading.Timer(function_seconds, self._cut, [recording])
                timer.start()
                undo.callback(timer.join)
                undo.callback(timer.cancel)
            yield recording
        recording.lost += self._lost() - lost_before

    def _cut(self, recording: Recording) -> None:
        recording.cut = True
        with suppress(OSError):  # its end stops it anyway
            self.write("tracing_on", "0")

    def write(self, file: str, text: str) -> None:
        """Write a file of the instance; an empty text empties it. Raises OSError."""
        with Path(self._path(file)).open("w", encoding="ascii") as opened:
            opened.write(text)

    def read(self, file: str) -> str:
        """Read a file of the instance. Raises OSError."""
        return Path(self._path(file)).read_text(encoding="ascii", errors="replace")

    def _path(self, file: str) -> str:
        return f"/proc/self/fd/{self._root}/instances/{self.name}/{file}"

    def _shared(self, file: str) -> str:
        return Path(f"/proc/self/fd/{self._root}/{file}").read_text(encoding="ascii")

    def _processors(self) -> list[Path]:
        return sorted(Path(self._path("per_cpu")).iterdir())

    def _lost(self) -> int:
        """Entries lost so far, from per_cpu/cpuN/stats."""
        total = 0
        for cpu in self._processors():
            for line in (cpu / "stats").read_text(encoding="ascii").splitlines():
                what, _, count = line.partition(": ")
                total += int(count) if what in LOST else 0
        return total

    def close(self) -> None:
        """Stop, and remove it. Idempotent."""
        self._stack.close()


class _Reader:
    """A thread that takes pages out of the buffers as they fill, so that little is lost under load."""

    def __init__(self, pipes: Sequence[Path], recording: Recording) -> None:
        self.thread = 0
        self._recording = recording
        self._pipes = [os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) for pipe in pipes]
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._written = 0
        self._error: OSError | None = None
        self._ready = threading.Event()
        self._runner = threading.Thread(target=self._run, name="lab-trace")

    def _run(self) -> None:
        self.thread = threading.get_native_id()
        self._ready.set()
        poll = select.poll()
        for descriptor in (*self._pipes, self._stop):
            poll.register(descriptor, select.POLLIN)
        try:
            while self._stop not in (descriptor for descriptor, _ in poll.poll()):
                self._drain()
            self._drain()
        except OSError as error:
            self._error = error

    def _drain(self) -> None:
        size = self._recording.page_bytes
        for pipe in self._pipes:
            with suppress(BlockingIOError):
                while page := os.read(pipe, size):
                    self._keep(page)

    def _keep(self, page: bytes) -> None:
        if self._written >= MOST_BYTES:
            self._recording.lost += 1  # at the least: a page full of them
            return
        self._recording.spool.write(page.ljust(self._recording.page_bytes, b"\0"))
        self._written += self._recording.page_bytes

    def __enter__(self) -> Self:
        self._runner.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._stop, 1)
        self._runner.join()
        for descriptor in (*self._pipes, self._stop):
            os.close(descriptor)
        if self._error is not None and kind is None:
            raise LabError("the kernel's trace can't be kept", detail=str(self._error))
