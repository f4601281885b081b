"""What `Instance.begin` and an application's own terminal must do, whatever the boundary is made of."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lab.errors import LaunchError
from lab.instance import Execution, Instance
from lab.model import TerminalSize

SECONDS = 240.0  # emulated, on a host that does other things too
SIZE = TerminalSize(rows=33, columns=101)
MIB = 1 << 20


class Reader:
    """Both streams of a command, read in the background to their ends."""

    def __init__(self, opened: ExitStack) -> None:
        self.ends = [self._pipe(opened), self._pipe(opened)]

    def _pipe(self, opened: ExitStack) -> tuple[int, bytearray, threading.Thread]:
        read, write = os.pipe()
        data = bytearray()
        thread = threading.Thread(target=self._drain, args=(read, data))
        thread.start()
        return write, data, thread

    @staticmethod
    def _drain(read: int, data: bytearray) -> None:
        with os.fdopen(read, "rb", 0) as file:
            while chunk := file.read(1 << 16):
                data += chunk

    @property
    def descriptors(self) -> dict[str, int]:
        return {"stdout": self.ends[0][0], "stderr": self.ends[1][0]}

    def finish(self) -> tuple[bytes, bytes]:
        for write, _, thread in self.ends:
            os.close(write)
            thread.join(SECONDS)
        return bytes(self.ends[0][1]), bytes(self.ends[1][1])


def outcome(instance: Instance, *argv: str, stdin: int | None = None, **more: object) -> tuple[int, bytes, bytes]:
    """Exit code and both streams of a command that ends by itself."""
    with ExitStack() as opened:
        reader = Reader(opened)
        try:
            with instance.begin(argv, stdin=stdin, **reader.descriptors, **more) as execution:  # type: ignore[arg-type]
                code = execution.wait(SECONDS)
        finally:
            out, err = reader.finish()
    assert code is not None, "it did not end"
    return code, out, err


def check_streams(instance: Instance) -> None:
    """Both streams apart, the exit code, and as what it runs."""
    read, write = os.pipe()
    os.write(write, b"given\n")
    os.close(write)
    script = "cat; echo $GREETING $ODD; id -u; pwd; echo to stderr >&2; exit 3"
    code, out, err = outcome(
        instance, "sh", "-c", script, stdin=read, environment={"ODD": 'a "b" $c'}, directory="/srv", user="alice"
    )
    os.close(read)
    assert (code, out, err) == (3, b'given\ngood day a "b" $c\n1000\n/srv\n', b"to stderr\n")
    assert outcome(instance, "sh", "-c", "id -u; cat; kill -TERM $$") == (143, b"0\n", b"")
    assert outcome(instance, "sh", "-c", "sleep 100 & echo left") == (0, b"left\n", b"")


def check_errors(instance: Instance) -> None:
    """What can't be executed says so, with the exit codes of a shell."""
    for program, code in (("/absent", 127), ("/etc/passwd", 126)):
        with pytest.raises(LaunchError) as caught:
            outcome(instance, program)
        assert caught.value.exit_code == code


def check_much(instance: Instance, mebibytes: int = 20) -> None:
    """So much data through it, both ways at once, bit for bit."""
    data = os.urandom(MIB) * mebibytes
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    code, out, err = outcome(instance, "cat", stdin=read)
    feeder.join()
    os.close(read)
    assert (code, err, len(out)) == (0, b"", len(data))
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def check_end(instance: Instance) -> None:
    """Signals reach it, and closing kills it, with what it started in its terminal."""
    read, write = os.pipe()
    with os.fdopen(read, "rb", 0) as output:
        script = "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
        with instance.begin(["sh", "-c", script], stdin=None, stdout=write, stderr=write) as execution:
            assert output.readline() == b"ready\n"
            assert execution.wait(0.05) is None
            execution.signal(signal.SIGTERM)
            assert execution.wait(SECONDS) == 5
            assert output.readline() == b"told\n"
        execution = instance.begin(["sh", "-c", "echo $$; exec sleep 1000"], stdin=None, stdout=write, stderr=write)
        pid = output.readline().strip().decode()
        execution.close()
        execution.close()
        until_gone(instance, pid)
    os.close(write)


