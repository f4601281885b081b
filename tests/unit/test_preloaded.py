"""A command that is forked from a process that has imported lab is told and tells the same as one of its own."""

from __future__ import annotations

import errno
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from classes import SAMPLE
from host_state import wait_until
from preloaded import LAB, run


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        (["frob"], 2),
        (["report", "absent"], 1),
        (["results", "ls", "--results", str(SAMPLE.parent)], 0),
        (["scenario", "ls", "--json"], 0),
    ],
)
def test_exit_code_and_output_are_those_of_a_process_of_its_own(words: list[str], code: int) -> None:
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 250, "check": False}
    alone = subprocess.run([*LAB, *words], stdin=subprocess.DEVNULL, **options)
    forked = run([*LAB, *words], **options)
    assert (forked.returncode, forked.stdout, forked.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert forked.returncode == code


def test_environment_and_directory_are_those_given(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "linked").symlink_to(SAMPLE)
    words = [*LAB, "results", "ls", "--json"]
    assert "linked" in run(words, cwd=tmp_path, text=True, check=True).stdout
    assert "linked" not in run(words, cwd=tmp_path / "results", text=True).stdout
    told = run([*LAB, "image", "pull", "absent"], env=os.environ | {"LAB_CA": "/absent/ca"}, text=True)
    assert (told.returncode, "/absent/ca" in told.stderr) == (2, True)


def test_several_at_once_each_hear_their_own() -> None:
    words = [["--version"], ["frob"]] * 4
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda each: run([*LAB, *each], text=True), words))
    assert [each.returncode for each in done] == [0, 2] * 4
    assert all(each.stdout.startswith("lab ") for each in done[::2])


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.toml")  # which nobody writes to
    with pytest.raises(subprocess.TimeoutExpired):
        run([*LAB, "watch", tmp_path / "plan.toml", "--once"], timeout=1)
    assert wait_until(lambda: not is_read(tmp_path / "plan.toml"))
    assert run([*LAB, "--version"]).returncode == 0


def is_read(fifo: Path) -> bool:
    """Whether somebody has it open, or waits for that (fifo(7))."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True


def test_what_failed_can_be_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run([*LAB, "frob"], text=True, check=True)
    assert "frob" in caught.value.stderr
