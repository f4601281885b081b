"""The first scenario's application does what its scenario.toml promises."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.experiment.scenarios.scenario import load
from lab.images.dockerfile.parse import Copy, read
from lab.model import HttpReadiness

APPLICATION = Path(__file__).parents[2] / "scenarios" / "web-app"


@pytest.fixture
def connection() -> Iterator[http.client.HTTPConnection]:
    environment = {**os.environ, "PORT": "0", "GREETING": "<hello>", "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.Popen(
        [sys.executable, APPLICATION / "app.py"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert child.stdout is not None
    line = child.stdout.readline().decode()
    assert line.startswith("listening on port ")
    connection = http.client.HTTPConnection("127.0.0.1", int(line.split()[-1]), timeout=10)
    yield connection
    connection.close()
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0
    assert child.stdout.read() == b"", "it should be quiet"
    child.stdout.close()


def get(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> tuple[int, str]:
    connection.request(method, path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_it_answers_on_one_connection_and_ends_cleanly(connection: http.client.HTTPConnection) -> None:
    readiness = load("web-app").readiness
    assert isinstance(readiness, HttpReadiness)
    status, body = get(connection, readiness.path)
    assert status == readiness.status
    assert readiness.body in body
    socket = connection.sock
    status, page = get(connection, "/")
    assert status == 200
    assert "&lt;hello&gt;" in page
    assert os.uname().release in page
    assert json.loads(get(connection, "/api/primes?below=30")[1]) == {"below": 30, "count": 10, "largest": 29}
    assert json.loads(get(connection, "/api/primes?below=0")[1])["largest"] is None
    for wrong in ("x", "-1", "1000001"):
        assert get(connection, f"/api/primes?below={wrong}")[0] == 400
    assert get(connection, "/nowhere")[0] == 404
    assert get(connection, "/", "HEAD") == (200, "")
    assert json.loads(get(connection, "/api/info")[1])["kernel"] == os.uname().release
    assert connection.sock is socket, "the connection should have been kept"


def test_its_load_is_a_path_that_works(connection: http.client.HTTPConnection) -> None:
    scenario = load("web-app")
    assert scenario.load is not None
    assert get(connection, scenario.load.path)[0] == 200


def test_its_dockerfile_copies_every_file_that_it_needs() -> None:
    copied = [
        source.rstrip("/")
        for instruction in read(APPLICATION / "Dockerfile").stages[0].instructions
        if isinstance(instruction, Copy)
        for source in instruction.sources
    ]
    present = {path.name for path in APPLICATION.iterdir() if not path.name.startswith((".", "__"))}
    assert present - {"Dockerfile", "README.md", "scenario.toml"} == set(copied)
