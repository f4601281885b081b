"""What is made of what was seen of an application that nobody says anything about: a readiness, a port, a load."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.commands.options.application import parse_ready
from lab.errors import LabError, ScenarioError, UsageError
from lab.experiment.provenance import recalled
from lab.experiment.scenarios import looking
from lab.experiment.scenarios.looking import Seen, is_needed, settle
from lab.model import (
    Completed,
    DoneReadiness,
    Healthcheck,
    HealthReadiness,
    HttpReadiness,
    ImageConfig,
    Load,
    LogReadiness,
    Place,
    Readiness,
    Scenario,
    StartedReadiness,
    TalkReadiness,
    TcpReadiness,
    Work,
)

NOTHING = ImageConfig()
EXPOSED = ImageConfig(exposed_ports=(5000, 5001))
HEALTHY = ImageConfig(health=Healthcheck(test=("CMD", "true")), exposed_ports=(5000,))


def scenario(**said: object) -> Scenario:
    return dataclasses.replace(Scenario(name="mine", title="", directory=Path(), dockerfile=Path()), **said)  # type: ignore[arg-type]


def seen(**what: object) -> Seen:
    return dataclasses.replace(Seen(backend="container", seconds=2.0), **what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "config", "looked", "port", "readiness", "load"),
    [
        # found by looking: HTTP, and so a load; an answer that is no success, and so none; no HTTP
        ({}, NOTHING, seen(ports=(5000,), answers={5000: 200}), 5000, HttpReadiness(), Load()),
        ({}, NOTHING, seen(ports=(5000,), answers={5000: 404}), 5000, HttpReadiness(status=404), None),
        ({}, NOTHING, seen(ports=(6379,)), 6379, TcpReadiness(), None),
        # several, of which one speaks HTTP
        ({}, NOTHING, seen(ports=(22, 80), answers={80: 200}), 80, HttpReadiness(), Load()),
        # EXPOSE says which, unless nobody listens there
        ({}, EXPOSED, seen(ports=(80, 5000), answers={80: 200, 5000: 200}), 5000, HttpReadiness(), Load()),
        ({}, EXPOSED, seen(ports=(8000,), answers={8000: 200}), 8000, HttpReadiness(), Load()),
        ({"port": 80}, EXPOSED, seen(ports=(80, 5000), answers={80: 200}), 80, HttpReadiness(), Load()),
        # what is said of readiness holds, and the port is found all the same
        ({"readiness": TcpReadiness()}, NOTHING, seen(ports=(80,), answers={80: 200}), 80, TcpReadiness(), Load()),
        ({"load": Load(path="/x")}, NOTHING, seen(ports=(8,), answers={8: 200}), 8, HttpReadiness(), Load(path="/x")),
        # nothing to ask
        ({}, NOTHING, seen(), None, StartedReadiness(), None),
        ({}, NOTHING, seen(udp=(53,)), None, StartedReadiness(), None),
        ({}, NOTHING, seen(exit_code=0), None, DoneReadiness(), None),
        ({}, NOTHING, seen(exit_code=1), None, StartedReadiness(), None),
        ({}, EXPOSED, seen(exit_code=1), 5000, StartedReadiness(), None),
    ],
)  # fmt: skip
def test_what_was_seen_becomes_what_is_asked(
    said: dict[str, object], config: ImageConfig, looked: Seen, port: int, readiness: Readiness, load: Load
) -> None:
    settled = settle(scenario(**said), config, [looked])
    found = settled.scenario
    assert (found.port, found.readiness, found.load) == (port, readiness, load)
    assert settled.found, "it is said where that comes from"


@pytest.mark.parametrize(
    ("said", "looked", "hint"),
    [
        ({}, seen(ports=(80, 81), answers={80: 200, 81: 200}), "--port 80 or --port 81"),
        ({}, seen(ports=(21, 22)), "--port 21 or --port 22"),
        ({}, seen(inner=("127.0.0.1:5000",)), "0.0.0.0"),
        ({}, seen(inner=("port 5000",)), "0.0.0.0"),
        ({"port": 80}, seen(ports=(81,)), "--port 81"),
        ({"port": 80}, seen(), "--ready started"),
        ({"readiness": TcpReadiness()}, seen(), "--port"),
    ],
)
def test_what_is_not_clear_is_a_question(said: dict[str, object], looked: Seen, hint: str) -> None:
    with pytest.raises((UsageError, ScenarioError)) as caught:
        settle(scenario(**said), NOTHING, [looked])
    assert hint in caught.value.hint


def test_only_what_is_open_is_looked_for() -> None:
    assert is_needed(scenario(), NOTHING, loaded=False)
    assert is_needed(scenario(), EXPOSED, loaded=False)
    assert is_needed(scenario(readiness=HttpReadiness()), NOTHING, loaded=False)
    assert not is_needed(scenario(readiness=HttpReadiness()), EXPOSED, loaded=True)
    assert not is_needed(scenario(), HEALTHY, loaded=False)
    assert is_needed(scenario(), HEALTHY, loaded=True)  # is there a port to ask?
    work = Work(argv=("true",), place=Place.INSIDE)
    assert not is_needed(scenario(work=work), HEALTHY, loaded=True)
    for readiness in (StartedReadiness(), DoneReadiness()):
        assert not is_needed(scenario(readiness=readiness), NOTHING, loaded=True)


def test_a_declared_page_is_asked_for_under_load() -> None:
    declared = scenario(readiness=HttpReadiness(path="/health"))
    assert settle(declared, EXPOSED).scenario.load == Load(path="/health")
    assert settle(declared, EXPOSED, loaded=False).scenario.load is None


@pytest.mark.parametrize(
    "readiness",
    [
        HttpReadiness(path="/x", status=204, body="ok"),
        TcpReadiness(),
        LogReadiness(pattern="up"),
        TalkReadiness(send="PING", expect="PONG"),
        HealthReadiness(check=Healthcheck(test=("CMD", "true"), retries=2), shell=("/bin/bash", "-c")),
        StartedReadiness(),
        DoneReadiness(),
    ],
)
def test_a_run_that_goes_on_waits_for_the_same(readiness: Readiness) -> None:
    recorded = {
        "port": 5000, "load": {"kind": "Load", **dataclasses.asdict(Load(path="/y"))}, "ready_timeout_seconds": 7.0,
        "readiness": {"kind": type(readiness).__name__, **dataclasses.asdict(readiness)},
        "build": {"arguments": {"A": "1"}, "secrets": ["id=a,env=A"]},
    }  # fmt: skip
    found = recalled(scenario(), json.loads(json.dumps(recorded)))
    assert found.readiness == readiness
    assert (found.port, found.load, found.ready_timeout_seconds) == (5000, Load(path="/y"), 7.0)
    assert (found.build_arguments, found.build_secrets) == ({"A": "1"}, ("id=a,env=A",))


@pytest.mark.parametrize(
    ("word", "readiness"),
    [
        ("http:/health", HttpReadiness(path="/health")),
        ("tcp", TcpReadiness()),
        ("log:listening on :\\d+", LogReadiness(pattern="listening on :\\d+")),
        ("started", StartedReadiness()),
        ("done", DoneReadiness()),
    ],
)
def test_readiness_on_the_command_line(word: str, readiness: Readiness) -> None:
    assert parse_ready(word) == readiness


@pytest.mark.parametrize(
    "word", ["http", "http:health", "http:/a b", "http:/a\r\nX: y", "tcp:80", "log:", "log:(", "soon", "", "done:1"]
)
def test_what_is_no_readiness(word: str) -> None:
    with pytest.raises(UsageError):
        parse_ready(word)


class Host:
    """The network as seen by who is on the host's loopback."""

    def socket(self) -> socket.socket:
        return socket.socket()


