"""Commands in guests over their protocol: both halves for real, the guest's on this host, without a boundary."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import streams
from host_state import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError, LaunchError
from lab.host.execution.contract import Execution
from lab.hypervisor import running
from lab.hypervisor.channels import commands, frames
from lab.hypervisor.channels.commands import GuestCommand, GuestCommands
from lab.hypervisor.channels.frames import CHUNK_BYTES, FROM_THE_GUEST, HEADER, Frame, FrameKind, Malformed, Parser
from lab.hypervisor.running import RunningGuest, Wanted
from lab.inside import build
from lab.instance import Instance
from lab.model import Completed, Process, TerminalSize

SECONDS = 120.0
GREETING = b"word\n"


class Served:
    """As much of an Instance as the checks of streams need."""

    def __init__(self, sessions: GuestCommands) -> None:
        self.sessions = sessions

    def begin(
        self,
        argv: list[str],
        *,
        stdin: int | None,
        stdout: int,
        stderr: int,
        terminal: TerminalSize | None = None,
    ) -> Execution:
        return self.sessions.begin(
            argv,
            environment={**os.environ, "ODD.NAME": 'a "b"'},
            user="",
            directory="/",
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=terminal,
        )


@pytest.fixture
def server() -> Iterator[tuple[Instance, GuestCommands, subprocess.Popen[bytes]]]:
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen([build.program(), "serve", "word", "-"], stdin=theirs) as process:
        theirs.close()
        sessions = GuestCommands(ours, "word")
        yield cast(Instance, Served(sessions)), sessions, process
        sessions.close()
        ours.close()
        assert process.wait(SECONDS) == 0


class Guest(RunningGuest):
    """As much of a guest as a command that is run to its end needs."""

    def __init__(self, sessions: GuestCommands) -> None:
        process = Process(argv=("x",), environment={"KEPT": "kept"}, working_directory="/", uid=1, gid=1)
        self._wanted = cast(Wanted, SimpleNamespace(name="guest", handover=SimpleNamespace(process=process)))
        self._sessions = sessions

    def begin(self, process: Process, **streams: int | None) -> GuestCommand:  # type: ignore[override]
        """By whoever runs the tests: setting users needs root."""
        return self._sessions.begin(process.argv, environment=process.environment, user="", directory="/", **streams)  # type: ignore[arg-type]

    def _pull_the_plug(self) -> None: ...


def test_a_command_is_run_to_its_end(server: tuple[Instance, GuestCommands, object]) -> None:
    guest = Guest(server[1])
    script = 'cat; echo "$KEPT" >&2; exit 3'
    assert guest.execute(["sh", "-c", script], stdin=b"given") == Completed(
        exit_code=3, stdout=b"given", stderr=b"kept\n"
    )
    assert guest.execute(["sh", "-c", "kill -KILL $$"]).exit_code == 128 + signal.SIGKILL
    with pytest.raises(LaunchError) as refused:
        guest.execute(["no-such-program"])
    assert refused.value.exit_code == 127


def test_a_command_that_does_not_end_is_killed(
    server: tuple[Instance, GuestCommands, object], tmp_path: Path
) -> None:
    with pytest.raises(LabError, match="did not end within"):
        Guest(server[1]).execute(["sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 1000"], timeout_seconds=1)
    ended = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not Path(f"/proc/{ended}").exists())


def test_what_a_command_writes_has_a_bound(
    server: tuple[Instance, GuestCommands, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is an error, not a short answer."""
    monkeypatch.setattr(running, "MOST_BYTES", 1 << 20)
    with pytest.raises(LabError, match="more than 1 MiB"):
        Guest(server[1]).execute(["yes"], timeout_seconds=SECONDS)
    with pytest.raises(LabError, match="more than 1 MiB"):  # also where it ends before anybody looks
        Guest(server[1]).execute(["head", "-c", str((1 << 20) + 1), "/dev/zero"], timeout_seconds=SECONDS)


