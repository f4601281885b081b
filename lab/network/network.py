"""One session's network: a namespace with a bridge, and an endpoint on it for every instance.

```
host ── 127.0.0.1:8080 ┄ publish.py ┄┐
                                     ┊
lab's namespace    client ── lab0 198.18.0.1/15
                              ├── veth1 ── eth0 198.18.0.2   namespace of a process or container
                              └── tap2  ── virtio-net 198.18.0.3   guest of a VM
```

Two sessions use the same addresses without meeting, since their namespaces are separate. The addresses are the
range set aside for benchmarks (RFC 2544, section C.2.2). Nothing routes out of it: an instance that tries to
reach the internet is refused at once by its own kernel. Every endpoint gets an address never used before in the
session, so that no connection in TIME_WAIT of an earlier instance meets a later one.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TypeVar

from lab.errors import LabError
from lab.host.closing import Closing
from lab.network.links import ENDPOINT_NAME, Links
from lab.network.namespace import OWN_NAMESPACE, Namespace
from lab.network.publish import LOOPBACK, Publication, Publisher

T = TypeVar("T")

SUBNET = IPv4Network("198.18.0.0/15")
BRIDGE = "lab0"
OURS = re.compile(r"(?:veth|tap)(\d{1,6})")
"""A link of lab's, with its number; another's that has a place on the bridge has a longer name."""

ANOTHERS = IPv4Network("198.19.128.0/17")
"""The addresses of `SUBNET` that lab gives to nobody: for what connects instances to the bridge by itself."""


class Endpoint(Closing):
    """A network namespace for one instance: ``eth0`` on lab's bridge with ``address``, and a loopback."""

    def __init__(self, network: Network, link: str, address: IPv4Interface, namespace: Namespace) -> None:
        self.address: IPv4Address = address.ip
        self.prefix_length: int = address.network.prefixlen
        self.mac = mac_of(address.ip)
        self.namespace = namespace
        self._network = network
        self._link = link

    @property
    def path(self) -> Path:
        """The namespace as a path other processes can open while this endpoint lives."""
        return self.namespace.path

    def close(self) -> None:
        """Remove the pair, and let go of the namespace. Idempotent. Raises LabError if the link stays."""
        self._network._release(self._link, self.address)
        self.namespace.close()


class TapEndpoint(Closing):
    """A tap on lab's bridge for one VM, whose guest shall use ``mac`` and ``address``."""

    def __init__(self, network: Network, tap: str, address: IPv4Interface) -> None:
        self.tap = tap
        self.address: IPv4Address = address.ip
        self.prefix_length: int = address.network.prefixlen
        self.mac = mac_of(address.ip)
        self._network = network

    def open(self, *, with_headers: bool = False) -> int:
        """A descriptor of the tap, the caller's, for a program that can't open it by itself, whose packets go in and
        out with virtio's headers or without. Raises LabError.
        """
        return self._network._in_worker(lambda: self._network._links.open_tap(self.tap, with_headers=with_headers))

    def close(self) -> None:
        """Remove the tap. Idempotent. Raises LabError if it stays."""
        self._network._release(self.tap, self.address)


