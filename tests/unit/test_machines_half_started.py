"""A machine whose start was cut off can be taken down: nothing of it stays, and nothing else is touched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host_state import wait_until
from machines import by_hand, machine
from machines.machine import CONSOLE, STATE, Machine


@pytest.fixture
def stand_in() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """A process whose command line is that of the QEMU of a folder, as far as it tells whose it is."""
    started = []

    def start(folder: Path) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", "import time; time.sleep(600)", "-serial", f"file:{folder / CONSOLE}"]
        started.append(subprocess.Popen(argv))
        words = Path(f"/proc/{started[-1].pid}/cmdline")  # which execve(2) gives after it closed Popen's pipe
        assert wait_until(lambda: str(folder) in words.read_text())
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()


@pytest.mark.parametrize("state", [None, "", '{"pid": 4194305, "port": 1}', '{"port": 1}', "[]"])
def test_whatever_is_there_of_its_folder_is_removed(tmp_path: Path, state: str | None) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    if state is not None:
        (folder / STATE).write_text(state)
    assert not Machine(folder).is_running
    Machine(folder).stop()
    assert not folder.exists()


def test_a_qemu_that_nobody_has_noted_yet_is_ended_and_no_other(
    tmp_path: Path, stand_in: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    folder, another = tmp_path / "m", tmp_path / "m2"
    folder.mkdir()
    of_it, of_another = stand_in(folder), stand_in(another)
    Machine(folder).stop()
    assert of_it.poll() is not None  # what it ended with, stop has found out
    assert of_another.poll() is None


def test_one_command_starts_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_MACHINES", str(tmp_path))
    started: list[Path] = []
    monkeypatch.setattr(machine, "start", lambda _root, folder, **_: started.append(folder))
    monkeypatch.setattr(sys, "argv", ["ordinary", "up", "--fresh", "--name", "half"])
    monkeypatch.setattr(by_hand.os, "geteuid", lambda: 0)
    assert by_hand.main() == 0
    started[0].mkdir()
    (started[0] / STATE).write_text("")
    assert by_hand.main() == 0
    assert len(started) == 2
    assert not started[0].exists()