def test_streams_and_exit_codes(server: tuple[Instance, GuestCommands, object]) -> None:
    instance = server[0]
    script = "cat; echo to stderr >&2; exit 3"
    read, write = os.pipe()
    os.write(write, b"given\n")
    os.close(write)
    assert streams.outcome(instance, "sh", "-c", script, stdin=read) == (3, b"given\n", b"to stderr\n")
    os.close(read)
    assert streams.outcome(instance, "printenv", "ODD.NAME") == (0, b'a "b"\n', b"")
    assert streams.outcome(instance, "sh", "-c", "cat; kill -TERM $$") == (143, b"", b"")
    streams.check_errors(instance)


def test_much_data_both_ways(server: tuple[Instance, GuestCommands, object]) -> None:
    streams.check_much(server[0])


def test_a_reader_that_is_stuck_holds_up_nobody(server: tuple[Instance, GuestCommands, object]) -> None:
    instance = server[0]
    read, write = os.pipe()
    with instance.begin(["yes"], stdin=None, stdout=write, stderr=write) as stuck:
        for _ in range(3):
            streams.check_much(instance, mebibytes=1)
        assert stuck.wait(0) is None
        assert os.read(read, 4) == b"y\ny\n"
        os.close(read)
        assert stuck.wait(SECONDS) == 128 + signal.SIGPIPE
    os.close(write)


def test_many_at_once(server: tuple[Instance, GuestCommands, object]) -> None:
    def outcome(number: int) -> tuple[int, bytes, bytes]:
        return streams.outcome(server[0], "sh", "-c", f"echo {number}; exit {number}")

    found: list[tuple[int, bytes, bytes]] = []
    threads = [
        threading.Thread(
            target=lambda n=n: found.append(streams.outcome(server[0], "sh", "-c", f"echo {n}; exit {n}"))
        )
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(found) == [(n, f"{n}\n".encode(), b"") for n in range(20)]


def test_the_end_of_the_connection_is_the_end_of_its_commands(
    server: tuple[Instance, GuestCommands, subprocess.Popen[bytes]],
) -> None:
    instance, _, process = server
    read, write = os.pipe()
    with os.fdopen(read, "rb", 0) as output, ExitStack() as opened:
        held = instance.begin(["sh", "-c", "echo $$; exec sleep 1000"], stdin=None, stdout=write, stderr=write)
        opened.callback(os.close, write)
        opened.enter_context(held)
        pid = int(output.readline())
        descriptor = os.pidfd_open(pid)
        opened.callback(os.close, descriptor)
        process.kill()
        with pytest.raises(LabError, match="the machine has ended"):
            held.wait(SECONDS)
        with pytest.raises(LabError):
            instance.begin(["true"], stdin=None, stdout=2, stderr=2)
        assert select.select([descriptor], [], [], SECONDS)[0], "the command outlived its server"
    process.wait()
    process.returncode = 0  # for the fixture: it was us


# A guest that is not what it should be


class Hostile:
    """The guest's side of a connection in this test's hands."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.end.settimeout(SECONDS)

    def greet(self) -> None:
        """Wait for an OPEN, and say that it was executed."""
        self.end.sendall(b"what was left on the line" + GREETING)
        self.end.recv(1 << 16)
        self.end.sendall(whole(1, FrameKind.STARTED, b""))

    def send(self, frames: list[tuple[int, FrameKind, bytes]]) -> None:
        with suppress(OSError):  # the host stops reading as soon as it has seen enough
            for each in frames:
                self.end.sendall(whole(*each))


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([(1, FrameKind.DATA, bytes(CHUNK_BYTES))] * 20, "more than its window"),
        ([(1, FrameKind.OPEN, b"")], "unknown kind"),
        ([(1, FrameKind.ENDED, b"")], "ENDED of 0 bytes"),
    ],
)
def test_a_guest_that_breaks_the_rules_loses_its_sessions(
    sent: list[tuple[int, FrameKind, bytes]], message: str
) -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    os.write(write, bytes(fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)))  # nobody reads: nothing of it is passed on
    with ours, theirs, ExitStack() as opened:
        opened.callback(os.close, read)
        opened.callback(os.close, write)
        guest = Hostile(theirs)
        greeter = threading.Thread(target=guest.greet)
        greeter.start()
        sessions = GuestCommands(ours, "word")
        opened.callback(sessions.close)
        served = cast(Instance, Served(sessions))
        with served.begin(["any"], stdin=None, stdout=write, stderr=write) as execution:
            greeter.join()
            sender = threading.Thread(target=guest.send, args=(sent,))
            sender.start()
            with pytest.raises(LabError, match=message):
                execution.wait(SECONDS)
            theirs.shutdown(socket.SHUT_RDWR)
            sender.join()
        assert not sessions.lives


def test_a_guest_that_takes_nothing_of_what_it_is_told_fills_nobody_s_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte that it sends is answered by a frame, as long as its own reader takes them."""
    monkeypatch.setattr(commands, "MOST_OUTGOING_BYTES", 10_000)
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull, "wb") as nowhere, ExitStack() as opened:  # noqa: PTH123
        guest = Hostile(theirs)
        greeter = threading.Thread(target=guest.greet)
        greeter.start()
        sessions = GuestCommands(ours, "word")
        opened.callback(sessions.close)
        sink = nowhere.fileno()
        with cast(Instance, Served(sessions)).begin(["any"], stdin=None, stdout=sink, stderr=sink) as execution:
            greeter.join()
            bytewise = [(1, FrameKind.DATA, b"x")] * 100_000
            sender = threading.Thread(target=guest.send, args=(bytewise,))
            sender.start()
            with pytest.raises(LabError, match="takes nothing"):
                execution.wait(SECONDS)
            theirs.shutdown(socket.SHUT_RDWR)
            sender.join()


