"""What those inside an instance can do to what lab gave them: a status to write to, a log that is theirs to write."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic import write_run

from lab.backends.support.output import Output
from lab.runtime.container import status_pair
from lab.runtime.spawner.child import Child


@pytest.mark.parametrize(
    ("told", "number"), [(b"2", 2), (b"13", 13), (b"abc", 0), (b"-1", 0), (b"9" * 8, 0), (b"", 0), (b"\xb2", 0)]
)
def test_an_errno_is_a_small_number_or_none(told: bytes, number: int) -> None:
    """Whatever it is, the process that starts all containers of a session goes on."""
    child = Child("one", SimpleNamespace(), SimpleNamespace(argv=["program"], init=True))  # type: ignore[arg-type]
    child.status_text = told
    failure = child.not_executed()
    assert failure["number"] == number
    assert str(failure["text"]).startswith("program: ")


def test_nobody_opens_a_status_once_more() -> None:
    ours, theirs = status_pair()
    try:
        with pytest.raises(OSError, match="No such device or address"):
            os.open(f"/proc/self/fd/{theirs}", os.O_WRONLY)
        assert not os.get_inheritable(ours)
        assert not os.get_inheritable(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_log_is_nobodys_program_in_the_end(tmp_path: Path) -> None:
    """Root of a container that is the host's root as well may chmod(2) what it writes to."""
    log = tmp_path / "stdout.log"
    output = Output(log)
    descriptor = os.dup(output.descriptor)
    output.handed_over()
    os.write(descriptor, b"\x7fELF")
    os.fchmod(descriptor, 0o4755)
    if os.geteuid() == 0:
        os.fchown(descriptor, 7, 7)
        os.setxattr(descriptor, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        os.fchmod(descriptor, 0o4755)
    os.close(descriptor)
    output.close()
    found = log.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.geteuid())
    assert "security.capability" not in os.listxattr(log)
    assert log.read_bytes() == b"\x7fELF"


def test_a_log_that_is_none_any_more_is_let_be(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch(mode=0o644)
    output = Output(tmp_path / "stdout.log")
    (tmp_path / "stdout.log").unlink()
    (tmp_path / "stdout.log").symlink_to(other)
    output.close()
    assert stat.S_IMODE(other.stat().st_mode) == 0o644


def test_others_do_not_reach_the_logs_of_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path, blocks=1)
    (run.path / "logs" / "b1-container").mkdir(parents=True, exist_ok=True)  # as an earlier lab made it
    for each in (run.path / "logs", run.path / "logs" / "b1-container"):
        each.chmod(0o755)
    folder = run.log_directory("b1-container")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)] == [0o700, 0o700]
