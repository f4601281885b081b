"""The Engine's API, as far as lab speaks it, through PyPI's ``docker``: the one module that imports that.

It takes its time to be imported, so `Client.connect` does it, which happens before any clock runs. Whatever Docker
refuses is a `Refused`, with its own words. Streams that go both ways are opened here by hand: the client's own may
lose what arrives together with the answer's head.

Source: Docker Engine API v1.41, "ContainerAttach" and "ExecStart": a connection that is upgraded to raw TCP.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lab.errors import LabError
from lab.host.session import engines
from lab.host.survey.patience import Deadline
from lab.host.survey.virtualisation import platform

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_SECONDS = 60.0
START_SECONDS = 60.0
LONGEST_PATH = 107  # of a socket (unix(7))
HEAD_END = b"\r\n\r\n"
LONGEST_HEAD = 65536


class Refused(LabError):
    """The Engine did not do what it was asked to. ``status`` is HTTP's, 0 where it gave no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """The API of one Engine. Thread-safe, each call with a connection of its own if need be."""

    def __init__(self, host: str, api: APIClient, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._host = host
        self._api = api
        self._timeout_seconds = timeout_seconds  # for each call

    @classmethod
    def connect(cls, path: Path) -> Client:
        """Over the socket ``path``, whose Engine has to answer by now. Raises Refused."""
        if len(str(path)) > LONGEST_PATH:
            raise LabError(f"{path} is too long for a socket", hint="set LAB_HOME to a folder with a shorter path")
        return cls.connect_to(f"{engines.UNIX}{path}")

    @classmethod
    def connect_to(cls, host: str) -> Client:
        """The Engine at ``host``, as `lab.host.session.engines.checked` has it. Raises Refused."""
        from docker import APIClient

        with _refusals():
            engines.connected(host).close()  # whose socket it is
            seconds = platform().patience * TIMEOUT_SECONDS  # before any clock runs: a call can't be given more later
            return cls(host, APIClient(base_url=host, version="auto", timeout=int(seconds)), seconds)

    def version(self) -> dict[str, Any]:
        """Of the Engine and its parts."""
        with _refusals():
            return dict(self._api.version())

    def load(self, archive: BinaryIO) -> None:
        """Take in the images of a Docker archive."""
        with _refusals():
            for said in self._api.load_image(archive):
                if "error" in said:
                    raise Refused(str(said["error"]))

    def tag(self, identity: str, repository: str, tag: str) -> None:
        """Give an image that it has one more name."""
        with _refusals():
            self._api.tag(identity, repository, tag)

    def image(self, name: str) -> dict[str, Any]:
        """What it knows of an image, by its id or one of its names."""
        with _refusals():
            return dict(self._api.inspect_image(name))

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        """The id of a new container, by the API's own description of one ("ContainerCreate")."""
        with _refusals():
            return str(self._api.create_container_from_config(dict(body), name)["Id"])

    def start(self, identity: str) -> None:
        """Returns when the application has been executed."""
        with _refusals():
            self._api.start(identity)

    def wait(self, identity: str) -> int:
        """Until it does not run any more; its exit code."""
        with _refusals():
            return int(self._api.wait(identity, timeout=None)["StatusCode"])

    def kill(self, identity: str, number: int) -> None:
        """Send its first process a signal. Nothing happens if it has ended."""
        try:
            with _refusals():
                self._api.kill(identity, number)
        except Refused as error:
            if error.status not in (404, 409):
                raise

    def pause(self, identity: str) -> None:
        """Have it stand still, as ``docker pause`` does."""
        with _refusals():
            self._api.pause(identity)

    def resume(self, identity: str) -> None:
        """As ``docker unpause``."""
        with _refusals():
            self._api.unpause(identity)

    def remove(self, identity: str) -> None:
        """Kill it if it runs, and remove it with the volumes that were made for it. Nothing if it is gone."""
        try:
            with _refusals():
                self._api.remove_container(identity, v=True, force=True)
        except Refused as error:
            if error.status != 404:
                raise

    def resize(self, identity: str, rows: int, columns: int) -> None:
        """Of the container's terminal."""
        with _refusals():
            self._api.resize(identity, rows, columns)

    def inspect(self, identity: str) -> dict[str, Any]:
        """All that it knows of a container, by its id or its name."""
        with _refusals():
            return dict(self._api.inspect_container(identity))

    def execution(
        self,
        identity: str,
        argv: Sequence[str],
        *,
        environment: Sequence[str] = (),
        user: str = "0:0",
        directory: str = "/",
        stdin: bool = False,
        terminal: bool = False,
    ) -> str:
        """The id of a command to be executed in a container."""
        with _refusals():
            made = self._api.exec_create(
                identity, list(argv), stdin=stdin, tty=terminal, user=user, workdir=directory,
                environment=list(environment),
            )  # fmt: skip
            return str(made["Id"])

    def inspect_execution(self, identity: str) -> dict[str, Any]:
        """What has become of it."""
        with _refusals():
            return dict(self._api.exec_inspect(identity))

    def resize_execution(self, identity: str, rows: int, columns: int) -> None:
        """Of its terminal."""
        with _refusals():
            self._api.exec_resize(identity, rows, columns)

    def attach(self, identity: str, *, stdin: bool, replay: bool) -> Stream:
        """The streams of a container's application; ``replay`` begins with all that it has written so far."""
        asked = {"stream": 1, "stdin": int(stdin), "stdout": 1, "stderr": 1, "logs": int(replay)}
        query = "&".join(f"{name}={value}" for name, value in asked.items())
        return self._upgrade(f"/containers/{identity}/attach?{query}", b"")

    def start_execution(self, identity: str, *, terminal: bool) -> Stream:
        """Start a command that was made by `execution`; its streams."""
        return self._upgrade(f"/exec/{identity}/start", json.dumps({"Detach": False, "Tty": terminal}).encode())

    def _upgrade(self, where: str, body: bytes) -> Stream:
        try:
            connection = engines.connected(self._host)
        except OSError as error:
            raise Refused(f"the Docker Engine does not answer: {error}") from error
        try:
            connection.settimeout(self._timeout_seconds)
            head = f"POST /v{self._api.api_version}{where} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n"
            head += f"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            received = b""
            while HEAD_END not in received and len(received) < LONGEST_HEAD:
                if not (more := connection.recv(LONGEST_HEAD)):
                    break
                received += more
            head_received, _, rest = received.partition(HEAD_END)
            status = head_received.split(b" ", 2)[1:2]
            if status != [b"101"]:
                raise _refusal(rest, int(status[0]) if status and status[0].isdigit() else 0)
            connection.settimeout(None)
        except OSError as error:
            connection.close()
            raise Refused(f"the Docker Engine does not answer: {error}") from error
        except BaseException:
            connection.close()
            raise
        return Stream(connection, rest)

    def close(self) -> None:
        """Let go of its connections. Idempotent."""
        self._api.close()


class Stream:
    """A connection that carries bytes both ways, the first of which may have arrived with the answer's head."""

    def __init__(self, connection: socket.socket, begun: bytes) -> None:
        self._connection = connection
        self._begun = begun

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, as soon as there are any; nothing at the end, or when it was closed."""
        if self._begun:
            found, self._begun = self._begun[:size], self._begun[size:]
            return found
        try:
            return self._connection.recv(size)
        except OSError:
            return b""

    def unread(self, data: bytes) -> None:
        """Let ``data`` be what is read next."""
        self._begun = data + self._begun

    def read_exactly(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end."""
        found = b""
        while len(found) < size and (more := self.read(size - len(found))):
            found += more
        return found

    def write(self, data: bytes) -> bool:
        """Whether all of it could be sent."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def end_input(self) -> None:
        """Nothing more will be written."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """Whoever reads is woken. Idempotent."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._connection.close()


@contextmanager
def _refusals() -> Iterator[None]:
    """Docker's errors, and those of the way to it, as ours."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except APIError as error:
        said = str(error.explanation or error).strip()
        status = error.response.status_code if error.response is not None else 0
        raise Refused(said, status) from error
    except (DockerException, RequestException, OSError) as error:
        raise Refused(f"the Docker Engine does not answer: {error}") from error


def _refusal(body: bytes, status: int) -> Refused:
    """Of the body of an answer that is no upgrade; a chunked one has its length in front."""
    start, end = body.find(b"{"), body.rfind(b"}")
    try:
        return Refused(str(json.loads(body[start : end + 1])["message"]), status)
    except (ValueError, KeyError, TypeError):
        return Refused(body.decode(errors="replace").strip() or "the Docker Engine gave no answer", status)


def until_it_answers(path: Path, ended: Any, log: Path) -> Client:
    """A client of the Engine behind ``path``, as soon as that answers. ``ended`` says whether its process has.

    Raises LabError with its last words when it ends, or takes more than a minute, and more yet on an emulated host.
    """
    deadline = Deadline(START_SECONDS)
    while True:
        if path.exists():
            try:
                return Client.connect(path)
            except Refused:
                pass
        if ended() or not deadline.left():
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise LabError(f"a Docker Engine does not start here: {' '.join(last)}", hint="lab doctor")
        time.sleep(0.02)