class Network(Closing):
    """The network of one session. Thread-safe; a context manager."""

    def __init__(self, worker: ThreadPoolExecutor, namespace: Namespace, links: Links, bridge: int) -> None:
        self.namespace = namespace
        self.address = IPv4Address(SUBNET.network_address + 1)
        self._worker = worker  # one thread that lives in the namespace and makes every link
        self._links = links
        self._bridge = bridge
        self._numbers = itertools.count(1)
        self._publisher: Publisher | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._closed = False
        self.clients: frozenset[int] = frozenset()  # the CPUs that load clients are kept to; empty: to none

    @classmethod
    def create(cls) -> Network:
        """Make the namespace and its bridge. Raises LabError without the privilege."""
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-network")

        def make() -> Network:
            with ExitStack() as undo:
                namespace = undo.enter_context(Namespace.unshare())
                links = Links()
                undo.callback(links.close)
                links.set_up_loopback()
                first = SUBNET.network_address + 1
                bridge = links.make_bridge(BRIDGE, mac_of(first), _interface(first))
                undo.pop_all()
                return cls(worker, namespace, links, bridge)

        try:
            return worker.submit(make).result()
        except BaseException:
            worker.shutdown()
            raise

    @classmethod
    def adopt(cls, descriptor: int) -> Network:
        """The network that lives in the namespace ``descriptor``, made by a process that has died.

        The descriptor is the network's from now on. Raises LabError when there is no bridge in it, or when it is the
        namespace of this process, the host's: closing a network removes every link in it.
        """
        if os.path.samestat(os.fstat(descriptor), Path(OWN_NAMESPACE).stat()):
            raise LabError("the host's own network can't be taken over")
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-network")

        def enter() -> Network:
            with ExitStack() as undo:
                namespace = undo.enter_context(Namespace(descriptor))
                namespace.enter()
                links = Links()
                undo.callback(links.close)
                network = cls(worker, namespace, links, links.index_of(BRIDGE))
                used = [int(found[1]) for name in links.names() if (found := OURS.fullmatch(name))]
                network._numbers = itertools.count(max(used, default=0) + 1)
                undo.pop_all()
                return network

        try:
            return worker.submit(enter).result()
        except BaseException:
            worker.shutdown()
            raise

    def endpoint(self, existing: int | None = None, name: str = ENDPOINT_NAME) -> Endpoint:
        """A fresh namespace on the bridge, ready to be entered; about 3 ms. Raises LabError.

        ``existing`` is a namespace that has lost its network and gets a new pair, or one that has links of another's
        and gets one more, called ``name`` there; the descriptor is the endpoint's.
        """
        return self._in_worker(lambda: self._make_endpoint(existing, name))

    def tap(self) -> TapEndpoint:
        """A fresh tap on the bridge, ready to be opened by a VMM started through `run_in`. Raises LabError."""
        return self._in_worker(self._make_tap)

    def run_in(self, function: Callable[[], T]) -> T:
        """Call ``function`` in a thread of its own inside the namespace; see `Namespace.run`."""
        return self.namespace.run(function)

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
        """A socket that lives in the namespace, for any thread: it reaches every endpoint's address."""
        return self.run_in(lambda: socket.socket(family, kind, protocol))

    def publish(self, host_port: int, address: IPv4Address, port: int, *, on: str = LOOPBACK) -> Publication:
        """Make ``host_port`` (0: any free one) of ``on``, an address of the host's, lead to ``address:port`` in here.

        Raises LabError when the port is in use, or the address is not the host's.
        """
        if self._publisher is None:
            self._publisher = Publisher(self.namespace)
        return self._publisher.publish(host_port, address, port, on=on)

    def links(self) -> set[str]:
        """The links in the namespace: what is not ``lo`` or the bridge belongs to an instance."""
        return self._in_worker(self._links.names)

    def close(self) -> None:
        """Stop publishing, remove the bridge and what is still on it, let go of the namespace. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as stack:
            stack.callback(self.namespace.close)
            for endpoint in self._endpoints.values():
                stack.callback(endpoint.namespace.close)
            stack.callback(self._worker.shutdown)
            stack.callback(lambda: self._worker.submit(self._remove_links).result())
            if self._publisher is not None:
                stack.callback(self._publisher.close)

    # In the worker

    def _make_endpoint(self, existing: int | None, name: str) -> Endpoint:
        number = next(self._numbers)
        link, address = f"veth{number}", _interface(self.address + number)
        with ExitStack() as undo:
            try:
                namespace = undo.enter_context(Namespace.unshare() if existing is None else Namespace(existing))
                namespace.enter()
                inner = Links()
                try:
                    # A netlink socket stays in the namespace it was opened in, whichever the thread is in.
                    self._links.make_veth(link, self._bridge, namespace.descriptor, mac_of(address.ip), name)
                    undo.callback(self._links.remove, link)
                    inner.set_up_endpoint(address, existing is not None, name)
                finally:
                    inner.close()
            finally:
                self.namespace.enter()
            self._links.add_neighbour(self._bridge, address, mac_of(address.ip))
            undo.pop_all()
        endpoint = self._endpoints[link] = Endpoint(self, link, address, namespace)
        return endpoint

    def _make_tap(self) -> TapEndpoint:
        number = next(self._numbers)
        tap, address = f"tap{number}", _interface(self.address + number)
        with ExitStack() as undo:
            undo.callback(self._links.remove, tap)
            self._links.make_tap(tap, self._bridge)
            self._links.add_neighbour(self._bridge, address, mac_of(address.ip))
            undo.pop_all()
        return TapEndpoint(self, tap, address)

    def _release(self, link: str, address: IPv4Address) -> None:
        if not self._closed:  # closing removes every link at once
            self._in_worker(lambda: self._remove_link(link, address))

    def _remove_link(self, link: str, address: IPv4Address) -> None:
        self._endpoints.pop(link, None)
        self._links.remove(link)
        self._links.remove_neighbour(self._bridge, _interface(address), mac_of(address))

    def _remove_links(self) -> None:
        try:
            for link in self._links.names() - {"lo"}:
                self._links.remove(link)
        finally:
            self._links.close()

    def _in_worker(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise LabError("the session's network is closed")
        return self._worker.submit(function).result()


def mac_of(address: IPv4Address) -> str:
    """A locally administered address made from the IP: ``02:4c`` and its four bytes (IEEE 802, section 8.2)."""
    return ":".join(["02", "4c", *(f"{byte:02x}" for byte in address.packed)])


def _interface(address: IPv4Address) -> IPv4Interface:
    if address not in SUBNET or address in ANOTHERS:
        raise LabError(f"all addresses of {SUBNET} are used up", hint="start a new session")
    return IPv4Interface(f"{address}/{SUBNET.prefixlen}")
