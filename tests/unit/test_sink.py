"""A reader of lab's output that takes its time, goes away, or is given up."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host.execution import sink as sinks
from lab.host.execution.sink import Log, Sink

MUCH = os.urandom(300_000)  # more than a pipe holds
SECONDS = 60.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        if descriptor >= 0:
            os.close(descriptor)


@pytest.mark.parametrize("blocking", [True, False])
def test_all_of_it_arrives_in_the_end(pipe: tuple[int, int], blocking: bool) -> None:
    reader, writer = pipe
    os.set_blocking(writer, blocking)
    with Sink(writer) as sink:
        writing = threading.Thread(target=sink.write, args=(MUCH,))
        writing.start()
        writing.join(0.2)
        assert writing.is_alive()
        taken = b""
        while len(taken) < len(MUCH):
            taken += os.read(reader, 4096)
        writing.join(SECONDS)
        assert not writing.is_alive()
    assert taken == MUCH


def test_a_reader_that_is_given_up_is_waited_for_no_longer_and_gets_nothing_more(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = Sink(writer)
    writing = threading.Thread(target=sink.write, args=(MUCH,))
    writing.start()
    writing.join(0.2)
    assert writing.is_alive()
    sink.give_up()
    writing.join(SECONDS)
    assert not writing.is_alive()
    os.set_blocking(reader, False)
    held = os.read(reader, len(MUCH))
    assert held == MUCH[: len(held)]
    sink.write(b"more")
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    sink.close()
    sink.close()
    sink.give_up()


def test_a_reader_that_went_away_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with Sink(writer) as sink:
        sink.write(b"one")
        sink.write(b"two")
    os.close(writer)


def test_a_file_is_a_reader_like_any_other(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, Sink(file.fileno()) as sink:
        sink.write(MUCH)
    assert (tmp_path / "file").read_bytes() == MUCH


def test_a_terminal_that_has_stopped_can_be_given_up() -> None:
    """It calls itself writable while it has room for one byte, and then waits in the kernel for the rest."""
    master, terminal = pty.openpty()
    sink = Sink(terminal)
    writing = threading.Thread(target=sink.write, args=(MUCH,), daemon=True)
    writing.start()
    writing.join(0.5)
    assert writing.is_alive()
    assert os.get_blocking(terminal), "others share it"
    sink.give_up()
    writing.join(SECONDS)
    assert not writing.is_alive()
    sink.close()
    for descriptor in (master, terminal):
        os.close(descriptor)


def test_what_a_full_disk_does_not_take_is_lost_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sinks.log, "warning", lambda text, *words: told.append(text % words))
    with Log(Path("stdout.log"), open("/dev/full", "wb", buffering=0)) as log:  # noqa: PTH123
        log.write(b"one")
        log.write(b"two")
    assert told == ["output is lost: stdout.log can't be written: No space left on device"]


def test_a_file_that_takes_a_part_gets_the_rest() -> None:
    class Slow:
        held = b""

        def write(self, data: bytes, /) -> int:
            self.held += data[:2]
            return min(2, len(data))

        def close(self) -> None:
            pass

    slow = Slow()
    Log(Path("stdout.log"), slow).write(b"hello")
    assert slow.held == b"hello"
