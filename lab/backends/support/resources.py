"""What one instance holds of the host: released in reverse order, each even if another fails, then verified."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.instance import LaunchRequest
from lab.model import Limits, PublishedPort
from lab.runtime.cgroup.instances import limited

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts
    from lab.network.network import Endpoint, Network, TapEndpoint

log = logging.getLogger(__name__)


class InstanceResources:
    """The cgroup, scratch space, network endpoint and published ports of one instance.

    All lie below what the session's ledger lists (``lab/<session>`` and ``<home>/tmp/<session>``) or end with
    this process, so none needs a line of its own.
    """

    def __init__(self, site: SharedParts, request: LaunchRequest) -> None:
        self.name = request.name
        self.stack = ExitStack()
        self.address = IPv4Address(0)  # until an endpoint is made
        self.published: tuple[PublishedPort, ...] = ()
        self._site = site
        self.request = request

    @classmethod
    def adopt(cls, site: SharedParts, request: LaunchRequest, address: IPv4Address) -> InstanceResources:
        """What an instance holds that another process has launched. Its ports are opened anew: one that somebody
        else has taken meanwhile stays closed, and is only complained about.
        """
        resources = cls(site, request)
        resources.address = address
        resources.stack.callback(shutil.rmtree, site.scratch / request.name, ignore_errors=True)
        for wanted in request.published:
            try:
                resources._open(site.network, wanted)
            except LabError as error:
                log.warning("port %d of %s is not published again: %s", wanted.instance_port, request.name, error)
        return resources

    def reconnect(self, pid: int) -> None:
        """Give the namespace of process ``pid`` the endpoint that it lost with the session's network."""
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        endpoint = self.stack.enter_context(self._site.network.endpoint(namespace))
        if endpoint.address != self.address:
            raise LabError(f"{self.name} had address {self.address}, and would have {endpoint.address}")

    def make_scratch(self) -> Path:
        """A directory on the file system of the image store, as every backend's writable layer is: overlayfs
        wants upper and work on one real file system, and /run may be a tmpfs, which would count as memory.
        """
        directory = self._site.scratch / self.name
        directory.mkdir(mode=0o700)
        self.stack.callback(_remove_tree, directory)
        return directory

    def make_control_group(self, limits: Limits) -> ControlGroup:
        """The instance's cgroup, with ``limits`` set and read back. Raises LimitError."""
        group = limited(group_of(self._site.session.id, self.name), limits)
        self.stack.callback(_end_group, group)
        return group

    def make_endpoint(self) -> Endpoint:
        """A network namespace on the session's bridge, with the request's ports published."""
        network = self._site.network
        endpoint = self.stack.enter_context(network.endpoint())
        self._publish(network, endpoint)
        return endpoint

    def plug_into(self, pid: int, name: str = "") -> None:
        """Connect the network namespace that process ``pid`` has made to the session's bridge, with the request's
        ports published; its /etc/hosts, if it was given one, learns the address. Where it has links of somebody
        else's, ``name`` is what the further one is called. Raises LabError.
        """
        network = self._site.network
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        endpoint = self.stack.enter_context(network.endpoint(namespace, *([name] if name else [])))
        self._publish(network, endpoint)
        known = self._site.scratch / self.name / "hosts"
        if known.exists():
            known.write_text(self.hosts())

    def publish_at(self, address: IPv4Address) -> None:
        """Publish the request's ports of an instance that another has connected to the session's bridge."""
        self.address = address
        for wanted in self.request.published:
            self._open(self._site.network, wanted)

    def hosts(self) -> str:
        """What the instance's /etc/hosts says."""
        return f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{self.address}\t{self.name}\n"

    def make_tap(self) -> TapEndpoint:
        """A tap on the session's bridge, with the request's ports published."""
        network = self._site.network
        tap = self.stack.enter_context(network.tap())
        self._publish(network, tap)
        return tap

    def lease(self, tap: TapEndpoint, given: Callable[[float], None]) -> None:
        """Let a system behind ``tap`` get its address by DHCP; ``given`` is then called, from another thread."""
        from lab.network.dhcp import Card

        server = self._site.dhcp
        server.expect(Card(tap.mac, tap.address, given))
        self.stack.callback(server.forget, tap.mac)

    def _publish(self, network: Network, endpoint: Endpoint | TapEndpoint) -> None:
        """Open the ports asked for. Raises LabError when one is in use."""
        self.address = endpoint.address
        for wanted in self.request.published:
            self._open(network, wanted)

    def _open(self, network: Network, wanted: PublishedPort) -> None:
        opened = self.stack.enter_context(
            network.publish(wanted.host_port, self.address, wanted.instance_port, on=wanted.address)
        )
        self.published += (replace(wanted, host_port=opened.host_port),)

    def release(self) -> None:
        """Let go of everything. Idempotent. Raises LabError that names all that stayed."""
        try:
            self.stack.close()
        except (LabError, OSError) as error:
            complaints = []
            cause: BaseException | None = error
            while cause is not None:  # one failure while another was handled: ExitStack links them
                complaints.append(str(cause))
                cause = cause.__context__
            raise LabError(
                f"something of instance {self.name} survived", hint="lab clean", detail="\n".join(complaints)
            ) from error


def _end_group(group: ControlGroup) -> None:
    group.kill()
    group.remove()


def _remove_tree(directory: Path) -> None:
    shutil.rmtree(directory)
