"""A line of the log is found, however its bytes come; a stranger's lines cost no more than they may."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from lab.metrics.ready.readiness import LONGEST_LINE_BYTES, _Growing


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "console.log").touch()
    return tmp_path / "console.log"


def add(log: Path, said: bytes) -> None:
    with log.open("ab") as file:
        file.write(said)


@pytest.mark.parametrize("pattern", [b"^debian login: $", b"login", b"log.*: "])
def test_a_prompt_is_found_before_its_line_ends_and_in_pieces(log: Path, pattern: bytes) -> None:
    growing = _Growing(log)
    assert not growing.matches(re.compile(pattern))
    for part in (b"\x1b[2Jstarting\r\nlogout\r\ndebian ", b"log"):
        add(log, part)
        assert not growing.matches(re.compile(pattern))
    add(log, b"in: ")
    assert growing.matches(re.compile(pattern))


def test_a_line_ends_where_the_serial_port_says_so(log: Path) -> None:
    add(log, b"one\r\nready\r\nthree\r\n")
    assert _Growing(log).matches(re.compile(rb"^ready$"))
    assert not _Growing(log).matches(re.compile(rb"one.*three"))


def test_in_a_long_line_what_is_near_is_found(log: Path) -> None:
    growing = _Growing(log)
    add(log, b"x" * 10 * LONGEST_LINE_BYTES + b"rea")
    assert not growing.matches(re.compile(rb"ready"))
    add(log, b"dy" + b"x" * LONGEST_LINE_BYTES)
    assert growing.matches(re.compile(rb"ready"))


def test_a_line_without_an_end_holds_nobody_up(log: Path) -> None:
    """All of it at once would take a minute of this processor's, and every thread would wait."""
    add(log, b"a" * 300_000)
    growing = _Growing(log)
    before = time.thread_time()
    assert not growing.matches(re.compile(rb"a.*b"))
    assert time.thread_time() - before < 10
