"""A reader of lab's output that takes its time, goes away, or is given up."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host.execution.sink import Sink

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
