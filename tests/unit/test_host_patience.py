"""A limit is longer on an emulated host, which is asked about once the usual time has passed, and no sooner."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from lab.backends.support.programs import children, fetched
from lab.errors import LaunchError
from lab.host.survey import virtualisation
from lab.host.survey.patience import Deadline
from lab.host.survey.virtualisation import EMULATED_PATIENCE, Ground, Platform

USUAL = 0.1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Ground]:
    """What the host is, to be filled by a test; emptied when somebody asks."""
    answers: list[Ground] = []
    monkeypatch.setattr(
        virtualisation, "platform", lambda: Platform(ground=answers.pop(), by="none" if not answers else "")
    )
    return answers


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_elsewhere_the_usual_time_is_all(asked: list[Ground], pipe: tuple[int, int]) -> None:
    asked.append(Ground.HARDWARE)
    began, deadline = time.monotonic(), Deadline(USUAL)
    assert deadline.ready([pipe[0]]) == []
    assert USUAL <= time.monotonic() - began < USUAL * EMULATED_PATIENCE
    assert deadline.seconds == USUAL
    assert deadline.left() == 0


def test_what_comes_late_on_an_emulated_host_is_waited_for(asked: list[Ground], pipe: tuple[int, int]) -> None:
    asked.append(Ground.EMULATED)
    threading.Timer(2 * USUAL, os.write, (pipe[1], b"x")).start()
    deadline = Deadline(USUAL)
    assert deadline.ready([pipe[0]]) == [pipe[0]]
    assert asked == []
    assert deadline.seconds == USUAL * EMULATED_PATIENCE


def test_there_is_an_end_on_an_emulated_host_too(asked: list[Ground], pipe: tuple[int, int]) -> None:
    asked.append(Ground.EMULATED)
    began = time.monotonic()
    assert Deadline(USUAL).ready([pipe[0]]) == []
    assert time.monotonic() - began >= USUAL * EMULATED_PATIENCE


def test_nobody_asks_what_the_host_is_while_there_is_time(asked: list[Ground], pipe: tuple[int, int]) -> None:
    asked.append(Ground.EMULATED)
    os.write(pipe[1], b"x")
    deadline = Deadline(60.0)
    assert deadline.ready([pipe[0]]) == [pipe[0]]
    with subprocess.Popen(["true"]) as process:
        assert deadline.ended(process) == 0
    assert 0 < deadline.left() <= 60
    assert asked == [Ground.EMULATED]


@pytest.mark.parametrize(("ground", "succeeds"), [(Ground.VIRTUAL, False), (Ground.EMULATED, True)])
def test_a_runtime_and_a_program_get_the_longer_time(
    asked: list[Ground], monkeypatch: pytest.MonkeyPatch, ground: Ground, succeeds: bool
) -> None:
    seconds = 0.3
    slow = f"sleep {2 * seconds}; echo here; exit 3"
    asked.append(ground)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        pid = children.spawn(["/bin/sh", "-c", slow], [null] * 3)
    finally:
        os.close(null)
    if succeeds:
        assert children.wait_child(pid, seconds, "a runtime") == 3
    else:
        with pytest.raises(LaunchError, match=f"within {seconds:g} s"):
            children.wait_child(pid, seconds, "a runtime")
    asked.append(ground)
    monkeypatch.setattr(fetched, "ASKED_SECONDS", seconds)
    assert fetched.asked("sh", "-c", slow.replace("3", "0")) == ("here\n" if succeeds else "")
