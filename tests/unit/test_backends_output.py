"""An application's output, in the log and besides."""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from host_state import wait_until
from taking import taken

from lab.backends.support.output import Output, Outputs
from lab.host.identity import private


def test_without_a_second_place_it_is_the_log_itself(tmp_path: Path) -> None:
    with Output(tmp_path / "stdout.log") as output:
        assert os.path.samestat(os.fstat(output.descriptor), (tmp_path / "stdout.log").stat())
        os.write(output.descriptor, b"one\n")
    assert (tmp_path / "stdout.log").read_bytes() == b"one\n"


def test_it_arrives_in_both_places(tmp_path: Path) -> None:
    text = os.urandom(1 << 18)
    with (tmp_path / "besides").open("wb") as besides:
        output = Output(tmp_path / "stdout.log", besides.fileno())
        with open(os.dup(output.descriptor), "wb") as application:  # noqa: PTH123
            output.handed_over()
            application.write(text)
        output.close()
        output.close()
    assert (tmp_path / "besides").read_bytes() == text
    assert (tmp_path / "stdout.log").read_bytes() == text


def test_a_reader_that_went_away_costs_the_log_nothing(tmp_path: Path) -> None:
    reader, besides = os.pipe()
    os.close(reader)
    with Output(tmp_path / "stdout.log", besides) as output:
        os.write(output.descriptor, b"one\n")
        os.write(output.descriptor, b"two\n")
    os.close(besides)
    assert (tmp_path / "stdout.log").read_bytes() == b"one\ntwo\n"


def descriptors() -> set[tuple[str, str]]:
    """What this process has open. What other tests have left to be collected may be closed at any time."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder itself, which is closed again
            found.add((path.name, str(path.readlink())))
    return found


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = descriptors()
    with (tmp_path / "besides").open("wb") as besides:
        for number in range(3):
            Output(tmp_path / str(number), besides.fileno()).close()
            Output(tmp_path / str(number)).close()
    assert descriptors() <= before


def test_what_its_reader_has_not_taken_is_waited_for_and_a_stray_that_holds_it_open_is_not(tmp_path: Path) -> None:
    reader, besides = os.pipe()
    fcntl.fcntl(besides, fcntl.F_SETPIPE_SZ, 4096)
    text = os.urandom(10_000)
    with Outputs() as outputs:
        output = outputs.open(tmp_path / "stdout.log", besides)
        with open(os.dup(output.descriptor), "wb") as stray:  # noqa: PTH123
            output.handed_over()
            stray.write(text)
            stray.flush()
            assert not outputs.drain(0.2)
            assert outputs.is_busy
            taken = os.read(reader, 100)
            assert not outputs.drain(0.2)
            while len(taken) < len(text):
                taken += os.read(reader, 4096)
            assert outputs.drain(60)
            assert not outputs.is_busy
            assert taken == text
    assert outputs.drain(0)
    for descriptor in (reader, besides):
        os.close(descriptor)


def test_one_that_is_the_log_itself_has_nothing_to_wait_for(tmp_path: Path) -> None:
    with Outputs() as outputs:
        outputs.open(tmp_path / "stdout.log")
        assert outputs.drain(0)


def test_one_that_has_ended_has_nothing_to_wait_for(tmp_path: Path) -> None:
    with (tmp_path / "besides").open("wb") as besides, Outputs() as outputs:
        output = outputs.open(tmp_path / "stdout.log", besides.fileno())
        output.handed_over()
        assert wait_until(lambda: output._source < 0, 60)
        assert outputs.drain(0)


def test_a_full_disk_holds_up_nobody_who_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "append_to", lambda _: os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC))
    with (tmp_path / "besides").open("wb") as besides, Outputs() as outputs:
        output = outputs.open(tmp_path / "stdout.log", besides.fileno())
        for text in (b"one\n", b"two\n"):
            os.write(output.descriptor, text)
            assert outputs.drain(60)
    assert (tmp_path / "besides").read_bytes() == b"one\ntwo\n"


def test_what_others_go_on_writing_is_not_waited_for(tmp_path: Path) -> None:
    """As `sh -c 'yes & exit 3'` where a process has no namespace of its own, at a terminal that is slower."""
    reader, besides = os.pipe()
    with Outputs() as outputs:
        output = outputs.open(tmp_path / "stdout.log", besides)
        with subprocess.Popen(["yes"], stdout=output.descriptor) as endless, taken(reader):
            output.handed_over()
            try:
                assert outputs.drain(60)
            finally:
                endless.kill()
                outputs.give_up()
    for descriptor in (reader, besides):
        os.close(descriptor)
