"""Network devices that are moved into a container's network namespace (config-linux.md "Network Devices").

The kernel takes a device down when it changes its namespace, and forgets its addresses. So those that are permanent
and of global scope are noted before, and given back, and it is set up. When the namespace ends, the kernel gives a
physical device back to the first one and removes a virtual one; nobody here does anything then.

By rtnetlink(7) itself, as no library of lab's is for processes as small as lab-oci's.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from lab.host import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NETLINK_ROUTE = 0
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_GETLINK, RTM_SETLINK, RTM_NEWADDR, RTM_GETADDR = 18, 19, 20, 22
REQUEST, ACK, CREATE, EXCLUSIVE, DUMP = 0x1, 0x4, 0x400, 0x200, 0x300
IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS = 3, 6, 8  # a label begins with the old name, and times are the kernel's
IFA_F_PERMANENT, RT_SCOPE_UNIVERSE, IFF_UP = 0x80, 0, 1
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
LARGEST_ANSWER_BYTES = 1 << 20

Address = tuple[bytes, dict[int, bytes]]  # its ifaddrmsg, and its attributes


def move(devices: Mapping[str, str], source: str, target: str) -> dict[str, str]:
    """Move each of ``devices`` from the network namespace at ``source`` to that at ``target``, under its new name.

    A name may hold ``%d``, for the kernel to choose a number. The names that they have now, with those that they had.
    Raises OSError with the name of the device; those before it have been moved then, and are moved back.
    """
    moved: dict[str, str] = {}
    here, there = _Routes(source), _Routes(target)
    try:
        for name, wanted in devices.items():
            try:
                moved[_move_one(here, there, name, wanted or name, source, target)] = name
            except OSError as error:
                raise OSError(error.errno, error.strerror, name) from error
    except OSError:
        if moved:
            move(moved, target, source)
        raise
    finally:
        here.close()
        there.close()
    return moved


def _move_one(here: _Routes, there: _Routes, name: str, wanted: str, source: str, target: str) -> str:
    index = here.links().get(name)
    if index is None:
        raise OSError(errno.ENODEV, "there is no such network device")
    before = there.links()
    if wanted in before:
        raise OSError(errno.EEXIST, f"the container has a network device {wanted}")
    addresses = [address for address in here.addresses(index) if _is_lasting(address)]
    here.hand_over(index, wanted, target)
    now, index = next((name, each) for name, each in there.links().items() if before.get(name) != each)
    try:
        _bring_up(there, index, addresses)
    except OSError:
        there.hand_over(index, name, source)  # with the container's namespace a virtual device would end
        _bring_up(here, here.links()[name], addresses)
        raise
    return now


def _bring_up(routes: _Routes, index: int, addresses: list[Address]) -> None:
    for address in addresses:
        routes.add(index, address)
    routes.set_up(index)


def _is_lasting(address: Address) -> bool:
    header, attributes = address
    _, _, flags, scope, _ = ADDRESS.unpack(header)
    if IFA_FLAGS in attributes:
        (flags,) = struct.unpack("=I", attributes[IFA_FLAGS])
    return bool(flags & IFA_F_PERMANENT) and scope == RT_SCOPE_UNIVERSE


class _Routes:
    """A conversation with the kernel about one network namespace, which the socket keeps whoever joins another."""

    def __init__(self, namespace: str) -> None:
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        other = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(other, syscalls.CLONE_NEWNET)
            try:
                self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, NETLINK_ROUTE)
            finally:
                syscalls.setns(own, syscalls.CLONE_NEWNET)
        finally:
            os.close(own)
            os.close(other)
        self._count = 0

    def close(self) -> None:
        self._socket.close()

    def links(self) -> dict[str, int]:
        """The devices by name."""
        found = {}
        for payload in self._ask(RTM_GETLINK, DUMP, LINK.pack(0, 0, 0, 0, 0)):
            _, _, index, _, _ = LINK.unpack_from(payload)
            attributes = _attributes(payload[LINK.size :])
            found[os.fsdecode(attributes[IFLA_IFNAME].rstrip(b"\0"))] = index
        return found

    def addresses(self, index: int) -> list[Address]:
        """Those of one device."""
        every = self._ask(RTM_GETADDR, DUMP, ADDRESS.pack(0, 0, 0, 0, 0))
        mine = [payload for payload in every if ADDRESS.unpack_from(payload)[4] == index]
        return [(payload[: ADDRESS.size], _attributes(payload[ADDRESS.size :])) for payload in mine]

    def hand_over(self, index: int, name: str, namespace: str) -> None:
        """Put the device into the namespace, and call it so."""
        opened = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            wanted = _attribute(IFLA_NET_NS_FD, struct.pack("=I", opened))
            wanted += _attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
            self._ask(RTM_SETLINK, ACK, LINK.pack(0, 0, index, 0, 0) + wanted)
        finally:
            os.close(opened)

    def add(self, index: int, address: Address) -> None:
        """Give the device an address."""
        header, attributes = address
        family, length, flags, scope, _ = ADDRESS.unpack(header)
        payload = ADDRESS.pack(family, length, flags, scope, index)
        for kind, value in attributes.items():
            if kind not in (IFA_LABEL, IFA_CACHEINFO):
                payload += _attribute(kind, value)
        self._ask(RTM_NEWADDR, ACK | CREATE | EXCLUSIVE, payload)

    def set_up(self, index: int) -> None:
        """Let it carry packets."""
        self._ask(RTM_SETLINK, ACK, LINK.pack(0, 0, index, IFF_UP, IFF_UP))

    def _ask(self, kind: int, flags: int, payload: bytes) -> list[bytes]:
        """What the kernel answers, up to its last word. Raises OSError for a refusal."""
        self._count += 1
        size = HEADER.size + len(payload)
        self._socket.send(HEADER.pack(size, kind, REQUEST | flags, self._count, 0) + payload)
        found: list[bytes] = []
        while True:
            answer = self._socket.recv(LARGEST_ANSWER_BYTES)
            for answered, content in _messages(answer):
                if answered == NLMSG_DONE:
                    return found
                if answered == NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", content)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return found
                found.append(content)


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(answer):
        size, kind, _, _, _ = HEADER.unpack_from(answer, place)
        yield kind, answer[place + HEADER.size : place + size]
        place += size + 3 & ~3


def _attributes(text: bytes) -> dict[int, bytes]:
    found, place = {}, 0
    while place + ATTRIBUTE.size <= len(text):
        size, kind = ATTRIBUTE.unpack_from(text, place)
        found[kind & 0x3FFF] = text[place + ATTRIBUTE.size : place + size]  # without NLA_F_NESTED and its like
        place += size + 3 & ~3
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    size = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)
