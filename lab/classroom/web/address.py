"""Where pages are served: one address of this host's, IPv4 or IPv6, and the names by which a browser asks for it."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from lab.errors import LabError, UsageError

LOOPBACK = "127.0.0.1"
BACKLOG = 512
HTTP_PORT = 80
SIOCGIFADDR = 0x8915  # netdevice(7)
IF_INET6 = Path("/proc/net/if_inet6")
Address = IPv4Address | IPv6Address


def own_addresses() -> list[tuple[Address, str]]:
    """The addresses of this host's interfaces that a browser can be told, each with its interface: of IPv4 by
    netdevice(7), SIOCGIFADDR; of IPv6 by ipv6(7), ``/proc/net/if_inet6``, without link-local ones.
    """
    return [*_own_ipv4(), *_own_ipv6()]


def _own_ipv4() -> Iterator[tuple[Address, str]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has none
            yield IPv4Address(answer[20:24]), name


def _own_ipv6() -> Iterator[tuple[Address, str]]:
    try:
        lines = IF_INET6.read_text().splitlines()
    except OSError:  # the kernel has no IPv6
        return
    for line in lines:
        address, name = IPv6Address(bytes.fromhex(line.split()[0])), line.split()[-1]
        if not address.is_link_local:
            yield address, name


def listen(bind: str, port: int) -> socket.socket:
    """A socket that listens on one address of this host's, IPv4 or IPv6, in brackets or not: whoever connects waits
    until it is served.

    Raises UsageError, LabError.
    """
    address = _address(bind)
    listening = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((str(address), port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"{bind} is no address of this host", hint=_ours()) from error
        hint = "--port N takes another" if error.errno == errno.EADDRINUSE else "--port N: 1024 at least without root"
        raise LabError(f"{address} can't be served at port {port}: {error.strerror}", hint=hint) from error
    return listening


def _address(bind: str) -> Address:
    plain = bind[1:-1] if bind.startswith("[") and bind.endswith("]") else bind
    try:
        address = ip_address(plain)
    except ValueError as error:
        raise UsageError(f"{bind!r} is no IPv4 or IPv6 address", hint=_ours()) from error
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified:  # then any name could be ours, and the picture to be scanned would lead nowhere
        raise UsageError("every address at once is too many", hint=f"name one: {_ours()}")
    if isinstance(address, IPv6Address) and address.is_link_local:
        raise UsageError(f"no browser can be led to {bind}, which is link-local", hint=f"name another one: {_ours()}")
    return address


def _ours() -> str:
    return "--bind with one of: " + ", ".join(f"{address} ({name})" for address, name in own_addresses())


def url(listening: socket.socket) -> str:
    """What a browser is told: ``http://198.18.0.7:8765``, ``http://[2001:db8::7]:8765`` (RFC 3986, section 3.2.2)."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"


def hosts(address: str) -> frozenset[str]:
    """The values of Host that a browser sends which was told the ``address`` of `url`; on loopback, localhost's too.

    A browser leaves out the port that is HTTP's own (WHATWG URL, "default port").
    """
    name, _, port = address.removeprefix("http://").rpartition(":")
    names = {name}
    if ip_address(name.strip("[]")).is_loopback:
        names |= {"localhost", *([LOOPBACK] if name.startswith("127.") else [])}
    with_port = {f"{each}:{port}" for each in names}
    return frozenset(with_port | names if int(port) == HTTP_PORT else with_port)
