"""What a command writes is read until it has ended, and no more than lab can hold."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lab.errors import LabError
from lab.runtime.launcher.handle import collect

SECONDS = 60.0


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _begin(opened: ExitStack, script: str) -> tuple[list[int], int]:
    """A shell with two pipes: their read ends, and its pidfd."""
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    process = subprocess.Popen(["sh", "-c", script], stdout=out_end, stderr=err_end, start_new_session=True)
    opened.callback(process.wait)
    opened.callback(os.killpg, process.pid, signal.SIGKILL)
    pidfd = os.pidfd_open(process.pid)
    for descriptor in (out_end, err_end):
        os.close(descriptor)
    for descriptor in (out, err, pidfd):
        opened.callback(os.close, descriptor)
    return [out, err], pidfd


def test_both_streams_to_the_end(opened: ExitStack) -> None:
    pipes, pidfd = _begin(opened, "echo err >&2; head -c 1000000 /dev/zero; printf last; sleep 1000 & exit 0")
    out, err = collect(pipes, pidfd, SECONDS) or []
    assert (len(out), out[-4:], err) == (1000004, b"last", b"err\n")


def test_a_command_that_does_not_end(opened: ExitStack) -> None:
    assert collect(*_begin(opened, "echo; sleep 1000"), 0.2) is None


def test_a_command_that_writes_too_much_is_not_read_further(opened: ExitStack) -> None:
    pipes, pidfd = _begin(opened, "exec cat /dev/zero")
    with pytest.raises(LabError, match="cat in a container wrote more than 2 MiB"):
        collect(pipes, pidfd, SECONDS, what="cat in a container", most_bytes=2 << 20)


def test_what_others_write_after_its_end_is_not_waited_for(opened: ExitStack) -> None:
    """They write for as long as they are read, and faster than that."""
    pipes, pidfd = _begin(opened, "for i in 1 2 3 4; do cat /dev/zero & done; sleep 0.1; exit 0")
    out, _ = collect(pipes, pidfd, SECONDS, most_bytes=1 << 40) or []
    assert len(os.read(pipes[0], 1 << 16)) > 0, "they do not write any more"
    assert set(out) == {0}


def test_a_pipe_that_somebody_inside_empties(opened: ExitStack) -> None:
    """Its write end leads to an end to read from, through /proc: a read that finds nothing does not wait."""
    pipes, pidfd = _begin(opened, "cat /proc/self/fd/1 >/dev/null & while :; do echo; done")
    timer = threading.Timer(3.0, signal.pidfd_send_signal, (pidfd, signal.SIGKILL))
    timer.start()
    opened.callback(timer.join)
    began = time.monotonic()
    assert collect(pipes, pidfd, 1.0) is None
    assert time.monotonic() - began < SECONDS / 2
