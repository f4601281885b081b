"""What a session made in somebody else's Docker Engine, found by the session's own label and name, and removed.

An engine that runs already is only touched where ``--docker HOST`` names it, and there nothing but containers with
the label of the session, and images with its name. No other is changed; nothing is pulled or pruned.

It lies beside the ledger, which removes these after lab was killed: standard library only, and quick. What a copy is
started and watched by is `lab.backends.engine.client`.
Source: Docker Engine API v1.41 (ContainerList, ContainerDelete, ImageList, ImageDelete); unix(7).
"""

from __future__ import annotations

import ipaddress
import json
import socket
import stat
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from lab.errors import LabError, UsageError
from lab.host.identity import privilege

LABEL = "lab.session"
REPOSITORY = "lab-session-{session}"
SECONDS = 60.0
UNIX, TCP = "unix://", "tcp://"
HINT = "--docker unix:///var/run/docker.sock, or tcp://127.0.0.1:2375"
GONE = 404
CREDENTIALS = struct.Struct("iII")  # of a process: its id, user and group
FORBIDDEN = "\n,"  # in a path: a line of the ledger, and a list of backends, end with these


def checked(host: str) -> str:
    """``host`` as it is used and recorded: a socket's path, or a TCP port of this host.

    Raises UsageError for any other: over TCP without TLS whoever listens is root there, and the containers of another
    host are no processes of this one, so that nothing of them could be measured.
    """
    scheme, mark, rest = host.partition("://")
    if not mark and host.startswith("/"):
        scheme, rest = "unix", host
    if scheme == "unix" and rest.startswith("/") and not set(rest) & set(FORBIDDEN):
        return f"{UNIX}{rest}"
    if scheme == "tcp":
        name, _, port = rest.rstrip("/").rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            raise UsageError(f"--docker {host} names no port", hint=HINT)
        if not _is_loopback(name):
            raise UsageError(
                f"--docker {host}: only an engine of this host can be measured, and over TCP without TLS anybody on "
                "the way could be root there",
                hint=HINT,
            )
        return f"{TCP}{name}:{port}"
    if scheme in ("ssh", "http", "https", "npipe"):
        raise UsageError(
            f"--docker {host}: only an engine of this host can be measured, over its socket or its loopback",
            hint=HINT,
        )
    raise UsageError(f"--docker {host} is no address of a Docker Engine", hint=HINT)


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def version(host: str) -> str:
    """What the engine calls its version. Raises LabError when none answers."""
    found = _ask(host, "GET", "/version")
    try:
        return str(found["Version"])
    except (KeyError, TypeError) as error:
        raise LabError(f"what answers at {host} is no Docker Engine") from error


def repository(session: str) -> str:
    """The name under which that session's images are known there."""
    return REPOSITORY.format(session=session)


def noted(host: str, session: str) -> str:
    """What a ledger writes down of the two."""
    return f"{session} {host}"


def told(name: str) -> tuple[str, str]:
    """The host and the session of what was `noted`."""
    session, _, host = name.partition(" ")
    return host, session


def is_of(name: str, session: str) -> bool:
    """Whether that is what ``session`` can have noted. Raises UsageError for what is no engine's address."""
    host, whose = told(name)
    return whose == session and checked(host) == host


def may_hold(name: str) -> bool:
    """Whether anything is there of what was `noted`, or the engine does not say."""
    try:
        return exists(*told(name))
    except LabError:
        return True


def exists(host: str, session: str) -> bool:
    """Whether anything of the session is there. Raises LabError when the engine does not say."""
    return bool(_containers(host, session) or _names(host, session))


def remove(host: str, session: str) -> None:
    """Kill and remove the session's containers, with the volumes that were made for them, then its images' names.

    An image that has another name, or had one before, stays under it. Raises LabError.
    """
    for identity in _containers(host, session):
        _ask(host, "DELETE", f"/containers/{identity}?force=1&v=1", may_be_gone=True)
    for name in _names(host, session):
        forget_image(host, name)


def forget_image(host: str, name: str) -> None:
    """Remove one name of the session's, and with the last name the image. Nothing if it is gone. Raises LabError."""
    _ask(host, "DELETE", f"/images/{quote(name, safe='')}?noprune=1", may_be_gone=True)


def _containers(host: str, session: str) -> list[str]:
    query = urlencode({"all": 1, "filters": json.dumps({"label": [f"{LABEL}={session}"]})})
    found = _ask(host, "GET", f"/containers/json?{query}")
    return [str(each["Id"]) for each in found if (each.get("Labels") or {}).get(LABEL) == session]


def _names(host: str, session: str) -> list[str]:
    wanted = repository(session)
    query = urlencode({"filters": json.dumps({"reference": [wanted]})})
    found = _ask(host, "GET", f"/images/json?{query}")
    names = (str(name) for each in found for name in each.get("RepoTags") or ())
    return [name for name in names if name.partition(":")[0] == wanted]


def _ask(host: str, method: str, where: str, *, may_be_gone: bool = False) -> Any:
    """What the engine answers, as JSON; None where it answers nothing. Raises LabError."""
    from http import client  # slow to import, and hardly ever needed

    connection = client.HTTPConnection("docker", timeout=SECONDS)
    try:
        connection.sock = connected(host)
        connection.request(method, where, headers={"Host": "docker"})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, client.HTTPException) as error:
        raise LabError(
            f"the Docker Engine at {host} does not answer: {error}", hint="start it, then: lab clean"
        ) from error
    finally:
        connection.close()
    if answer.status >= 400 and not (may_be_gone and answer.status == GONE):
        raise LabError(f"the Docker Engine at {host} refuses {method} {where.partition('?')[0]}: {_said(body)}")
    try:
        return json.loads(body) if body else None
    except ValueError as error:
        raise LabError(f"what answers at {host} is no Docker Engine") from error


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip()


def connected(host: str) -> socket.socket:
    """A connection to ``host``, as `checked` has it. Raises OSError.

    A socket, and the program that listens there, have to be root's or of whoever runs lab. The program is asked about
    once it is connected to: a path may be exchanged before (unix(7), SO_PEERCRED: the process that called listen).
    """
    if host.startswith(TCP):
        name, _, port = host.removeprefix(TCP).rpartition(":")
        return socket.create_connection((name.strip("[]"), int(port)), SECONDS)
    path = host.removeprefix(UNIX)
    status = Path(path).stat()
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(f"{path} is no socket")
    trusted = (0, privilege.user_id())
    if status.st_uid not in trusted:
        raise PermissionError(f"{path} is neither root's nor yours")
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        found.settimeout(SECONDS)
        found.connect(path)
        listener = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        if CREDENTIALS.unpack(listener)[1] not in trusted:
            raise PermissionError(f"what listens at {path} is neither root's nor yours")
    except BaseException:
        found.close()
        raise
    return found
