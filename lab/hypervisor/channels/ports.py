"""The host's ends of a machine's serial port and virtio ports: read everything, stamp marks on receipt.

lab listens and QEMU connects when it starts, so nothing is lost and nothing has to be waited for. One thread
per machine reads all of them; when QEMU is gone it sees the end of every one.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lab.host.clock import Timeline, now
from lab.host.execution.sink import Log, Sink
from lab.host.identity import private
from lab.hypervisor.channels.bounded import BoundedLog
from lab.hypervisor.domains.domain import CONSOLE, Port
from lab.model import Phase

VMM = "vmm"
READ_BYTES = 1 << 16
TAIL_BYTES = 8192
MARK_BYTES = 256
SILENT_SECONDS = 10.0
END_SECONDS = 10.0
MOST_ERRNO, MOST_BYTES = 4095, 1 << 62
INIT_LINE = b"lab: init"
OUTPUTS = (Port.OUTPUT, Port.ERRORS)
FAILED_LINE = re.compile(rb"^lab: failed: (.*?)\r?$", re.MULTILINE)


class Channels:
    """Listening sockets in a directory, and what came through them."""

    def __init__(
        self,
        directory: Path,
        timeline: Timeline,
        log_directory: Path,
        *,
        stdout: int | None = None,
        stderr: int | None = None,
        vmm: int | None = None,
        owner: int | None = None,
        kernel_sign: bytes | None = b"",
        restored: bool = False,
        console_alone: bool = False,
    ) -> None:
        """Listen. ``stdout`` and ``stderr`` get the application's output besides the logs; they stay the caller's.

        ``kernel_sign`` is what the console shows when the kernel starts: b"" if its very first byte is the kernel's,
        None if nothing tells. The console of a ``restored`` guest tells of no phase: its kernel started long ago.

        With ``console_alone`` there are no ports: the console is all that a system which is not lab's says, and it
        tells of no phase either, and its log keeps its beginning and its end (`bounded`).

        ``vmm`` is a pidfd of a VMM that runs already, and shall connect again; it is this object's from now on. Its
        user is ``owner``, who alone may connect besides root. (One that is yet to start is given the sockets then.)
        """
        self._directory = directory
        self._timeline = timeline
        self._kernel_sign = kernel_sign
        self._tells = not restored and not console_alone
        self._selector = selectors.DefaultSelector()
        self._changed = threading.Condition()
        self._open = 0
        self._vmm = vmm
        self._goes_on = restored or vmm is not None
        self._tail = bytearray()
        self._marks = bytearray()
        self.exit_code: int | None = None  # once all of the output is here
        self._told: tuple[int, dict[Port, int]] | None = None  # by the guest: that, and how much of each there is
        self._passed = dict.fromkeys(OUTPUTS, 0)
        self._latest = 0.0
        self.failed_errno: int | None = None
        self.ended = False
        self.connections: dict[str, socket.socket] = {}
        self._logs: list[Log] = []
        self._sinks: list[Sink] = []
        self._console_copy = self._sink(stdout) if console_alone else None
        self._console_log = self._log(log_directory / "console.log", bounded=console_alone)
        receivers: dict[str, Callable[[bytes, float], None]] = {CONSOLE: self._receive_console}
        if not console_alone:
            receivers |= {
                Port.MARKS.name.lower(): self._receive_marks,
                Port.OUTPUT.name.lower(): self._copier(Port.OUTPUT, log_directory / "stdout.log", stdout),
                Port.ERRORS.name.lower(): self._copier(Port.ERRORS, log_directory / "stderr.log", stderr),
            }
        for name in (CONSOLE, *(port.name.lower() for port in Port if not console_alone)):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            (directory / name).unlink(missing_ok=True)
            listener.bind(str(directory / name))
            if owner is not None:
                os.chown(directory / name, owner, owner)
            (directory / name).chmod(0o600)
            listener.listen(1)
            self._selector.register(listener, selectors.EVENT_READ, (name, receivers.get(name)))
        if vmm is not None:
            self._selector.register(vmm, selectors.EVENT_READ, (VMM, None))
        self._wake, waker = os.pipe()
        self._waker = waker
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._read_all, name=f"channels {directory.name}", daemon=True)
        self._thread.start()

    # What others ask

    def wait(self, condition: Callable[[], bool], timeout_seconds: float | None) -> bool:
        """Block until ``condition`` holds; it is looked at after every mark and when the machine has ended."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_seconds)

    def order(self, line: str) -> None:
        """Send the guest an order; see obey_orders in guest/lab.sh. Lost when the machine has ended."""
        with suppress(OSError, KeyError):
            self.connections[Port.ORDERS.name.lower()].sendall(line.encode() + b"\n")

    def connection(self, port: Port) -> socket.socket | None:
        """The connected socket of a port that nobody reads here."""
        return self.connections.get(port.name.lower())

    def console_tail(self) -> str:
        """The last lines of the guest's console."""
        with self._changed:
            text = bytes(self._tail).decode("utf-8", "replace")
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())

    def failure(self) -> str:
        """What lab's own scripts in the guest complained about, empty if they did not."""
        with self._changed:
            found = FAILED_LINE.search(bytes(self._tail))
        return found.group(1).decode("utf-8", "replace") if found else ""

    def give_up(self) -> None:
        """Pass nothing more on to a reader that does not take it; the logs get it all the same."""
        for sink in self._sinks:
            sink.give_up()

    def close(self) -> None:
        """Stop reading and remove the sockets. Idempotent."""
        if self._waker >= 0:
            self.give_up()
            os.close(self._waker)
            self._waker = -1
            self._thread.join(END_SECONDS)
            if not self._thread.is_alive():
                for sink in self._sinks:
                    sink.close()
        for path in self._directory.iterdir() if self._directory.exists() else ():
            if path.is_socket():
                path.unlink()

    # The reading thread

    def _read_all(self) -> None:
        running = True
        while running:
            for key, _ in self._selector.select(self._patience()):
                if key.data is None:
                    running = False
                elif key.fileobj == self._vmm:
                    self._selector.unregister(self._vmm)
                    if self._open == 0:  # else the sockets have more to tell before their end
                        self._end()
                elif key.data[0] in self.connections:
                    self._read(key.fileobj, *key.data)  # type: ignore[arg-type]
                else:
                    self._accept(key.fileobj, *key.data)  # type: ignore[arg-type]
            self._conclude()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        for connection in self.connections.values():
            connection.close()
        os.close(self._wake)
        if self._vmm is not None:
            os.close(self._vmm)
        self._selector.close()
        for log in self._logs:
            log.close()
        self._end()

    def _accept(self, listener: socket.socket, name: str, receive: Callable[[bytes, float], None] | None) -> None:
        connection, _ = listener.accept()
        self._selector.unregister(listener)
        listener.close()
        with self._changed:
            self.connections[name] = connection
            self._changed.notify_all()
        if receive is not None:
            self._open += 1
            self._selector.register(connection, selectors.EVENT_READ, (name, receive))

    def _read(self, connection: socket.socket, _name: str, receive: Callable[[bytes, float], None]) -> None:
        try:
            data = connection.recv(READ_BYTES)
        except OSError:
            data = b""
        at = now()
        if data:
            receive(data, at)
            return
        self._selector.unregister(connection)
        self._open -= 1
        if self._open == 0:
            self._end()

    def _patience(self) -> float | None:
        """How long to wait for what is missing of the output, in seconds."""
        missing = self._told is not None and self.exit_code is None
        return max(0.0, self._latest + SILENT_SECONDS - now()) if missing else None

    def _conclude(self) -> None:
        """Believe that the application has ended, once all that it wrote is here, and let the machine end.

        The mark that says so overtakes output that the queues of the guest's driver hold. Bytes that a lab which was
        killed had not read of its sockets are lost: so after ``SILENT_SECONDS`` of nothing there is no more.
        """
        if self._told is None or self.exit_code is not None:
            return
        code, written = self._told
        if all(self._passed[port] >= count for port, count in written.items()) or self._patience() == 0:
            with self._changed:
                self.exit_code = code
                self._changed.notify_all()
            self.order("end")

    def _end(self) -> None:
        with self._changed:
            if self._told is not None and self.exit_code is None:
                self.exit_code, _ = self._told
            self.ended = True
            self._changed.notify_all()

    def _receive_console(self, data: bytes, at: float) -> None:
        if self._tells:
            self._timeline.mark(Phase.ISOLATED, at)  # the byte may be here before libvirt has returned
        self._console_log.write(data)
        if self._console_copy is not None:
            self._console_copy.write(data)
        with self._changed:
            self._tail += data
            if self._tells:
                self._mark_boot(at)
            del self._tail[:-TAIL_BYTES]

    def _mark_boot(self, at: float) -> None:
        if self._kernel_sign is not None and self._kernel_sign in self._tail:
            self._timeline.mark(Phase.KERNEL, at)
        if INIT_LINE in self._tail:
            self._timeline.mark(Phase.INIT, at)

    def _receive_marks(self, data: bytes, at: float) -> None:
        self._marks += data
        *lines, rest = bytes(self._marks).split(b"\n")
        self._marks[:] = rest[-MARK_BYTES:]
        for line in lines:
            with suppress(ValueError):  # root in the guest may write to the port what it likes
                self._receive_mark(line.decode("ascii", "replace").split(), at)

    def _receive_mark(self, words: list[str], at: float) -> None:
        with self._changed:
            match words:
                case ["executed"]:
                    self._timeline.mark(Phase.EXECUTED, at)
                case ["woken"]:
                    self._timeline.mark(Phase.RESTORED, at)
                case ["failed", errno]:
                    self.failed_errno = _number(errno, 1, MOST_ERRNO)
                case ["exited", code, *written]:  # a guest that an older lab has saved counts nothing
                    counts = [_number(word, 0, MOST_BYTES) for word in written]
                    self._told = _number(code, 0, 255), dict(zip(OUTPUTS, counts, strict=False))
                    self._latest = at
            self._changed.notify_all()

    def _copier(self, port: Port, path: Path, descriptor: int | None) -> Callable[[bytes, float], None]:
        log, sink = self._log(path), self._sink(descriptor)
        if self._goes_on:
            self._passed[port] = path.stat().st_size  # when another lab had it, or before it was saved

        def copy(data: bytes, _at: float) -> None:
            log.write(data)
            if sink is not None:
                sink.write(data)
            self._passed[port] += len(data)
            self._latest = now()  # its reader may have taken its time

        return copy

    def _sink(self, descriptor: int | None) -> Sink | None:
        if descriptor is None:
            return None
        self._sinks.append(Sink(descriptor))
        return self._sinks[-1]

    def _log(self, path: Path, *, bounded: bool = False) -> Log:
        log = Log(path, BoundedLog(path) if bounded else os.fdopen(private.append_to(path), "ab", buffering=0))
        self._logs.append(log)
        return log


def _number(word: str, least: int, most: int) -> int:
    """Raises ValueError for what is no number of that range."""
    if not least <= (number := int(word)) <= most:
        raise ValueError(word)
    return number
