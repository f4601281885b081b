"""The supervisor's side of a conversation, over a real socket, about an instance that only remembers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from lab.errors import ExitUnknown, LabError, LaunchError
from lab.instance import Execution, Instance
from lab.model import TerminalSize
from lab.runtime.channel import Channel, ChannelClosed
from lab.supervisor import control
from lab.supervisor.control import Answer, Request, decode_error
from lab.supervisor.server import Ended, Server, Stop

EXEC: dict[str, object] = {"argv": ["cmd"], "environment": {}, "directory": "", "user": "", "terminal": None}


class Command(Execution):
    """Ends when it is told to."""

    def __init__(self, told: list[object]) -> None:
        self.told = told
        self.ended = threading.Event()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        self.ended.wait(timeout_seconds)
        return 7

    def signal(self, number: int) -> None:
        self.told.append(("signal", number))
        self.ended.set()

    def resize(self, size: TerminalSize) -> None:
        self.told.append(size)

    def close(self) -> None:
        self.told.append("closed")
        self.ended.set()


class Remembering:
    """As much of an Instance as a server asks."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.ended = threading.Event()
        self.address = IPv4Address("127.0.0.1")
        self.code: int | None = 3

    def wait(self) -> int:
        self.ended.wait()
        if self.code is None:
            raise ExitUnknown("nobody knows")
        return self.code

    def signal(self, number: int) -> None:
        self.told.append(number)

    def resize(self, size: TerminalSize) -> None:
        self.told.append(size)

    def begin(self, argv: list[str], *, stdin: int, stdout: int, stderr: int, **more: Any) -> Command:
        if argv == ["absent"]:
            raise LaunchError("absent: no such file", hint="look", exit_code=127)
        os.write(stdout, os.read(stdin, 64))
        self.told.append(more["terminal"])
        return Command(self.told)


@pytest.fixture
def instance() -> Remembering:
    return Remembering()


@pytest.fixture
def server(instance: Remembering, tmp_path: Path) -> Iterator[Server]:
    made = Server(cast(Instance, instance), control.listen(tmp_path / "s"), socket.socket)
    made.start()
    yield made
    instance.ended.set()
    made.finish(None)


def ask(tmp_path: Path, name: str, *descriptors: int, **fields: object) -> Channel:
    channel = control.connect(tmp_path / "s")
    channel.send(name, descriptors=descriptors, **fields)
    return channel


@pytest.mark.usefixtures("server")
def test_a_signal_reaches_the_application(instance: Remembering, tmp_path: Path) -> None:
    ask(tmp_path, Request.SIGNAL, number=10).expect(Answer.DONE)
    assert instance.told == [10]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("SOMETHING", {}),
        (Request.SIGNAL, {}),
        (Request.SIGNAL, {"number": "x"}),
        (Request.RESIZE, {"rows": 1, "columns": 2}),  # without a command whose terminal it could be
        (Request.STOP, {"grace_seconds": None}),
        (Request.REACH, {"port": "x"}),
        (Request.EXEC, EXEC),  # without descriptors
        (Request.EXEC, {**EXEC, "argv": 7}),
    ],
)
@pytest.mark.usefixtures("server")
def test_what_it_does_not_understand_is_said(tmp_path: Path, name: str, fields: dict[str, object]) -> None:
    message = ask(tmp_path, name, **fields).expect(Answer.FAILED)
    assert decode_error(message).exit_code == 1


@pytest.mark.usefixtures("server")
def test_a_port_is_served_once_a_connection_to_it_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that refuses nor one that says nothing is: a guest that boots, or that is slow to refuse."""
    monkeypatch.setattr("lab.supervisor.server.REACH_SECONDS", 0.3)

    def served(port: int) -> object:
        return ask(tmp_path, Request.REACH, port=port).expect(Answer.REACHED)["served"]

    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, socket.socket() as first:
        port = silent.getsockname()[1]
        assert served(port)
        silent.accept()[0].close()
        first.connect(("127.0.0.1", port))  # nobody accepts it, and there is no room for another
        assert not served(port)
    assert not served(port)


def test_everybody_who_waits_is_told_when_nothing_is_left(server: Server, tmp_path: Path) -> None:
    waiting = [ask(tmp_path, Request.WAIT), ask(tmp_path, Request.STOP, grace_seconds=2.5)]
    assert server.events.get(timeout=120) == Stop(grace_seconds=2.5)
    assert server.ending.is_set()
    server.finish(143)
    assert [channel.expect(Answer.EXITED)["code"] for channel in waiting] == [143, 143]
    with pytest.raises(OSError):
        control.connect(tmp_path / "s")


def test_who_stops_it_is_told_what_is_left_and_who_waits_how_it_ended(server: Server, tmp_path: Path) -> None:
    wait, stop = ask(tmp_path, Request.WAIT), ask(tmp_path, Request.STOP, grace_seconds=0)
    server.events.get(timeout=120)
    server.finish(143, LabError("one left behind: a folder", hint="lab clean"))
    told = decode_error(stop.expect(Answer.FAILED))
    assert (told.message, told.hint, told.exit_code) == ("one left behind: a folder", "lab clean", 1)
    assert wait.expect(Answer.EXITED)["code"] == 143


@pytest.mark.parametrize(("code", "event"), [(3, Ended(code=3)), (None, Ended(code=None, error="nobody knows"))])
def test_the_end_is_an_event(server: Server, instance: Remembering, code: int | None, event: Ended) -> None:
    instance.code = code
    instance.ended.set()
    assert server.events.get(timeout=120) == event


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    (source, given), (result, sink) = os.pipe(), os.pipe()
    yield source, given, result, sink
    for descriptor in (source, given, result, sink):
        os.close(descriptor)


@pytest.mark.usefixtures("server")
def test_a_command_has_the_client_s_descriptors(
    instance: Remembering, tmp_path: Path, pipes: tuple[int, int, int, int]
) -> None:
    source, given, result, sink = pipes
    os.write(given, b"hello")
    channel = ask(tmp_path, Request.EXEC, source, sink, sink, **{**EXEC, "terminal": [3, 4]})
    channel.expect(Answer.STARTED)
    assert os.read(result, 64) == b"hello"
    channel.send(Request.RESIZE, rows=1, columns=2)
    channel.send(Request.SIGNAL, number=15)
    assert channel.expect(Answer.EXITED)["code"] == 7
    assert instance.told[:3] == [TerminalSize(rows=3, columns=4), TerminalSize(rows=1, columns=2), ("signal", 15)]
    with pytest.raises(ChannelClosed):
        channel.receive()


@pytest.mark.usefixtures("server")
def test_a_client_that_goes_takes_its_command_along(
    instance: Remembering, tmp_path: Path, pipes: tuple[int, int, int, int]
) -> None:
    source, given, _, sink = pipes
    os.write(given, b"x")
    channel = ask(tmp_path, Request.EXEC, source, sink, sink, **EXEC)
    channel.expect(Answer.STARTED)
    channel.close()
    for _ in range(3000):
        if "closed" in instance.told:
            return
        threading.Event().wait(0.02)
    raise AssertionError("it still runs")


@pytest.mark.usefixtures("server")
def test_a_command_that_can_not_be_executed(tmp_path: Path, pipes: tuple[int, int, int, int]) -> None:
    source, _, _, sink = pipes
    message = ask(tmp_path, Request.EXEC, source, sink, sink, **{**EXEC, "argv": ["absent"]}).expect(Answer.FAILED)
    error = decode_error(message)
    assert (error.message, error.hint, error.exit_code) == ("absent: no such file", "look", 127)
