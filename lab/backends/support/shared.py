"""What the instances of one session share, from the image store to the network.

Backends know these parts; `lab.backends.site.Site` knows the backends too. Parts that a session may never need (the
network, libvirt) are made at their first use. Everything hangs on one stack and is closed in reverse; the ledger
comes last and verifies.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lab.errors import LabError
from lab.host.cgroup import delegation
from lab.host.cgroup.given import as_given
from lab.host.cgroup.systemd import Scope
from lab.host.home import home as lab_home
from lab.host.identity import privilege
from lab.host.session import strays
from lab.host.session.ledger import Resource, ResourceKind, Session, clean_stale
from lab.model import Accelerator

if TYPE_CHECKING:  # imported when needed: the launcher starts while this process is still small
    from lab.hypervisor.domains.connection import Hypervisor
    from lab.images.store import Store
    from lab.network.dhcp import DhcpServer
    from lab.network.network import Network
    from lab.runtime.launcher.launcher import Launcher

log = logging.getLogger(__name__)


class SharedParts:
    """One session's shared parts. Made by `open`; thread-safe; a context manager."""

    def __init__(self, home: Path, session: Session, stack: ExitStack) -> None:
        self.home = home
        self.session = session
        self.scratch = home / "tmp" / session.id
        self._stack = stack
        self._lock = threading.RLock()
        self._launcher: Launcher | None = None
        self._store: Store | None = None
        self._network: Network | None = None
        self._dhcp: DhcpServer | None = None
        self._hypervisor: Hypervisor | None = None
        self._accelerator: Accelerator | None = None
        self.reconnected = False  # whether the launcher's process outlived a supervisor that was killed

    @classmethod
    def open(cls, *, detached: str = "") -> Self:
        """Remove what dead sessions left, then start a session of this process and its launcher.

        ``detached`` is the instance that this process supervises, if it does: it is to outlive the session of whoever
        started it. Raises LabError.
        """
        try:
            for line in clean_stale():
                log.info("removed what a dead session left: %s", line)
        except LabError as error:  # no reason not to work: `lab clean` says more
            log.error("lab: %s: %s", error.message, error.detail)
        with ExitStack() as stack:
            session = stack.enter_context(Session.open())
            site = cls(lab_home(), session, stack)
            if privilege.is_rootless():
                session.record(strays.own_namespace())
            if delegation.here():
                session.record(Resource(kind=ResourceKind.SCOPE, name=delegation.scope_of(session.id)))
            session.record(Resource(kind=ResourceKind.CGROUP, name=delegation.group_of(session.id)))
            session.make_directory(site.scratch)
            site._start_launcher(detached)
            site._stack = stack.pop_all()
        return site

    @classmethod
    def adopt(cls, directory: Path, *, namespace: int | None = None) -> Self:
        """Go on with the session of a detached instance whose owner was killed, with all that is left of it.

        ``namespace`` is a descriptor of its network, if somebody has saved one; it is the site's from now on.
        Raises LabError when the session can't be taken over.
        """
        from lab.runtime.launcher.adoption import reconnect
        from lab.runtime.spawner.detached import SOCKET

        # Nothing is unwound on a failure: what was not made here must stay, and the rest ends with the process.
        session, stack = Session.take_over(directory), ExitStack()
        if delegation.here():
            Scope.of(session.id).enter()
        stack.enter_context(session)
        site = cls(lab_home(), session, stack)
        found = reconnect(session.id, site.scratch / "containers", directory / SOCKET)
        if found is None:
            site._start_launcher(session.id)
        else:
            site._launcher, held = stack.enter_context(found[0]), found[1]
            site.reconnected = True
            for descriptor in held[1:] if namespace is None else held:
                os.close(descriptor)
            namespace = held[0] if namespace is None and held else namespace
        site._find_network(namespace)
        return site

    def _find_network(self, namespace: int | None) -> None:
        """The network in ``namespace``. Without one it is made anew at its first use."""
        from lab.network.network import Network

        if namespace is not None:
            self._network = self._stack.enter_context(Network.adopt(namespace))

    @property
    def network_lost(self) -> bool:
        """Whether an adopted instance has to be connected again."""
        return self._network is None

    def adopt_network_of(self, pid: int) -> None:
        """Find the network by a process that has kept it, unless it was found before: one that lives in it, or a VMM,
        which has no more of it than its tap.
        """
        from lab.network.namespace import namespace_of_tap

        if self._network is None:
            tap = namespace_of_tap(pid)
            own = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC) if tap is None else tap
            self._find_network(own)

    def _start_launcher(self, detached: str = "") -> None:
        """First of all parts: a small parent makes small, quick children, and its own end cleans up after us.

        A supervisor goes with it where it goes. A command that somebody waits for stays where it was typed.
        """
        from lab.runtime.launcher.launcher import Launcher

        self._launcher = self._stack.enter_context(
            Launcher.start(
                self.session.id,
                self.scratch / "containers",
                cleanup=strays.cleaner(self.session.directory) if privilege.is_rootless() else self.session.cleaner,
                company=[os.getpid()] if detached else [],
                description=f"lab instance {detached}" if detached else "",
            )
        )

    @property
    def launcher(self) -> Launcher:
        """The small process that forks containers."""
        assert self._launcher is not None, "shared parts are made by `open`"
        return self._launcher

    @property
    def store(self) -> Store:
        """The images."""
        with self._lock:
            if self._store is None:
                from lab.images.store import Store

                self._store = Store.open(self.home)
            return self._store

    @property
    def network(self) -> Network:
        """The session's network; made at the first use. Raises LabError without the privilege."""
        with self._lock:
            if self._network is None:
                from lab.network.network import Network

                self._network = self._stack.enter_context(Network.create())
            return self._network

    @property
    def dhcp(self) -> DhcpServer:
        """What gives addresses to systems that lab did not make."""
        with self._lock:
            if self._dhcp is None:
                from lab.network.dhcp import GROUP, DhcpServer
                from lab.runtime.cgroup.instances import limited

                Scope.of(self.session.id).open_to_children()  # it enters its group by itself
                group = delegation.group_of(self.session.id, GROUP)
                server = DhcpServer(self.network, lambda limits: limited(group, as_given(limits)))
                self._dhcp = self._stack.enter_context(server)
            return self._dhcp

    @property
    def hypervisor(self) -> Hypervisor:
        """The connection to libvirt; made at the first use. Raises BackendUnavailable."""
        with self._lock:
            if self._hypervisor is None:
                from lab.backends.support.vmm import vmm_filter
                from lab.hypervisor.domains.connection import Hypervisor

                Scope.of(self.session.id).open_to_children()  # a QEMU enters its group by itself
                opened = Hypervisor.open(home=self.home, seccomp=vmm_filter())
                self._hypervisor = self._stack.enter_context(opened)
            return self._hypervisor

    @property
    def accelerator(self) -> Accelerator:
        """What runs the guests of this host: proven by booting one, remembered for this host boot."""
        with self._lock:
            if self._accelerator is None:
                from lab.backends.support.vmm import vmm_filter
                from lab.hypervisor.accelerator import find_accelerator

                self._accelerator = find_accelerator(self.home, vmm_filter())
            return self._accelerator

    def close(self) -> None:
        """Close everything, newest first, and verify that nothing is left. Idempotent. Raises LabError."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
