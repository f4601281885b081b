"""Copying between descriptors: all of it, until the end, now, or as far as it is there."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from taking import taken

from lab.host.execution.relay import Lane

SECONDS = 120.0


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """A pipe to copy from and one to copy to: write, source, sink, read."""
    (source, write), (read, sink) = os.pipe(), os.pipe()
    yield write, source, sink, read
    for descriptor in (write, source, sink, read):
        with suppress(OSError):
            os.close(descriptor)


def test_to_the_end_of_the_source(pipes: tuple[int, int, int, int]) -> None:
    write, source, sink, read = pipes
    data = os.urandom(1 << 20)
    lane = Lane(source, sink, name="lane", owned=[sink])
    feeder = threading.Thread(target=lambda: (os.write(write, data), os.close(write)))
    feeder.start()
    with os.fdopen(os.dup(read), "rb") as file:
        assert file.read() == data, "and its end, since the sink was the lane's to close"
    feeder.join()
    lane.stop()
    lane.stop()


def test_what_is_there_and_no_more(pipes: tuple[int, int, int, int]) -> None:
    write, source, sink, read = pipes
    os.write(write, b"there")
    lane = Lane(source, sink, name="lane")
    assert lane.drain(SECONDS)
    os.write(write, b"late")
    lane.stop()
    assert os.read(read, 100) == b"there"


def test_what_others_go_on_writing_is_not_there(pipes: tuple[int, int, int, int]) -> None:
    write, source, sink, read = pipes
    with subprocess.Popen(["yes"], stdout=write) as endless, taken(read):
        lane = Lane(source, sink, name="lane")
        try:
            assert lane.drain(SECONDS)
        finally:
            endless.kill()
            lane.stop()


def test_a_reader_that_is_stuck_does_not_keep_it_from_stopping(pipes: tuple[int, int, int, int]) -> None:
    write, source, sink, _ = pipes
    os.write(sink, bytes(fcntl.fcntl(sink, fcntl.F_GETPIPE_SZ)))
    os.write(write, b"no room for this")
    lane = Lane(source, sink, name="lane")
    assert not lane.drain(0.1)
    began = time.monotonic()
    lane.stop()
    assert time.monotonic() - began < SECONDS / 2


def test_a_reader_that_has_gone(pipes: tuple[int, int, int, int]) -> None:
    write, source, sink, read = pipes
    os.close(read)
    lane = Lane(source, sink, name="lane", owned=[source])
    os.write(write, b"for nobody")
    assert lane.drain(SECONDS)
    with pytest.raises(BrokenPipeError):
        os.write(write, b"the writer is told")
    lane.stop()


def test_a_reader_that_has_gone_from_a_terminal(pipes: tuple[int, int, int, int]) -> None:
    write, source, sink, read = pipes
    os.close(read)
    lane = Lane(source, sink, name="lane", discard=True)
    for _ in range(20):
        os.write(write, bytes(50_000))
    os.close(write)
    assert lane.drain(SECONDS)
    lane.stop()
