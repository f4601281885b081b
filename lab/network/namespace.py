"""Anonymous network namespaces (network_namespaces(7)): held by a descriptor, never by a name in /run/netns.

Nothing is left to clean up after a crash: the kernel removes a namespace when its last descriptor, thread and
socket are gone.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lab.errors import LabError
from lab.host import syscalls
from lab.host.closing import Closing
from lab.host.identity import privilege

T = TypeVar("T")

SIOCGSKNS = 0x894C  # linux/sockios.h: of a socket or a tap, the network namespace it was opened in
TUN = os.makedev(10, 200)  # /dev/net/tun (Documentation/networking/tuntap.rst of the kernel)
OWN_NAMESPACE = "/proc/thread-self/ns/net"
IPV6_SWITCHES = ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6")


class Namespace(Closing):
    """One network namespace, held until `close`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def unshare(cls) -> Namespace:
        """Move the *calling thread* into a fresh namespace without IPv6, and hold that.

        IPv6 is off since it adds noise: duplicate address detection delays an address by a second, and router
        solicitations wake an idle instance. Raises LabError without the privilege.
        """
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
        except OSError as error:
            raise LabError(f"can't make a network namespace: {error.strerror}", hint=privilege.remedy()) from error
        for switch in IPV6_SWITCHES:
            with suppress(FileNotFoundError):  # a kernel without IPv6
                Path(switch).write_text("1")
        return cls(os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC))

    @property
    def descriptor(self) -> int:
        """Open in this process, close-on-exec; -1 once closed."""
        return self._descriptor

    @property
    def path(self) -> Path:
        """Where other processes find it (setns(2), ``namespaces[].path`` of an OCI config) while it is held."""
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def enter(self) -> None:
        """Move the *calling thread* in; for threads whose end is near, or who stay."""
        syscalls.setns(self._descriptor, syscalls.CLONE_NEWNET)

    def run(self, function: Callable[[], T]) -> T:
        """Call ``function`` in a thread of its own inside the namespace; returns or raises what it does.

        Sockets and processes made in there stay there. A process must not ask to die with its parent
        (PR_SET_PDEATHSIG): its parent is that thread, which ends at once.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                self.enter()
                outcome.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside, name="lab-in-namespace")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def namespace_of_tap(pid: int) -> int | None:
    """A descriptor of the network namespace whose tap process ``pid`` holds, None when it holds none.

    A tap belongs to the namespace it was opened in, and keeps it, wherever its holder lives. Raises LabError when
    the kernel refuses to tell.
    """
    descriptors = Path(f"/proc/{pid}/fd")
    try:
        taps = [int(each.name) for each in descriptors.iterdir() if _is_tap(each)]
        if not taps:
            return None
        process = os.pidfd_open(pid)
        try:
            tap = syscalls.pidfd_getfd(process, taps[0])
        finally:
            os.close(process)
        try:
            return fcntl.ioctl(tap, SIOCGSKNS)
        finally:
            os.close(tap)
    except OSError as error:
        raise LabError(f"the network of process {pid} can't be found: {error.strerror}") from error


def _is_tap(descriptor: Path) -> bool:
    try:
        return descriptor.stat().st_rdev == TUN
    except OSError:  # closed meanwhile
        return False
