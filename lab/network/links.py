"""Links, addresses and neighbours, by netlink (rtnetlink(7)). The only import of pyroute2: its ``Any`` stops here.

An IPRoute opens its socket lazily and per thread, so every call must come from the thread that lives in the
namespace meant: a call from another would change the network of *that* thread, the host's for the main one.
`Links` refuses to be called from anywhere but the thread that made it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lab.errors import LabError
from lab.host.identity import privilege

LOOPBACK_INDEX = 1
ENDPOINT_INDEX = 2
ENDPOINT_NAME = "eth0"

# linux/if_tun.h, linux/neighbour.h
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
NUD_PERMANENT = 0x80
TUN_DEVICE = "/dev/net/tun"


class Links:
    """The links of the namespace that the calling thread is in; for that thread alone."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._route: Any = IPRoute()

    def close(self) -> None:
        """Close the netlink socket. Idempotent."""
        self._own_thread().close()

    def make_bridge(self, name: str, mac: str, address: IPv4Interface) -> int:
        """A bridge that forwards from the first packet on: no spanning tree, no learning phase. Returns its index."""
        with _told(f"bridge {name}"):
            route = self._own_thread()
            route.link(
                "add", ifname=name, kind="bridge", address=mac, state="up",
                br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0,
            )  # fmt: skip
            index = self.index_of(name)
            route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            return index

    def make_veth(self, name: str, bridge: int, namespace: int, mac: str, inside: str = ENDPOINT_NAME) -> None:
        """A veth pair: ``name`` here on the bridge; ``inside`` with ``mac`` in the namespace held by ``namespace``.

        An ``eth0`` has the same number in each; any other name is for a namespace in which somebody has links.
        """
        peer = {"ifname": inside, "net_ns_fd": namespace, "address": mac}
        if inside == ENDPOINT_NAME:
            peer["index"] = ENDPOINT_INDEX
        with _told(f"veth {name}"):
            self._own_thread().link("add", ifname=name, kind="veth", master=bridge, state="up", peer=peer)

    def make_tap(self, name: str, bridge: int) -> None:
        """A persistent tap, up, on the bridge, that is opened by its name for a VMM.

        It is root's: one that is nobody's is anybody's on many kernels (tun_not_capable of drivers/net/tun.c).
        """
        with _told(f"tap {name}", hint="modprobe tun; ls -l /dev/net/tun"):
            route = self._own_thread()
            descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
            try:
                request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
                fcntl.ioctl(descriptor, TUNSETIFF, request)
                fcntl.ioctl(descriptor, TUNSETOWNER, privilege.user_id())
                fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
            finally:
                os.close(descriptor)
            route.link("set", index=self.index_of(name), master=bridge, state="up")

    def open_tap(self, name: str, *, with_headers: bool = False) -> int:
        """A descriptor, the caller's, of one that `make_tap` made, for a program that can't open it by itself.

        Packets go in and out without a header, or ``with_headers`` of virtio's.
        """
        with _told(f"tap {name}"):
            self._own_thread()
            flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if with_headers else 0)
            descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    def set_up_endpoint(self, address: IPv4Interface, again: bool = False, name: str = ENDPOINT_NAME) -> None:
        """In an endpoint's namespace: loopback up, ``eth0``, or ``name``, up with its address.

        A namespace that has had an ``eth0`` before gives the new one ``again`` another number than the first.
        """
        index = self.index_of(name) if again else ENDPOINT_INDEX
        with _told(f"endpoint {address}"):
            route = self._own_thread()
            route.link("set", index=LOOPBACK_INDEX, state="up")
            route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            route.link("set", index=index, state="up")

    def set_up_loopback(self) -> None:
        with _told("loopback"):
            self._own_thread().link("set", index=LOOPBACK_INDEX, state="up")

    def add_neighbour(self, link: int, address: IPv4Interface, mac: str) -> None:
        """Tell this namespace where ``address`` is, so that the first packet needs no ARP."""
        with _told(f"neighbour {address.ip}"):
            self._own_thread().neigh("replace", dst=str(address.ip), lladdr=mac, ifindex=link, state=NUD_PERMANENT)

    def remove_neighbour(self, link: int, address: IPv4Interface, mac: str) -> None:
        """Forget it; nothing happens when it is not known."""
        with _told(f"neighbour {address.ip}", ignore=(errno.ENOENT,)):
            self._own_thread().neigh("del", dst=str(address.ip), lladdr=mac, ifindex=link)

    def remove(self, name: str) -> None:
        """Remove a link; a veth takes its peer along. Nothing happens when it is gone."""
        with _told(f"link {name}", ignore=(errno.ENODEV,)):
            self._own_thread().link("del", ifname=name)

    def names(self) -> set[str]:
        """Every link here."""
        with _told("links"):
            return {link.get_attr("IFLA_IFNAME") for link in self._own_thread().get_links()}

    def index_of(self, name: str) -> int:
        """The number of a link that is there. Raises LabError when it is not."""
        found: list[int] = self._own_thread().link_lookup(ifname=name)
        if not found:
            raise LabError(f"there is no link {name}")
        return found[0]

    def _own_thread(self) -> Any:
        if threading.get_ident() != self._thread:
            raise RuntimeError("Links belongs to the thread that made it: another may live in another namespace")
        return self._route


@contextmanager
def _told(what: str, *, hint: str = "", ignore: tuple[int, ...] = ()) -> Iterator[None]:
    """Turn the kernel's refusal into a LabError that says what was refused."""
    try:
        yield
    except NetlinkError as error:
        if error.code not in ignore:
            raise LabError(f"the kernel refused {what}: {os.strerror(error.code)}", hint=hint) from error
    except OSError as error:
        raise LabError(f"can't make {what}: {error}", hint=hint) from error