def until_gone(instance: Instance, pid: str) -> None:
    deadline = time.monotonic() + SECONDS
    while instance.execute(["sh", "-c", f"kill -0 {pid}"]).exit_code == 0:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


class Screen:
    """Somebody at a terminal: types, and reads until something is shown."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str) -> str:
        """All that was shown up to and with ``text``."""
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} never came, only {self.shown!r}"
            try:
                chunk = os.read(self.master, 4096)
            except OSError:
                chunk = b""
            assert chunk, f"the end came before {text!r}: {self.shown!r}"
            self.shown += chunk.decode("utf-8", "replace")
        before, _, self.shown = self.shown.partition(text)
        return before + text


@contextmanager
def at_a_terminal(instance: Instance, *argv: str, **more: object) -> Iterator[tuple[Execution, Screen]]:
    """``argv`` with a terminal inside, and two pipes to it."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with ExitStack() as opened:
        for descriptor in (to_read, to_write, from_read, from_write):
            opened.callback(os.close, descriptor)
        with instance.begin(
            argv,
            stdin=to_read,
            stdout=from_write,
            stderr=from_write,
            terminal=SIZE,
            **more,  # type: ignore[arg-type]
        ) as execution:
            screen = Screen(from_read)
            screen.type = lambda text: os.write(to_write, text.encode()) and None  # type: ignore[method-assign]
            yield execution, screen


def check_terminal(instance: Instance) -> None:
    """A controlling terminal of the instance's own: size, resize, ^C, job control, exit code."""
    with at_a_terminal(instance, "sh", user="alice") as (execution, screen):
        screen.type("tty; stty size; echo $TERM; id -u\n")
        assert "/dev/pts/" in screen.until("33 101\r\n")
        screen.until("xterm\r\n1000\r\n")
        screen.type("echo written >$(tty) && echo owner\n")
        screen.until("written\r\nowner\r\n")
        screen.type("""sh -c 'trap "stty size" WINCH; echo foreground; while :; do sleep 0.05; done'\n""")
        screen.until("foreground\r\n")  # what was typed may be echoed, but a semicolon follows it there
        execution.resize(TerminalSize(rows=12, columns=34))
        screen.until("12 34\r\n")
        screen.type("\x03")
        screen.type("echo interrupted $?\n")
        screen.until("interrupted 130\r\n")
        screen.type("exit 7\n")
        assert execution.wait(SECONDS) == 7


def check_hang_up(instance: Instance) -> None:
    """Who goes away takes what runs in the terminal along."""
    with at_a_terminal(instance, "sh", "-c", "sleep 1000 & echo $!; wait") as (_, screen):
        pid = screen.until("\r\n").strip()
    assert pid.isdigit()
    until_gone(instance, pid)


@contextmanager
def typed_to(launch: Callable[[int, int], Instance]) -> Iterator[tuple[Instance, Screen]]:
    """An application with a terminal, started by ``launch`` with a descriptor to read and one to write."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with ExitStack() as opened:
        for descriptor in (to_read, to_write, from_read, from_write):
            opened.callback(os.close, descriptor)
        with launch(to_read, from_write) as instance:
            screen = Screen(from_read)
            screen.type = lambda text: os.write(to_write, text.encode()) and None  # type: ignore[method-assign]
            yield instance, screen


def check_application(instance: Instance, screen: Screen) -> None:
    """An application, a shell here, whose own terminal it is; it ends with exit code 9."""
    screen.type("tty; stty size; echo $GREETING; exec 2>/dev/null; set +m\n")
    assert "/dev/pts/" in screen.until("33 101\r\n")
    screen.until("good day\r\n")
    screen.type("""sh -c 'trap "stty size" WINCH; echo foreground; while :; do sleep 0.05; done'\n""")
    screen.until("foreground\r\n")  # what was typed may be echoed, but a semicolon follows it there
    instance.resize(TerminalSize(rows=12, columns=34))
    screen.until("12 34\r\n")
    screen.type("\x03")
    screen.type("echo interrupted $?\n")
    screen.until("interrupted 130\r\n")
    screen.type("exit 9\n")
    assert instance.wait(SECONDS) == 9
