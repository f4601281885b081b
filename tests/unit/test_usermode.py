"""User-mode Linux without one: which kernel is used, what its guest is told, and how its lines are paced."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from bare import bare_host, program

from lab.backends.uml import Uml
from lab.backends.usermode import origin, place
from lab.backends.usermode.handover import Handover
from lab.errors import BackendUnavailable, UsageError
from lab.hypervisor.channels.frames import HEADER, NUMBER
from lab.hypervisor.channels.keyboard import Keyboard
from lab.images.debian import fetching
from lab.model import Process, TerminalSize

PROCESS = Process(argv=("sh", "-c", "true"), environment={"A": "b c"}, working_directory="/srv", uid=7, gid=8)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without any, whose apt knows no Debian; the folder that is its PATH. Its processor has no AMX."""
    has_flags(monkeypatch, "fpu sse2 avx512f")
    return bare_host(tmp_path, monkeypatch)


def has_flags(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    monkeypatch.setattr(origin, "processor_flags", lambda: set(flags.split()))


def test_the_hosts_own_comes_first_if_it_can_be_used(alone: Path, tmp_path: Path) -> None:
    kept = program(tmp_path / "home/programs/user-mode-linux-6.1/linux", "6.1.1")
    assert Uml.program().path == kept
    own = program(alone / "linux.uml", "6.12.3")
    assert Uml.program().path == own
    assert Uml.unfetched() == ""


@pytest.mark.parametrize("release", ["4.19.1", "5.6.19", "nonsense"])
def test_one_that_is_too_old_or_none_is_passed_over(alone: Path, tmp_path: Path, release: str) -> None:
    program(alone / "linux.uml", release)
    assert not Uml._check_program().ok
    with pytest.raises(UsageError):
        Uml.program()
    with pytest.raises(UsageError):
        Uml.settle({"binary": str(alone / "linux.uml")})
    kept = program(tmp_path / "home/programs/user-mode-linux-6.1/linux", "6.1.1")
    assert Uml.program().path == kept


@pytest.mark.parametrize(
    ("release", "is_used"), [("6.1.1", False), ("6.12.9", False), ("6.13.0", True), ("7.0", True)]
)
def test_a_processor_with_amx_needs_one_that_asks_for_its_registers_size(
    alone: Path, monkeypatch: pytest.MonkeyPatch, release: str, is_used: bool
) -> None:
    has_flags(monkeypatch, "fpu avx512f amx_bf16 amx_tile amx_int8")
    monkeypatch.setattr(fetching, "can_be_fetched", lambda suite: True)
    check = Uml._check_program()
    assert not check.ok, "what would be fetched is too old"
    assert "AMX" in check.found
    program(alone / "linux.uml", release)
    assert Uml._check_program().ok is is_used
    if not is_used:
        with pytest.raises(UsageError):
            Uml.settle({"binary": str(alone / "linux.uml")})


def test_without_an_archive_nothing_is_fetched(alone: Path) -> None:
    told: list[str] = []
    with pytest.raises(BackendUnavailable):
        Uml.fetch(told.append)
    assert told == []


def test_a_guest_is_told_its_application_word_by_word() -> None:
    told = Handover(hostname="one", process=PROCESS, address=IPv4Interface("198.18.0.2/15"), pids=9).files()
    words = told["application"].split(b"\0")
    assert words[-4:] == [b"sh", b"-c", b"true", b""]
    assert words[words.index(b"--user") + 1] == b"7:8"
    assert words[words.index(b"--directory") + 1] == b"/srv"
    assert told["environment"] == b"A=b c\0"
    assert told["settings"].splitlines() == [b"hostname one", b"address 198.18.0.2/15", b"pids 9", b"owner 7:8"]


def test_one_that_is_typed_to_reads_its_line_outside_of_the_image() -> None:
    told = Handover(
        hostname="one", process=PROCESS, address=IPv4Interface("198.18.0.2/15"), interactive=True,
        terminal=TerminalSize(rows=3, columns=4),
    ).files()  # fmt: skip
    words = told["application"].split(b"\0")
    assert words[:2] == [b"/lab/helper/inside", b"interact"]
    assert words.count(b"--terminal") == 2
    assert b"3x4" in words


def test_lines_and_card_are_the_descriptors_that_are_passed() -> None:
    words = place.command_line(64 << 20, lines=5, tap=8, mac="02:00:00:00:00:01")
    assert [word for word in words if word.startswith("ssl")][1:] == [f"ssl{n}=fd:{3 + n}" for n in range(5)]
    assert any(word.startswith("vec0:") and "fd=8" in word for word in words)
    assert "mem=65536K" in words
    assert words[words.index("--") :] == ["--", "guest", "/lab"]


def test_no_more_is_typed_than_was_acknowledged() -> None:
    """A reader that takes nothing is sent no more than the bound; each acknowledgement lets so much more pass."""
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    whole = 1000 + (1000 // 50 + 1) * HEADER.size  # in pieces of half the bound, and the end
    with ours, theirs, os.fdopen(read, "rb", 0) as source:
        keyboard = Keyboard(source.fileno(), lambda: ours, most_untaken_bytes=100)
        os.write(write, b"x" * 1000)
        os.close(write)
        theirs.settimeout(0.2)
        taken = total = 0
        while total < whole:
            try:
                total += len(theirs.recv(4096))
            except TimeoutError:  # it waits for an answer
                if total > taken:
                    theirs.sendall(NUMBER.pack(total - taken))
                taken = total
            assert total - taken <= 100
        assert total == whole
        theirs.close()
        keyboard.close()
