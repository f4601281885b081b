"""A guest that answers late is found to be there, and is not kept busy by the question whether it is.

The test is the guest: it reads the frames of a tap, and answers each first packet of a connect (RFC 9293) after a
while. An emulated guest of an emulated machine did the same for as long as it was knocked at.
"""

from __future__ import annotations

import os
import select
import struct
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import cast

import pytest
from local_instance import LocalInstance

from lab.host.clock import now
from lab.metrics.base import Subject
from lab.metrics.ready.readiness import MOST_PENDING, wait_ready
from lab.model import Phase, Scenario, TcpReadiness
from lab.network.network import Network, TapEndpoint

PORT = 5000
IPV4, TCP = 0x0800, 6
SYN, ACK = 0x02, 0x10
HEADERS = struct.Struct("!6s6sH BBHHHBBH4s4s HHIIBBHHH")  # Ethernet, IPv4, TCP, none with options


class SlowGuest:
    """Answers the first packet of every connect ``seconds`` later, and counts them."""

    def __init__(self, tap: TapEndpoint, seconds: float) -> None:
        self._frames = tap.open()
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.knocks = 0

    def __enter__(self) -> SlowGuest:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._frames)

    def _serve(self) -> None:
        late: deque[tuple[float, bytes]] = deque()
        while not self._ended.is_set():
            if select.select([self._frames], [], [], 0.01)[0]:
                asked = os.read(self._frames, 2048)
                if (answer := answer_to(asked)) is not None:
                    self.knocks += 1
                    late.append((now() + self._seconds, answer))
            while late and late[0][0] <= now():
                os.write(self._frames, late.popleft()[1])


def answer_to(frame: bytes) -> bytes | None:
    """The frame that accepts a connect, if this one begins one."""
    if len(frame) < HEADERS.size:
        return None
    fields = HEADERS.unpack_from(frame)
    to, by, kind, protocol = *fields[:3], fields[9]
    source, target, port, own, first, flags = *fields[11:16], fields[18]
    if (kind, protocol, flags) != (IPV4, TCP, SYN):
        return None
    segment = struct.pack("!HHIIBBHHH", own, port, 1, first + 1 & 0xFFFFFFFF, 5 << 4, SYN | ACK, 65535, 0, 0)
    pseudo = target + source + struct.pack("!BBH", 0, TCP, len(segment))
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, TCP, 0, target, source)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return cast("bytes", by + to) + struct.pack("!H", IPV4) + header + segment


def checksum(data: bytes) -> int:
    """Of the internet (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.fixture
def tap() -> Iterator[tuple[Network, TapEndpoint]]:
    with Network.create() as network, network.tap() as made:
        yield network, made


def asked(network: Network, there: TapEndpoint, logs: Path, seconds: float) -> tuple[float, float, int]:
    """How long it took, the mark's resolution, both in seconds, and how often was knocked."""
    wanted = Scenario(
        name="s", title="S", directory=Path(), dockerfile=Path(), port=PORT, readiness=TcpReadiness(),
        ready_timeout_seconds=20,
    )  # fmt: skip
    with LocalInstance(["sleep", "600"], logs) as instance, SlowGuest(there, seconds) as guest:
        instance.address = there.address
        subject = Subject.before_launch(scenario=wanted, network=network, idle_seconds=0.0)
        subject.launched(instance)
        wait_ready(subject)
        ready, executed = instance.timeline.at(Phase.RESPONDED), instance.timeline.running()
        assert ready is not None
        assert executed is not None
        return ready - executed, instance.timeline.resolution_seconds(Phase.LISTENING), guest.knocks


def test_a_guest_that_answers_late_is_left_in_peace(tap: tuple[Network, TapEndpoint], tmp_path: Path) -> None:
    """And the mark says for how long nobody knocked."""
    took, resolution, knocks = asked(*tap, tmp_path, 0.5)
    assert took >= 0.5
    assert 0.1 <= resolution <= took
    assert knocks <= MOST_PENDING


@pytest.mark.nightly
def test_one_that_answers_later_than_packets_get_lost_is_waited_for(
    tap: tuple[Network, TapEndpoint], tmp_path: Path
) -> None:
    took, _, knocks = asked(*tap, tmp_path, 1.5)
    assert took >= 1.5
    assert knocks <= 3 * MOST_PENDING * took
