"""Addresses for systems that lab did not make: a DHCP server on lab's bridge, for the cards that it is told of.

It is dnsmasq, with DNS off and no file of its own. It lives in lab's network namespace, in a control group of the
session's, as a user that nobody else is, without privileges but over that network (capabilities(7):
CAP_NET_BIND_SERVICE for port 67; CAP_NET_ADMIN, without which dnsmasq does not start). A guest's packets are the only
thing that it reads. Each address is known beforehand and leased to one card (RFC 2131, section 4.3.2), so a
server that is started anew, as happens with every further card, gives the same ones.

dnsmasq says on its standard error what it gave to whom; that is stamped when it is read.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.errors import BackendUnavailable, LabError
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import now
from lab.host.closing import Closing
from lab.host.identity import lone
from lab.model import Limits
from lab.network.network import BRIDGE, SUBNET, Network

log = logging.getLogger(__name__)

GROUP = "dhcp_"  # beside the instances' groups; none of them can be called so
PROGRAM, PACKAGE = "dnsmasq", "dnsmasq-base"
SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"
LIMITS = Limits(memory_bytes=64 << 20, pids=8)
LEASE_SECONDS = 86_400
END_SECONDS = 5.0
CAPABILITIES = "-all,+net_bind_service,+net_admin"

# The shell enters the group, so that all which comes is charged to it, and becomes dnsmasq.
START = f"""\
for procs in $1; do echo $$ >"$procs" || exit 1; done
user=$(($2 + $$ % $3))
shift 3
exec setpriv --reuid=$user --regid=$user --clear-groups --no-new-privs \\
    --inh-caps={CAPABILITIES} --ambient-caps={CAPABILITIES} --bounding-set={CAPABILITIES} -- "$@"
"""

GIVEN = re.compile(rb"DHCPACK\(\w+\) (?P<address>[0-9.]+) (?P<mac>[0-9a-f:]{17})")


@dataclass(frozen=True, slots=True)
class Card:
    """A network card that will ask. ``given`` is called, from another thread, each time it got its address."""

    mac: str
    address: IPv4Address
    given: Callable[[float], None]


class DhcpServer(Closing):
    """The server of one session. Thread-safe; a context manager."""

    def __init__(self, network: Network, make_group: Callable[[Limits], ControlGroup]) -> None:
        """``make_group`` makes its control group, with limits, when one is first needed."""
        self._network = network
        self._make_group = make_group
        self._group: ControlGroup | None = None
        self._cards: dict[str, Card] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """dnsmasq's, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def expect(self, card: Card) -> None:
        """From now on ``card`` is given its address. Raises BackendUnavailable without dnsmasq, LabError."""
        with self._lock:
            self._cards[card.mac] = card
            self._end()
            self._start()

    def forget(self, mac: str) -> None:
        """A card that has gone. Idempotent."""
        with self._lock:
            if self._cards.pop(mac, None) is not None and not self._cards:
                self._end()

    def close(self) -> None:
        """End it, and remove its group. Idempotent. Raises LabError when it stays."""
        with self._lock:
            self._end()
            group, self._group = self._group, None
            if group is not None:
                group.kill()
                group.remove(keep_parents=True)

    def _start(self) -> None:
        program = shutil.which(PROGRAM, path=SYSTEM_FOLDERS)
        if program is None:
            raise BackendUnavailable(f"{PROGRAM} is not installed", hint=f"apt-get install {PACKAGE}")
        if self._group is None:
            self._group = self._make_group(LIMITS)
        procs = " ".join(str(directory / "cgroup.procs") for directory in self._group.directories)
        first, among = map(str, lone.users())
        words = ["sh", "-ec", START, "sh", procs, first, among, program, *arguments(list(self._cards.values()))]
        self._process = self._network.run_in(lambda: _started(words))
        self._reader = threading.Thread(target=self._listen, args=(self._process,), name="lab-dhcp", daemon=True)
        self._reader.start()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(END_SECONDS)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as said:
            for line in said:
                at = now()
                log.debug("%s: %s", PROGRAM, line.decode("utf-8", "replace").rstrip())
                if (found := GIVEN.search(line)) is not None:
                    card = self._cards.get(found["mac"].decode())
                    if card is not None and found["address"].decode() == str(card.address):
                        with suppress(LabError):
                            card.given(at)


def arguments(cards: list[Card]) -> list[str]:
    """dnsmasq's, for a server that knows ``cards`` and answers nobody else (dnsmasq(8))."""
    return [
        "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--pid-file=",
        "--port=0", "--no-hosts", "--no-resolv", "--no-poll",
        f"--interface={BRIDGE}", "--bind-interfaces", "--except-interface=lo",
        f"--dhcp-range={SUBNET.network_address},static,{SUBNET.netmask},{LEASE_SECONDS}",
        "--dhcp-authoritative", "--no-ping", "--leasefile-ro",
        "--dhcp-option=option:router", "--dhcp-option=option:dns-server",  # there is neither
        *(f"--dhcp-host={card.mac},{card.address}" for card in cards),
    ]  # fmt: skip


def _started(words: list[str]) -> subprocess.Popen[bytes]:
    log.debug("+ %s", words)
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/",
        env={"PATH": SYSTEM_FOLDERS, "LC_ALL": "C"}, start_new_session=True,
    )  # fmt: skip
