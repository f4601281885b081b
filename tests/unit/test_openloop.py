"""The climb to the rate at which p99 breaks, on invented answers; and wrk's paces, against a server that is known."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.metrics.clients.paced import Paced, pace, parse
from lab.metrics.openloop import BOUND_SECONDS, LEAST, MOST, climb, told
from lab.network.network import Network
from lab.results.record import Status


def seen(rate: float, p99: float, *, failed: int = 0, late: float = 0.0) -> Paced:
    return Paced(
        rate=rate,
        due=300,
        unanswered=0,
        latency_seconds={"p50": p99 / 2, "p95": p99, "p99": p99, "max": p99},
        late_seconds=late,
        errors={"status": failed},
    )


@given(st.floats(1, 2 * MOST))
def test_the_rate_that_breaks_is_found_to_a_fifth(real: float) -> None:
    found = climb(lambda rate: seen(rate, 0.01 if rate <= real else 1.0), BOUND_SECONDS)
    assert found.rate <= real
    if found.rate and found.rate < MOST:
        assert real < found.rate * 2**0.25 * 1.0001
    assert bool(found.rate) is (real >= 12.5), "100 halved three times"
    assert len(found.tried) <= 13
    assert found.ended


def test_what_failed_was_not_kept_up_with() -> None:
    found = climb(lambda rate: seen(rate, 0.01, failed=rate > 150), BOUND_SECONDS)
    assert 100 <= found.rate < 150
    nothing = climb(lambda rate: seen(rate, 0.01, failed=1), BOUND_SECONDS)
    assert nothing.rate == 0
    observed = {each.quantity: each for each in told(nothing, 0.001)}
    assert {each.status for each in observed.values()} == {Status.FAILED}
    assert observed["openloop.rate"].value is None
    assert all(one["rate"] >= LEAST for one in observed["openloop.rate"].detail["tried"])


def test_a_client_that_is_late_itself_ends_it() -> None:
    found = climb(lambda rate: seen(rate, rate / 1000, late=rate / 1000), BOUND_SECONDS)
    assert found.rate == 100
    assert "client" in found.ended
    assert len(found.tried) == 2


def test_what_wrk_said_is_read() -> None:
    said = {"due": 300, "unanswered": 10, "late": 900, "p50": 1000, "p95": 2000, "p99": 3000, "max": 4000}
    said |= dict.fromkeys(("connect", "write", "status", "timeout"), 0) | {"read": 291}
    line = json.dumps(said).encode()
    assert parse(b"Running\n" + line, 5.0).failed == 291
    forgiven = parse(line, 5.0, forgive=lambda: True)
    assert forgiven.failed == 1, "one of which no answer had come"
    assert forgiven.latency_seconds["p99"] == 0.003
    assert forgiven.late_seconds == 0.0009
    with pytest.raises(LabError):
        parse(b"wrk: unable to connect", 5.0)


@contextmanager
def server(stalls_seconds: float) -> Iterator[int]:
    """Answers at once, but stands still once, half a second after its first request."""
    lock, began = threading.Lock(), [0.0]

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            for line in requests:
                if line == b"\r\n":
                    with lock:
                        began[0] = began[0] or time.monotonic()
                        if stalls_seconds and 0.5 < time.monotonic() - began[0] < 0.5 + stalls_seconds:
                            time.sleep(began[0] + 0.5 + stalls_seconds - time.monotonic())
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)


class Here:
    """The host's own network in the place of lab's."""

    clients: frozenset[int] = frozenset()

    def run_in(self, function: Callable[[], object]) -> object:
        return function()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_a_stall_counts_for_everybody_who_was_due_meanwhile() -> None:
    """Sixteen requests are on their way then; a closed-loop client would leave out the 300 that were to come."""
    with server(1.0) as port:
        found = pace(cast(Network, Here()), IPv4Address("127.0.0.1"), port, "/", rate=300, seconds=2)
    assert found.due == pytest.approx(600, abs=16), "one more or less on each connection"
    assert found.unanswered == found.failed == 0
    assert found.latency_seconds["p50"] < found.latency_seconds["p95"]
    assert found.latency_seconds["p95"] > 0.7, "half of all were due in that second, and a tenth waited 0.8 s or more"
    assert found.latency_seconds["max"] < 2.0
