"""Whose network is it? Nothing is sent; the one connection goes to the instance's own loopback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lab.isolation.base import (
    BOOT_ID,
    DROPPED,
    NO_SYS,
    Answer,
    Boundary,
    Context,
    Found,
    Group,
    HostValue,
    Inconclusive,
    Mechanism,
    Privilege,
    Probe,
    Reply,
    Severity,
    expect,
    expectations,
    on_whose_kernel,
    stopped_by,
)
from lab.isolation.probes.kernel import SHARED

TOO = "lab gives the bare process a network namespace too, so that every client's path is equal"
OWN_NETWORK = expectations(
    bare=expect(Answer.OWN, because=TOO),
    container=expect(Answer.OWN, because="it has a network namespace"),
    own_kernel=expect(Answer.OWN, because="the guest's kernel has a network of its own, behind a virtual device"),
)


def is_hosts_network(seen: Sequence[Reply], host: Sequence[Reply]) -> bool:
    """Whether the last two replies, to ``namespaces`` and `BOOT_ID`, name the host's network namespace."""
    return seen[-2].get("net") == host[-2].get("net") and on_whose_kernel(seen[-1], host[-1]) is Answer.YES


class _Network(Probe):
    group = Group.NETWORK
    mechanism = Mechanism.NAMESPACE
    pages: ClassVar[tuple[str, ...]] = ("network_namespaces(7)",)


