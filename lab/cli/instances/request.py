"""Words of the command line that ``lab run`` and ``lab exec`` share, and what they mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lab.commands.options.application import parse_ready
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.model import PublishedPort, Readiness, Volume

LOOPBACK = "127.0.0.1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")  # it is the hostname too (hostname(7))


def parse_port(word: str) -> PublishedPort:
    """``8080:5000``, ``5000`` for any free port of the host, or ``0.0.0.0:8080:5000``. Raises UsageError.

    The address is one of the host's, an IPv6 one in brackets; without one it is 127.0.0.1, for this host alone.
    """
    from ipaddress import ip_address

    from lab.model import PublishedPort

    match _port_parts(word):
        case [instance]:
            address, host = LOOPBACK, "0"
        case [host, instance]:
            address = LOOPBACK
        case [address, host, instance]:
            host = host or "0"  # any free port of that address, as Docker has it
        case _:
            address = host = instance = ""
    numbers = [number for number in (host, instance) if number.isascii() and number.isdigit()]
    try:
        at, ports = str(ip_address(address)), [int(number) for number in numbers]
    except ValueError:
        at, ports = "", []
    if not at or len(ports) != 2 or max(ports) > 65535 or not ports[1]:
        raise UsageError(
            f"-p {word}: not [ADDRESS:]HOST_PORT:PORT", hint="write for example -p 8080:5000, or -p 0.0.0.0:8080:5000"
        )
    return PublishedPort(host_port=ports[0], instance_port=ports[1], address=at)


def parse_volume(word: str) -> Volume:
    """``HOST:PATH`` or ``HOST:PATH:ro``. The host's path is looked up once, here. Raises UsageError."""
    from lab.model import Volume

    source, _, rest = word.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or target == "/" or mode not in ("", "ro", "rw"):
        raise UsageError(f"-v {word}: not HOST:PATH[:ro]", hint="write for example -v ./data:/data:ro")
    if "/" not in source and not Path(source).exists():
        raise UsageError(
            f"-v {word}: there is no {source} here, and lab keeps no named volumes", hint=f"mkdir {source}"
        )
    found = Path(source).resolve()
    if not found.exists():
        raise UsageError(f"-v {word}: there is no {source} on this host", hint=f"mkdir -p {source}")
    return Volume(source=str(found), target=target, read_only=mode == "ro")


def parse_environment(words: list[str]) -> dict[str, str]:
    """``K=V`` each; a bare ``K`` takes lab's own value and is left out when there is none. Raises UsageError."""
    import os

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key:
            raise UsageError(f"-e {word}: no name before the =", hint="write for example -e GREETING=hello")
        if equals:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


def parse_knobs(words: list[str]) -> dict[str, str]:
    """``NAME=LEVEL`` each; which there are, the backend knows. Raises UsageError."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, level = word.partition("=")
        if not (name and equals and level):
            raise UsageError(f"--knob {word}: not NAME=LEVEL", hint="write for example --knob console=off")
        if name in found:
            raise UsageError(f"--knob {name} is given twice", hint="once is enough")
        found[name] = level
    return found


def parse_waited(ready: str, port: int | None) -> tuple[Readiness, int | None] | None:
    """What ``--ready`` and ``--port`` say, None where they say nothing. Raises UsageError."""
    from lab.model import HttpReadiness, LogReadiness, TcpReadiness

    if not ready:
        if port:
            raise UsageError("--port is what --ready asks", hint="--ready tcp, or --ready http:/path")
        return None
    readiness = parse_ready(ready)
    if not isinstance(readiness, HttpReadiness | TcpReadiness | LogReadiness):
        raise UsageError(f"--ready {ready} tells nothing here", hint="http:/path, tcp or log:REGEX")
    if isinstance(readiness, LogReadiness) == bool(port):
        wrong = "asks no port" if port else "asks a port"
        raise UsageError(f"--ready {ready} {wrong}", hint="leave out --port" if port else "--port N")
    return readiness, port


def _port_parts(word: str) -> list[str]:
    """``[::1]:8080:80`` in three, ``8080:80`` in two; any number of parts for what is no port."""
    if word.startswith("["):
        address, bracket, rest = word[1:].partition("]:")
        return [address, *rest.split(":")] if bracket else [word]
    return word.split(":")
