"""The one door for external commands: what one started ends with it, whoever ends it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from host_state import wait_until

from lab.commands.interrupt import Interrupted, Interruptible
from lab.errors import CommandError
from lab.host.command import run
from lab.model import Completed

PARENT = 'sleep 1000 & echo $! >"$0"; echo said >&2; wait'
OBEDIENT = 'trap "exit 3" TERM; : >"$0"; while :; do sleep 0.05; done'


def test_a_time_out_ends_what_the_command_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(CommandError) as told:
        run(["sh", "-c", PARENT, note], timeout_seconds=5)
    assert told.value.detail == "said"
    assert wait_until(lambda: not lives(int(note.read_text())), 60)


@pytest.mark.parametrize(("script", "seconds"), [("sleep 9", 0.2), ("exit 3", 9.0)])
def test_a_complaint_names_the_program_that_is_meant(script: str, seconds: float) -> None:
    with pytest.raises(CommandError) as told:
        run(["sh", "-c", script], timeout_seconds=seconds, called="mmdebstrap")
    assert told.value.message.split()[0] == "mmdebstrap"


def test_the_system_s_programs_are_found_whatever_the_caller_s_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """By lab, and by what it starts."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert run(["mke2fs", "-V"], timeout_seconds=60).exit_code == 0
    assert run(["sh", "-c", "exec mke2fs -V"], timeout_seconds=60).exit_code == 0


def test_an_interruption_ends_what_the_command_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def interrupts() -> None:
        if wait_until(lambda: note.exists() and note.read_text(), 60):
            os.kill(os.getpid(), signal.SIGINT)

    interrupt = threading.Thread(target=interrupts)
    with Interruptible():
        interrupt.start()
        with pytest.raises(Interrupted):
            run(["sh", "-c", PARENT, note], timeout_seconds=250)
    assert wait_until(lambda: not lives(int(note.read_text())), 60)


def test_a_signal_reaches_the_commands_of_other_threads(tmp_path: Path) -> None:
    note = tmp_path / "begun"
    ended: list[Completed] = []
    words = ["sh", "-c", OBEDIENT, str(note)]
    thread = threading.Thread(target=lambda: ended.append(run(words, timeout_seconds=250, check=False)))
    thread.start()
    assert wait_until(note.exists, 60)
    signalled = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    with Interruptible():
        signalled.start()
        with pytest.raises(Interrupted):
            threading.Event().wait(120)
    thread.join(60)
    assert [each.exit_code for each in ended] == [3]


def lives(pid: int) -> bool:
    """A zombie, whose end nobody has asked for yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
