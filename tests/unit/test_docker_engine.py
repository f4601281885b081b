"""Speaking with a Docker Engine, without one: streams and frames, what it refuses, which process is meant."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.backends.docker import Docker
from lab.backends.engine import dockerd
from lab.backends.engine.attachment import Attachment
from lab.backends.engine.client import Client, Refused, Stream


@pytest.fixture
def ends() -> Iterator[tuple[Stream, socket.socket]]:
    """A stream whose first bytes came with the answer's head, and its other end."""
    ours, theirs = socket.socketpair()
    stream = Stream(ours, b"\x01\0\0\0\0\0\0\x05he")
    yield stream, theirs
    stream.close()
    theirs.close()


def frame(which: int, data: bytes) -> bytes:
    return bytes([which, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def copied(stream: Stream, theirs: socket.socket, data: bytes, **options: object) -> tuple[bytes, bytes]:
    """What arrives at the two descriptors."""
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    attachment = Attachment(stream, out_end, err_end, **options)  # type: ignore[arg-type]
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    assert attachment.drain(60)
    attachment.close()
    os.close(out_end)
    os.close(err_end)
    with os.fdopen(out, "rb") as first, os.fdopen(err, "rb") as second:
        return first.read(), second.read()


def test_frames_are_told_apart(ends: tuple[Stream, socket.socket]) -> None:
    rest = b"llo" + frame(2, b"error") + frame(1, b" there") + frame(1, b"")
    assert copied(*ends, rest) == (b"hello there", b"error")


def test_what_is_in_the_log_already_is_passed_over(ends: tuple[Stream, socket.socket]) -> None:
    rest = b"llo" + frame(2, b"error") + frame(1, b" there")
    assert copied(*ends, rest, written=(7, 1)) == (b"here", b"rror")


def test_a_frame_that_is_cut_off_ends_it(ends: tuple[Stream, socket.socket]) -> None:
    assert copied(*ends, b"l") == (b"hel", b"")


def test_a_terminals_output_has_no_frames() -> None:
    ours, theirs = socket.socketpair()
    assert copied(Stream(ours, b""), theirs, frame(1, b"x"), terminal=True) == (frame(1, b"x"), b"")
    theirs.close()


def test_input_ends_where_the_user_ends_it() -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    attachment = Attachment(Stream(ours, b""), -1, -1, stdin=read)
    os.write(write, b"typed")
    os.close(write)
    received = b""
    theirs.settimeout(60)
    while chunk := theirs.recv(100):
        received += chunk
    assert received == b"typed"
    theirs.close()
    attachment.close()
    os.close(read)


def engine_that_says(path: Path, answer: bytes) -> threading.Thread:
    """Listens, and gives everybody one answer."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with server:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


class Api:
    """As much of PyPI's client as an upgrade asks."""

    api_version = "1.41"


@pytest.mark.parametrize(
    ("answer", "said", "status"),
    [
        (b'HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\n\r\n{"message":"is paused"}', "is paused", 409),
        (b'HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{"message":"bad"}\r\n0\r\n\r\n', "bad", 500),
        (b"HTTP/1.1 400 Bad\r\n\r\nnot json", "not json", 400),
        (b"nonsense", "gave no answer", 0),
        (b"", "gave no answer", 0),
    ],
)
def test_a_refused_upgrade_is_told_in_dockers_words(tmp_path: Path, answer: bytes, said: str, status: int) -> None:
    thread = engine_that_says(tmp_path / "socket", answer)
    client = Client(f"unix://{tmp_path}/socket", Api())  # type: ignore[arg-type]
    with pytest.raises(Refused, match=said) as caught:
        client.attach("x", stdin=False, replay=False)
    assert caught.value.status == status
    thread.join(60)


def test_bytes_that_come_with_the_answers_head_are_not_lost(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n" + frame(1, b"early")
    thread = engine_that_says(tmp_path / "socket", answer)
    stream = Client(f"unix://{tmp_path}/socket", Api()).start_execution("x", terminal=False)  # type: ignore[arg-type]
    assert stream.read_exactly(13) == frame(1, b"early")
    stream.close()
    thread.join(60)


def test_without_an_engine_the_remedy_is_a_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dockerd, "PATH", str(tmp_path))
    (check,) = [each for each in Docker.check() if each.name == "docker engine"]
    assert not check.ok
    assert check.found == "dockerd is not installed"
    assert check.remedy == "apt-get install docker.io"
    for name in dockerd.PROGRAMS:
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    (check,) = [each for each in Docker.check() if each.name == "docker engine"]
    assert check.ok


def test_its_client_is_imported_by_nobody_who_does_not_need_it() -> None:
    """It takes a tenth of a second and more: neither the list of backends nor the command line may pay that."""
    program = "import sys, lab.cli.app, lab.backends.registry as r; r.available()"
    program += "; sys.exit(bool({'docker', 'requests'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