@contextmanager
def server(statuses: list[int]) -> Iterator[int]:
    """One that answers with each status once, and with the last ever after."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield http.server_address[1]
        http.shutdown()
        thread.join()


def test_a_server_that_is_not_up_yet_is_asked_again() -> None:
    with server([503, 500, 200]) as port:
        assert looking._ask(Host(), IPv4Address("127.0.0.1"), port, "/", looking.now() + 30) == 200
    with server([503]) as port:
        assert looking._ask(Host(), IPv4Address("127.0.0.1"), port, "/", looking.now()) == 503


def test_what_speaks_no_http_and_what_is_not_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert looking._ask_once(Host(), IPv4Address("127.0.0.1"), port, "/") is None
        listener.listen()

        def talk() -> None:
            connected, _ = listener.accept()
            with connected:
                connected.recv(100)
                connected.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        assert looking._ask_once(Host(), IPv4Address("127.0.0.1"), port, "/") == 0
        thread.join()


def test_sockets_are_read_where_the_instance_is() -> None:
    """All that is bound here, by this process: what nobody outside reaches apart, and datagrams apart."""

    class Here:
        def inside(self, verb: str, path: str) -> Completed:
            assert verb == "read"
            said = json.dumps({"errno": 0, "text": Path(path).read_text()})
            return Completed(exit_code=0, stdout=said.encode(), stderr=b"")

    with socket.socket() as inner, socket.socket() as outer, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        inner.bind(("127.0.0.1", 0))
        outer.bind(("0.0.0.0", 0))
        datagrams.bind(("0.0.0.0", 0))
        bound = [each.getsockname()[1] for each in (inner, outer, datagrams)]
        ports, closed = looking._listening(Here())  # type: ignore[arg-type]
        assert not {bound[0], bound[1]} & ports, "bound is not listening"
        inner.listen()
        outer.listen()
        ports, closed = looking._listening(Here())  # type: ignore[arg-type]
        assert bound[1] in ports
        assert f"127.0.0.1:{bound[0]}" in closed
        assert bound[0] not in ports
        assert bound[2] in looking._udp(Here())  # type: ignore[arg-type]


def test_the_sockets_of_an_instance_that_has_ended_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        def inside(self, *_: str) -> None:
            raise LabError("it has ended")

    assert looking._listening(Ended()) == (set(), {})  # type: ignore[arg-type]
