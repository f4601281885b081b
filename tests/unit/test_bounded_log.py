"""A strange system that never stops talking fills no disk, and what it said first and last is there to be read."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from host_state import wait_until

from lab.host.clock import Timeline
from lab.hypervisor.channels.bounded import HEAD_BYTES, LARGEST_BYTES, TAIL_BYTES, BoundedLog
from lab.hypervisor.channels.ports import Channels
from lab.metrics.ready.readiness import _Growing

NOTE = re.compile(rb"\n\[lab: ([\d,]+) bytes were left out here\]\n")
LINES = 400_000


def line(number: int) -> bytes:
    return b"already %06d\n" % number


def test_a_short_log_is_whole_and_a_long_one_keeps_both_ends(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log")
    log.write(b"x\n" * (LARGEST_BYTES // 2))
    assert (tmp_path / "log").stat().st_size == LARGEST_BYTES
    assert log.left_out_bytes == 0, "the control"
    log.write(b"y\n")
    log.close()
    head, left_out, tail = NOTE.split((tmp_path / "log").read_bytes())
    assert head == b"x\n" * (HEAD_BYTES // 2)
    assert tail.endswith(b"x\ny\n")
    assert len(head) + int(left_out.replace(b",", b"")) + len(tail) == LARGEST_BYTES + 2


def test_many_cuts_leave_one_note_that_counts_them_all_and_whole_lines(tmp_path: Path) -> None:
    path, largest = tmp_path / "log", 0
    log = BoundedLog(path)
    for begin in range(0, LINES, 1000):
        log.write(b"".join(line(number) for number in range(begin, begin + 1000)))
        largest = max(largest, path.stat().st_size)
    log.close()
    assert largest <= LARGEST_BYTES
    head, left_out, tail = NOTE.split(path.read_bytes())
    assert len(head) + int(left_out.replace(b",", b"")) + len(tail) == LINES * len(line(0))
    first, last = head.splitlines(keepends=True), tail.splitlines(keepends=True)
    assert first == [line(number) for number in range(len(first))]
    assert last == [line(number) for number in range(LINES - len(last), LINES)]
    assert len(tail) > TAIL_BYTES - len(line(0))


def test_what_has_no_lines_is_bounded_too(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log")
    for _ in range(5):
        log.write(b"\0" * TAIL_BYTES)
    log.close()
    assert (tmp_path / "log").stat().st_size <= LARGEST_BYTES


@pytest.mark.parametrize("pattern", [b"^ready$", b"last of all"])
def test_a_line_is_found_behind_what_was_left_out(tmp_path: Path, pattern: bytes) -> None:
    """… and no half of a line is taken for one."""
    path = tmp_path / "log"
    log, growing = BoundedLog(path), _Growing(path)

    def found() -> bool:
        """Whether it is in what there is; a reader takes it in some at a time."""
        return any(growing.matches(re.compile(pattern)) for _ in range(LARGEST_BYTES >> 17))

    for _ in range(8):
        log.write((b"al-ready\n".rjust(1 << 10, b"_")) * (TAIL_BYTES >> 11))
        assert not found()
    assert log.left_out_bytes
    log.write(b"ready\r\nlast of all\r\n")
    assert found()
    log.close()


def test_the_serial_port_of_a_strange_system_has_such_a_log(tmp_path: Path) -> None:
    """All of it goes to the output; the log is bounded."""
    (tmp_path / "m").mkdir()
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        channels = Channels(tmp_path / "m", Timeline(), tmp_path, stdout=stdout.fileno(), console_alone=True)
        with socket.socket(socket.AF_UNIX) as machine:
            machine.connect(str(tmp_path / "m/console"))
            for begin in range(0, LINES, 1000):
                machine.sendall(b"".join(line(number) for number in range(begin, begin + 1000)))
        assert wait_until(lambda: channels.ended, 250)
        channels.close()
    assert out.stat().st_size == LINES * len(line(0))
    assert (tmp_path / "console.log").stat().st_size <= LARGEST_BYTES
    assert (tmp_path / "console.log").read_bytes().endswith(line(LINES - 1))
