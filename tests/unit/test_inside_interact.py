"""`inside interact`, which stands between a guest's application and what somebody types, with a FIFO as its port."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streams import Screen

from lab.hypervisor.channels.frames import SIZE, FrameKind, frame
from lab.inside import build

SECONDS = 120.0
Start = Callable[..., tuple[subprocess.Popen[bytes], Screen]]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The host's side of it. Both sides hold it open for reading and writing, so that neither ever ends."""
    os.mkfifo(tmp_path / "port")
    descriptor = os.open(tmp_path / "port", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def start(port: int, tmp_path: Path) -> Iterator[Start]:
    processes = []

    def begin(*words: str, options: tuple[str, ...] = ()) -> tuple[subprocess.Popen[bytes], Screen]:
        command = [build.program(), "interact", *options, tmp_path / "port", "--", *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout
        return process, Screen(process.stdout.fileno())

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_input_to_its_end(port: int, start: Start) -> None:
    process, _ = start("sh", "-c", "cat; exit 7")
    for part in (b"one\n", b"two\n" * 10_000):
        for at in range(0, len(part), 1000):
            os.write(port, frame(0, FrameKind.DATA, part[at : at + 1000]))
    os.write(port, frame(0, FrameKind.END))
    assert process.stdout
    assert process.stdout.read() == b"one\n" + b"two\n" * 10_000
    assert process.wait(SECONDS) == 7


def test_a_terminal(port: int, start: Start) -> None:
    words = (str(build.program()), "init", "--terminal", "33x101", "--", "sh")
    process, screen = start(*words, options=("--terminal",))
    os.write(port, frame(0, FrameKind.DATA, b"stty size\n"))
    screen.until("33 101\r\n")
    os.write(port, frame(0, FrameKind.RESIZE, SIZE.pack(12, 34)))
    os.write(port, frame(0, FrameKind.DATA, b"stty size; sh -c 'echo foreground; exec sleep 100'\n"))
    screen.until("12 34\r\nforeground\r\n")
    os.write(port, frame(0, FrameKind.DATA, b"\x03"))
    os.write(port, frame(0, FrameKind.DATA, b"echo interrupted $?\n"))
    screen.until("interrupted 130\r\n")
    os.write(port, frame(0, FrameKind.DATA, b"exit 9\n"))
    assert process.wait(SECONDS) == 9


def test_signals_are_passed_on(start: Start) -> None:
    process, screen = start("sh", "-c", "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    screen.until("ready\n")
    process.send_signal(signal.SIGTERM)
    screen.until("told\n")
    assert process.wait(SECONDS) == 5


def test_what_cannot_be_executed(start: Start) -> None:
    process, _ = start("/absent")
    assert process.wait(SECONDS) == 126


def test_its_own_end_ends_the_program(start: Start) -> None:
    process, screen = start("sh", "-c", "echo $$; exec sleep 1000")
    pid = int(screen.until("\n"))
    descriptor = os.pidfd_open(pid)
    process.kill()
    process.wait(SECONDS)
    assert select.select([descriptor], [], [], SECONDS)[0]
    os.close(descriptor)
