"""Commands in a guest, any number at once over one port, each with streams or a terminal of its own.

One thread per machine reads and writes the port and every session's pipes, none of which it ever waits for; the
descriptors that a user gave are copied to and from those pipes by threads of their own. Of each stream at most a
window is kept here, as of each at most a window is kept in the guest: see lab/inside/frames.h.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from errno import EIO, ENOENT

from lab.errors import LabError, LaunchError
from lab.host import waits
from lab.host.execution.contract import Execution
from lab.host.execution.relay import STOP_SECONDS, Lane
from lab.hypervisor.channels import frames
from lab.hypervisor.channels.frames import CHUNK_BYTES, CREDIT, NUMBER, SIZE, WINDOW_BYTES, Frame, FrameKind, Parser
from lab.model import TerminalSize

START_SECONDS = 60.0  # emulated and under load, a program takes a while to come from the disk
READ_BYTES = 1 << 16
MOST_OUTGOING_BYTES = 64 << 20  # dozens of commands that begin at once, with a megabyte of arguments each
NOT_FOUND, NOT_EXECUTABLE = 127, 126
LARGEST_ERRNO = 4095


class _Outlet:
    """What came from the guest for one stream, on its way to the pipe that leads to the user."""

    def __init__(self, sink: int, name: str, *, terminal: bool) -> None:
        read, self.pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.pipe, False)
        self.pending = bytearray()
        self.unreported = 0
        self.lane = Lane(read, sink, name=name, owned=[read], discard=terminal)

    def close(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1
        self.unreported += len(self.pending)
        self.pending.clear()


class GuestCommand(Execution):
    """One command, over a guest's port."""

    def __init__(self, sessions: GuestCommands, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.credit = WINDOW_BYTES
        self.started = False
        self.errno = 0
        self.exit_code: int | None = None
        self.lost = ""
        self.closed = False
        self.source = -1  # the pipe that leads here from the user's standard input
        self.outlets: list[_Outlet] = []
        self._commands = sessions
        self._input: Lane | None = None

    def connect(self, stdin: int | None, stdout: int, stderr: int | None) -> None:
        """Set up the pipes, and the threads that copy between them and the descriptors given; a terminal has no
        separate errors.
        """
        sinks = [stdout] if stderr is None else [stdout, stderr]
        name = f"lab-stdout-{self.number}"
        self.outlets = [_Outlet(sink, name, terminal=stderr is None) for sink in sinks]
        if stdin is not None:
            self.source, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.source, False)
            self._input = Lane(stdin, write, name=f"lab-stdin-{self.number}", owned=[write])

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Its exit code (128 + n after signal n) once all its output has been passed on; None when the time runs
        out first. Raises LabError when the machine has ended before it.
        """
        deadline = waits.deadline_of(timeout_seconds)
        if not self._commands.wait(lambda: self.over and not self.unsent, timeout_seconds):
            return None
        if self.exit_code is None:
            raise LabError(f"{self.name} did not come to its end: {self.lost or 'it was closed'}")
        drained = all(outlet.lane.drain(waits.left(deadline)) for outlet in self.outlets)
        return self.exit_code if drained else None

    @property
    def over(self) -> bool:
        return self.exit_code is not None or self.errno != 0 or bool(self.lost) or self.closed

    @property
    def unsent(self) -> bool:
        return any(outlet.pending for outlet in self.outlets)

    def signal(self, number: int) -> None:
        """Send it a signal. No error if it has ended."""
        self._commands.send(frames.frame(self.number, FrameKind.SIGNAL, NUMBER.pack(number)))

    def resize(self, size: TerminalSize) -> None:
        """Give its terminal another size."""
        self._commands.send(
            frames.frame(self.number, FrameKind.RESIZE, SIZE.pack(size.rows & 0xFFFF, size.columns & 0xFFFF))
        )

    def close(self) -> None:
        """Kill it if it still runs, and let go of the descriptors. Idempotent."""
        self._commands.forget(self)
        for lane in (self._input, *(outlet.lane for outlet in self.outlets)):
            if lane is not None:
                lane.stop()


class GuestCommands:
    """One connection to a guest's server. Thread-safe; `close` ends every session."""

    def __init__(self, connection: socket.socket, word: str, *, most_untaken_bytes: int | None = None) -> None:
        """``connection`` stays the caller's and is read here alone; the server is told ``word`` to greet with.

        With ``most_untaken_bytes`` the server acknowledges what it takes, and no more than that is on its way to it.
        """
        self._connection = connection
        self._parser = Parser(word.encode() + b"\n")
        self._changed = threading.Condition()
        self._commands: dict[int, GuestCommand] = {}
        self._next = 1
        self._outgoing = bytearray()
        self._most_untaken = most_untaken_bytes
        self._untaken = 0
        self._lost = ""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="lab-sessions", daemon=True)
        self._thread.start()

    @property
    def lives(self) -> bool:
        """Whether new sessions can be had."""
        return not self._lost

    def begin(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        user: str,
        directory: str,
        stdin: int | None,
        stdout: int,
        stderr: int,
        terminal: TerminalSize | None,
    ) -> GuestCommand:
        """Start a command and return once it is executed. Raises LaunchError with exit code 126 or 127 when it
        can't be, LabError when the guest does not answer.
        """
        with self._changed:
            session = GuestCommand(self, self._next, argv[0])
            self._next += 1
        opening = frames.opening(session.number, argv, environment, user=user, directory=directory, terminal=terminal)
        session.connect(stdin, stdout, None if terminal else stderr)
        with self._changed:
            self._commands[session.number] = session
            if self._lost:
                session.lost = self._lost
                self._drop(session)
        self.send(opening + (b"" if stdin is not None else frames.frame(session.number, FrameKind.END)))
        try:
            if not self.wait(lambda: session.started or session.over, START_SECONDS):
                raise LabError(f"the guest did not start {argv[0]} within {START_SECONDS:g} s")
            if session.errno:
                raise LaunchError(
                    f"{argv[0]} can't be executed: {os.strerror(session.errno)}",
                    exit_code=NOT_FOUND if session.errno == ENOENT else NOT_EXECUTABLE,
                    hint="does the image hold that program?",
                )
            if session.lost:
                raise LabError(f"{argv[0]} could not be started: {session.lost}")
        except BaseException:
            session.close()
            raise
        return session

    def wait(self, condition: Callable[[], bool], timeout_seconds: float | None) -> bool:
        """Block until ``condition`` holds, which is looked at after every change."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_seconds)

    def send(self, data: bytes) -> None:
        """Queue whole frames. Lost when the machine has ended."""
        with self._changed:
            if not self._lost:
                self._outgoing += data
        self._nudge()

    def forget(self, session: GuestCommand) -> None:
        """Kill what runs and let go of its pipes, which only the thread may close while it lives."""
        with self._changed:
            if session.exit_code is None and not session.errno and not session.closed:
                self._outgoing += frames.frame(session.number, FrameKind.CLOSE)
            session.closed = True
            self._changed.notify_all()
        self._nudge()
        self.wait(lambda: session.number not in self._commands, STOP_SECONDS)

    def close(self) -> None:
        """End every session. Idempotent."""
        self._lose("it was ended")
        self._nudge()
        self._thread.join(STOP_SECONDS)
        if self._wake >= 0 and not self._thread.is_alive():
            wake, self._wake = self._wake, -1
            os.close(wake)

    def _nudge(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # The thread

    def _run(self) -> None:
        self._connection.setblocking(False)
        try:
            while not self._lost:
                self._once()
        except LabError as error:
            self._lose(error.message)
        except OSError:  # the port's socket was reset, or has been closed
            self._lose("the machine has ended")
        with self._changed:
            for session in list(self._commands.values()):
                self._drop(session)
            self._changed.notify_all()

    def _lose(self, why: str) -> None:
        with self._changed:
            self._lost = self._lost or why
            for session in self._commands.values():
                session.lost = session.lost or self._lost
            self._changed.notify_all()

    def _once(self) -> None:
        """One round: wait until something can be done, and do it."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        sources: dict[int, GuestCommand] = {}
        sinks: dict[int, tuple[GuestCommand, int]] = {}
        with self._changed:
            ready = self._outgoing and self._parser.greeted and self._sendable > 0
            line = select.POLLIN | (select.POLLOUT if ready else 0)
            crowded = len(self._outgoing) > WINDOW_BYTES
            for session in self._commands.values():
                if session.source >= 0 and session.credit > 0 and session.started and not crowded:
                    sources[session.source] = session
                for stream, outlet in enumerate(session.outlets):
                    if outlet.pending:
                        sinks[outlet.pipe] = (session, stream)
        poll.register(self._connection, line)
        for source in sources:
            poll.register(source, select.POLLIN)
        for sink in sinks:
            poll.register(sink, select.POLLOUT)
        for descriptor, event in poll.poll():
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            elif descriptor in sources:
                self._read_source(sources[descriptor])
            elif descriptor in sinks:
                self._flush(*sinks[descriptor])
            elif event & select.POLLOUT:
                self._transmit()
            if descriptor == self._connection.fileno() and event & ~select.POLLOUT:
                self._receive()
        with self._changed:
            for session in [each for each in self._commands.values() if each.closed]:
                self._drop(session)
            self._changed.notify_all()

    def _transmit(self) -> None:
        with self._changed, suppress(BlockingIOError):
            sent = self._connection.send(self._outgoing[: self._sendable])
            self._untaken += sent
            del self._outgoing[:sent]

    @property
    def _sendable(self) -> int:
        """How many bytes may go out now, if there are so many."""
        return WINDOW_BYTES if self._most_untaken is None else self._most_untaken - self._untaken

    def _receive(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise LabError("the machine has ended")
        for frame in self._parser.feed(data):
            if frame.kind is FrameKind.TAKEN:
                self._untaken = max(0, self._untaken - frame.number)
                continue
            session = self._commands.get(frame.session)
            if session is not None:  # else it was closed while this was on its way
                self._hear(session, frame)

    def _hear(self, session: GuestCommand, frame: Frame) -> None:
        with self._changed:
            match frame.kind:
                case FrameKind.DATA | FrameKind.ERRORS:
                    self._take(session, 0 if frame.kind is FrameKind.DATA else 1, frame.payload)
                case FrameKind.CREDIT:
                    session.credit = min(WINDOW_BYTES, session.credit + frame.credit)
                case FrameKind.STARTED:
                    session.started = True
                case FrameKind.FAILED:
                    session.errno = min(frame.number, LARGEST_ERRNO) or EIO
                case FrameKind.ENDED:
                    session.exit_code = min(frame.number, 255)
            self._changed.notify_all()

    def _take(self, session: GuestCommand, stream: int, data: bytes) -> None:
        """Raises Malformed when the guest sends more than it was allowed to, or what it has no stream for."""
        if stream >= len(session.outlets):
            raise frames.Malformed("the guest sent errors of a terminal")
        outlet = session.outlets[stream]
        if outlet.pipe < 0:
            self._report(session, stream, len(data))
            return
        if len(outlet.pending) + outlet.unreported + len(data) > WINDOW_BYTES:
            raise frames.Malformed("the guest sent more than its window")
        outlet.pending += data
        self._flush(session, stream)

    def _flush(self, session: GuestCommand, stream: int) -> None:
        outlet = session.outlets[stream]
        with self._changed:
            try:
                while outlet.pending and outlet.pipe >= 0:
                    done = os.write(outlet.pipe, outlet.pending)
                    del outlet.pending[:done]
                    outlet.unreported += done
            except BlockingIOError:
                pass
            except OSError:  # nobody reads it any more, and the command shall know
                outlet.close()
                self._outgoing += frames.frame(session.number, FrameKind.SHUT, NUMBER.pack(stream))
            if outlet.unreported >= WINDOW_BYTES // 4 or not outlet.pending:
                self._report(session, stream, outlet.unreported)
                outlet.unreported = 0

    def _report(self, session: GuestCommand, stream: int, size: int) -> None:
        if size and not session.over:
            self._outgoing += frames.frame(session.number, FrameKind.CREDIT, CREDIT.pack(stream, size))
            if len(self._outgoing) > MOST_OUTGOING_BYTES:
                raise frames.Malformed("the guest sends, and takes nothing of what it is told")

    def _read_source(self, session: GuestCommand) -> None:
        try:
            data = os.read(session.source, min(CHUNK_BYTES, session.credit))
        except BlockingIOError:
            return
        with self._changed:
            session.credit -= len(data)
            self._outgoing += frames.frame(session.number, FrameKind.DATA if data else FrameKind.END, data)
            if not data:
                os.close(session.source)
                session.source = -1

    def _drop(self, session: GuestCommand) -> None:
        self._commands.pop(session.number, None)
        for outlet in session.outlets:
            outlet.close()
        if session.source >= 0:
            os.close(session.source)
            session.source = -1
