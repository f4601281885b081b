"""What a copy that is ready takes for one more answer, or for many, asked for as its readiness asks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial

from lab.errors import NotReady
from lab.host.clock import now
from lab.metrics.base import Subject
from lab.metrics.ready.readiness import ANSWER_SECONDS, SOCKETS_AT_ONCE, ask_bytes, ask_http, fresh_socket
from lab.model import HttpReadiness, Readiness, Scenario, TalkReadiness, TcpReadiness


def is_asked(scenario: Scenario) -> bool:
    """Whether a copy that is ready can be asked for more."""
    return scenario.port is not None and isinstance(scenario.readiness, (TcpReadiness, TalkReadiness, HttpReadiness))


def answer(subject: Subject) -> float | None:
    """Seconds that a copy which is ready takes for one more answer; None for a scenario whose readiness asks no port.

    Raises NotReady as `answers` does.
    """
    return next(answers(subject, 1), None)


def answers(subject: Subject, count: int) -> Iterator[float]:
    """Seconds that a copy which is ready takes for each of ``count`` more answers, one asked for when the one before
    is there: from a fresh connect until it was right.

    None of them for a scenario whose readiness asks no port. Raises NotReady for a wrong answer, or none within ten
    seconds.
    """
    readiness, port = subject.scenario.readiness, subject.scenario.port
    if port is None or not isinstance(readiness, (TcpReadiness, TalkReadiness, HttpReadiness)):
        return
    address = (str(subject.instance.address), port)
    for begin in range(0, count, SOCKETS_AT_ONCE):
        some = min(SOCKETS_AT_ONCE, count - begin)
        sockets = subject.network.run_in(partial(_fresh_sockets, some))
        try:
            for asking in sockets:
                yield _answer(subject.instance.name, asking, address, readiness)
                asking.close()
        finally:
            for asking in sockets:
                asking.close()


def _fresh_sockets(count: int) -> list[socket.socket]:
    return [fresh_socket() for _ in range(count)]


def _answer(name: str, asking: socket.socket, address: tuple[str, int], readiness: Readiness) -> float:
    asking.settimeout(ANSWER_SECONDS)
    began = now()
    try:
        asking.connect(address)
    except OSError as error:
        raise NotReady(f"{name} can't be connected to: {error}") from error
    wrong = ""
    if isinstance(readiness, TalkReadiness):
        wrong = ask_bytes(asking, readiness, ANSWER_SECONDS)
    elif isinstance(readiness, HttpReadiness):
        wrong = ask_http(asking, address, readiness, ANSWER_SECONDS)
    seconds = now() - began
    if wrong:
        raise NotReady(f"{name} was ready, and answers wrong now: {wrong}")
    return seconds
