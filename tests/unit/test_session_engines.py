"""What is removed of somebody else's Docker Engine: a session's own, and nothing else, whatever that answers."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from lab.errors import LabError, UsageError
from lab.host.session import engines, ledger
from lab.host.session.ledger import Resource, ResourceKind, Session

SESSION = "0123abcd"


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "runtime_root", lambda: tmp_path / "run")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("/var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
        ("tcp://127.9.9.9:2375/", "tcp://127.9.9.9:2375"),
        ("tcp://[::1]:2375", "tcp://[::1]:2375"),
        ("tcp://localhost:1", "tcp://localhost:1"),
    ],
)
def test_an_engine_of_this_host_can_be_named(host: str, known: str) -> None:
    assert engines.checked(host) == known
    assert engines.checked(known) == known


@pytest.mark.parametrize(
    "host",
    [
        "tcp://192.0.2.1:2375", "tcp://localhost.example.org:2375", "tcp://127.0.0.1.example.org:2375", "tcp://:2375",
        "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:99999", "ssh://me@host", "https://127.0.0.1:2376",
        "unix://relative", "unix:///a\nb", "unix:///a,b", "docker.sock", "",
    ],
)  # fmt: skip
def test_no_other_can(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        engines.checked(host)
    assert caught.value.hint == engines.HINT


class Known(socketserver.ThreadingUnixStreamServer):
    """An engine that answers a listing with all that it has, filters or not."""

    def __init__(self, path: str) -> None:
        super().__init__(path, Answers)
        self.deleted: list[str] = []
        self.status = 200
        self.emptied = False


class Answers(BaseHTTPRequestHandler):
    server: Known

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        own, foreign = f"{engines.repository(SESSION)}:1", f"{engines.repository('ffffffff')}:1"
        listed: object = [{"Id": "i1", "RepoTags": [own, "theirs:1", foreign]}, {"Id": "i2", "RepoTags": None}]
        if self.path.startswith("/containers"):
            labels = ({engines.LABEL: SESSION}, {engines.LABEL: "another"}, {}, None)
            listed = [{"Id": f"c{place}", "Labels": each} for place, each in enumerate(labels)]
        self._say(self.server.status, [] if self.server.emptied else listed)

    def do_DELETE(self) -> None:
        self.server.deleted.append(self.path.partition("?")[0])
        self._say(404 if "c0" in self.path else 200, {"message": "no such container"})

    def _say(self, status: int, what: object) -> None:
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Known]:
    with serving(tmp_path / "socket") as found:
        yield found


@contextmanager
def serving(path: Path) -> Iterator[Known]:
    with Known(str(path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_the_sessions_own_is_removed_and_nothing_else(engine: Known, tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/socket"
    assert engines.exists(host, SESSION)
    assert not engines.exists(host, "eeeeeeee")
    engines.remove(host, SESSION)
    assert engine.deleted == ["/containers/c0", "/images/lab-session-0123abcd%3A1"]


def test_what_an_engine_refuses_is_an_error(engine: Known, tmp_path: Path) -> None:
    engine.status = 500
    with pytest.raises(LabError, match="refuses"):
        engines.remove(f"unix://{tmp_path}/socket", SESSION)


def test_a_socket_of_somebody_elses_is_not_spoken_to(engine: Known, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(tmp_path / "socket", 65534, 65534)
    with pytest.raises(LabError, match="neither root's nor yours"):
        engines.remove(f"unix://{tmp_path}/socket", SESSION)
    assert engine.deleted == []


def test_nor_is_somebody_else_behind_a_socket_of_root_s(tmp_path: Path) -> None:
    """As if the path had been exchanged after a look at its owner."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    place = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        child = os.fork()
        if child == 0:  # who listens is remembered, and the child does
            os.setuid(65534)
            listener.listen()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert place.stat().st_uid == 0
        with pytest.raises(PermissionError, match="what listens at"):
            engines.connected(f"unix://{place}")


def test_only_a_session_that_recorded_the_engine_cleans_there(engine: Known, tmp_path: Path) -> None:
    """And one that recorded another session's name, or another host, is refused."""
    session = Session.open()
    for name in (f"{SESSION} unix://{tmp_path}/socket", f"{session.id} tcp://192.0.2.1:2375"):
        session.record(Resource(kind=ResourceKind.ENGINE, name=name))
    with pytest.raises(LabError) as caught:
        session.close()
    assert len(caught.value.detail.splitlines()) == 2
    assert engine.deleted == []


def test_an_engine_that_is_silent_keeps_the_session(tmp_path: Path) -> None:
    """What is left there is not forgotten; once it answers, it is removed."""
    session = Session.open()
    host = f"unix://{tmp_path}/socket"
    session.record(Resource(kind=ResourceKind.ENGINE, name=f"{session.id} {host}"))
    with pytest.raises(LabError) as caught:
        session.close()
    assert "does not answer" in caught.value.detail
    assert session.directory.exists()
    (session.directory / "owner.json").write_text(json.dumps({"pid": 1, "started": 0, "boot_id": "", "home": ""}))
    with serving(tmp_path / "socket") as engine:
        engine.emptied = True
        assert ledger.clean_stale() == []
    assert not session.directory.exists()