class Interfaces(_Network):
    """The inode of its network namespace, and the names in /proc/self/net/dev as evidence."""

    id = "interfaces"
    question = "Are its network interfaces the host's?"
    expected = OWN_NETWORK

    def lines(self, context: Context) -> Sequence[str]:
        return ("read /proc/self/net/dev 16384", "namespaces", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        names = [line.split(":")[0].strip() for line in str(seen[0]["text"]).splitlines() if ":" in line]
        answer = Answer.HOST if "net" in seen[1] and is_hosts_network(seen, host) else Answer.OWN
        return Found(
            answer=answer, evidence=f"interfaces: {' '.join(names)[:100] or 'none'}", value=float(len(names))
        )

    def check_negative(self, closed: Sequence[Reply], host: Sequence[Reply], context: Context) -> None:
        if closed[1].get("net") == host[1].get("net"):
            raise Inconclusive("even in a closed place the network is the host's")


class InterfacesInSysfs(_Network):
    """The names in /sys/class/net. A mount of sysfs shows the network namespace that it was mounted in, so a
    /sys that is merely passed on tells about another network than its own (sysfs(5)).
    """

    id = "interfaces-in-sysfs"
    question = "Does its /sys show the host's network interfaces?"
    severity = Severity.LEAK
    pages = ("sysfs(5)", "network_namespaces(7)")
    expected = expectations(
        bare=expect(Answer.HOST, because="it has the host's /sys, which shows the host's network whoever looks"),
        container=expect(Answer.OWN, because="its /sys was mounted in its own network namespace"),
        own_kernel=expect(Answer.OWN, because="the guest's /sys shows the guest's network"),
        user_space=expect(Answer.NO, Answer.OWN, because="its kernel's /sys has no such folder, or its own"),
        bubblewrap=NO_SYS,
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("list /sys/class/net", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        names, theirs = sorted(seen[0]["names"]), sorted(host[0]["names"])
        if not names:
            error = str(seen[0]["name"])
            return Found(
                answer=Answer.NO, evidence=f"/sys/class/net: {error or 'empty'}", mechanism=stopped_by(error)
            )
        evidence = f"/sys/class/net: {' '.join(names)[:100]}"
        if on_whose_kernel(seen[1], host[1]) is Answer.GUEST or names != theirs:
            return Found(answer=Answer.OWN, evidence=evidence)
        return Found(answer=Answer.HOST, evidence=evidence)


class _Socket(Privilege):
    """A socket of a privileged kind, closed at once."""

    group = Group.NETWORK
    mechanism = Mechanism.NAMESPACE
    allowed = frozenset({""})
    expected = expectations(
        bare=expect(Answer.OWN, because=TOO),
        container=expect(
            Answer.OWN, because="Docker leaves it CAP_NET_RAW, which reaches its network namespace only"
        ),
        own_kernel=expect(Answer.OWN, because="root is root, but of the guest's own network"),
        podman=expect(Answer.NO, because="the distribution's podman leaves it no CAP_NET_RAW"),
        bubblewrap=DROPPED,
        user_space=expect(Answer.NO, because="runsc takes CAP_NET_RAW away unless it is told to leave it"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (self.line, "namespaces", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        found = super().judge(seen, host, context)
        if found.answer.reach == "closed" or is_hosts_network(seen, host):
            return found
        return Found(answer=Answer.OWN, evidence=f"{found.evidence}, in its own network")


class PacketCapture(_Socket):
    """socket(AF_PACKET, SOCK_RAW, ETH_P_ALL): sees every packet of its network namespace."""

    id = "packet-capture"
    question = "Can it read the host's network traffic?"
    line = "call socket 17 3 0x300"
    pages = ("packet(7)", "network_namespaces(7)")


class RawSocket(_Socket):
    """socket(AF_INET, SOCK_RAW, IPPROTO_ICMP): may send packets with a forged sender."""

    id = "raw-socket"
    question = "Can it forge packets in the host's network?"
    line = "call socket 2 3 1"
    pages = ("raw(7)", "capabilities(7)")


class NetworkSettings(_Socket):
    """ip_forward opened for writing, and nothing written; the file belongs to the opener's network namespace."""

    id = "network-settings"
    question = "Can it make the host's network forward packets?"
    mechanism = Mechanism.MASKED
    line = "open /proc/sys/net/ipv4/ip_forward write"
    pages = ("ip(7)", "network_namespaces(7)")
    expected = expectations(
        bare=expect(Answer.OWN, because=TOO),
        container=expect(Answer.NO, because="/proc/sys is mounted read-only"),
        own_kernel=expect(Answer.OWN, because="root is root, but of the guest's own network"),
        bubblewrap=expect(Answer.OWN, because="bwrap leaves /proc/sys writable, which shows its own network"),
    )


class HostLoopback(_Network):
    """Connects to a port of 127.0.0.1 at which a process of the host answers with a word."""

    id = "host-loopback"
    question = "Does it reach services on the host's loopback?"
    pages = ("ip(7)", "network_namespaces(7)")
    expected = expectations(
        bare=expect(Answer.NO, because=TOO),
        container=expect(Answer.NO, because="its network namespace has a loopback of its own"),
        own_kernel=expect(Answer.NO, because="the guest has a loopback of its own"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return (f"greet {context.victim_port}",)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        reached = context.victim_token in seen[0]["text"]
        said = "the host's process answered" if reached else seen[0]["name"] or "somebody else answered"
        return Found(answer=Answer.YES if reached else Answer.NO, evidence=f"connect to 127.0.0.1: {said}")


class DefaultRoute(_Network):
    """A route to everywhere in /proc/self/net/route; nothing is sent along it."""

    id = "default-route"
    question = "Has it a way to the internet?"
    pages = ("route(8)", "network_namespaces(7)")
    expected = expectations(
        bare=expect(Answer.NO, because="nothing routes out of lab's network"),
        container=expect(
            Answer.NO, because="nothing routes out of lab's network; Docker's bridge would route and translate"
        ),
        own_kernel=expect(Answer.NO, because="nothing routes out of lab's network, in which its tap is"),
        docker=expect(
            Answer.YES, because="Docker gives it a default route by the bridge; in lab's network that leads nowhere"
        ),
        podman=expect(Answer.NO, because="it joins a namespace of lab's, out of which nothing routes"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        return ("read /proc/self/net/route 16384",)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        routes = [line.split() for line in str(seen[0]["text"]).splitlines()[1:]]
        ways = [route[0] for route in routes if len(route) > 7 and route[1] == "00000000" and route[7] == "00000000"]
        evidence = f"/proc/self/net/route: {seen[0]['name'] or f'{len(routes)} routes'}, default: {ways or 'none'}"
        return Found(answer=Answer.YES if ways else Answer.NO, evidence=evidence)


class ConnectionTable(HostValue):
    """nf_conntrack_max: one budget of tracked connections for all network namespaces of a kernel, so that one
    tenant's flood leaves none for the others (Documentation/networking/nf_conntrack-sysctl.rst).
    """

    id = "connection-table"
    question = "Does it share the host's table of connections?"
    group = Group.NETWORK
    mechanism = Mechanism.NONE
    severity = Severity.INFORMATION
    path = "/proc/sys/net/netfilter/nf_conntrack_max"
    pages = ("network_namespaces(7)",)
    expected = expectations(
        bare=SHARED[Boundary.BARE],
        container=expect(Answer.HOST, because="every namespace counts its own, but the maximum is the kernel's"),
        own_kernel=expect(Answer.OWN, Answer.NO, because="the guest's kernel has a table of its own, or none"),
    )