# The parser


def whole(session: int, kind: FrameKind, payload: bytes) -> bytes:
    return HEADER.pack(session, kind, len(payload)) + payload


payloads = st.sampled_from(sorted(FROM_THE_GUEST)).flatmap(
    lambda kind: st.tuples(
        st.integers(0, 2**32 - 1),
        st.just(kind),
        st.binary(max_size=200)
        if FROM_THE_GUEST[kind] is None
        else st.binary(min_size=FROM_THE_GUEST[kind] or 0, max_size=FROM_THE_GUEST[kind] or 0),
    )
)


@given(st.lists(payloads, max_size=8), st.binary(max_size=100), st.data())
def test_frames_come_out_whole_however_they_are_cut(
    sent: list[tuple[int, FrameKind, bytes]], before: bytes, data: st.DataObject
) -> None:
    stream = before.replace(GREETING, b"") + b"\xff" + GREETING + b"".join(whole(*each) for each in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    parser = Parser(GREETING)
    found: list[Frame] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[begin:end])
    assert [(each.session, each.kind, each.payload) for each in found] == sent


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_nonsense_is_refused_and_never_kept(chunks: list[bytes]) -> None:
    parser = Parser(b"\n")
    list(parser.feed(b"\n"))
    try:
        for chunk in chunks:
            for frame in parser.feed(chunk):
                assert frame.kind in FROM_THE_GUEST
            assert len(parser._buffer) < HEADER.size + CHUNK_BYTES
    except Malformed:
        pass


@settings(deadline=None, max_examples=50)  # each starts a process
@given(st.binary(min_size=2, max_size=300))
def test_a_server_survives_nonsense_or_ends(data: bytes) -> None:
    """The C half: no crash, whatever comes (it trusts the host, and yet)."""
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen([build.program(), "serve", "word", "-"], stdin=theirs) as process:
        theirs.close()
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(SECONDS) == 0


def test_what_no_program_can_be_given() -> None:
    with pytest.raises(LabError, match="NUL"):
        frames.opening(1, ["a\0b"], {}, user="", directory="", terminal=None)
    with pytest.raises(LabError, match="longer than"):
        frames.opening(1, ["a" * (1 << 20)], {}, user="", directory="", terminal=None)
