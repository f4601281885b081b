"""What the harness itself costs, measured with launches that do nothing. Printed beside results, never subtracted."""

from __future__ import annotations

import socket
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.clock import Timeline, now
from lab.host.command import run
from lab.inside.build import program
from lab.instance import Instance, LaunchRequest
from lab.metrics.base import Subject
from lab.metrics.ready.readiness import wait_ready
from lab.model import Accelerator, Completed, HttpReadiness, Phase, Scenario

if TYPE_CHECKING:
    from lab.backends.site import Site

REPEATS = 20
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def measure(site: Site, request: LaunchRequest) -> Mapping[str, float]:
    """Medians of twenty, in seconds.

    The first is a plain child of lab that does nothing, from the request to its end. The second is the part of
    every boot that is the client's: from "the application runs" to its first correct response, for a server that
    was up before.
    """
    return {
        "a program without any boundary": _median(_start_program),
        "an answer of a server that was up before": _answers(site, request),
    }


def _median(action: Callable[[], float]) -> float:
    return statistics.median(action() for _ in range(REPEATS))


def _start_program() -> float:
    began = now()
    run([program(), "version"], timeout_seconds=10.0)
    return now() - began


def _answers(site: Site, request: LaunchRequest) -> float:
    with _server(site) as port:
        return _median(lambda: _answer(site, request, port))


def _answer(site: Site, request: LaunchRequest, port: int) -> float:
    scenario = Scenario(
        name="nothing",
        title="",
        directory=Path(),
        dockerfile=Path(),
        port=port,
        readiness=HttpReadiness(body="ok"),
        ready_timeout_seconds=10.0,
    )
    subject = Subject.before_launch(scenario=scenario, network=site.network, idle_seconds=0.0)
    instance = _AlwaysUp(site, request)
    subject.launched(instance)
    wait_ready(subject)
    stamps = instance.timeline.stamps()
    return stamps[Phase.RESPONDED] - stamps[Phase.EXECUTED]


@contextmanager
def _server(site: Site) -> Iterator[int]:
    """A thread that answers "ok" in lab's namespace, on a port of the kernel's choice."""
    listener = site.network.socket()
    listener.bind((str(site.network.address), 0))
    listener.listen()
    thread = threading.Thread(target=_serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
        thread.join()
        listener.close()


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connected, _ = listener.accept()
        except OSError:
            return
        with connected:
            if connected.recv(4096):  # nothing: an attempt that the client gave up
                connected.sendall(ANSWER)


class _AlwaysUp(Instance):
    """No instance at all: its address is the bridge's own, where the server listens."""

    name = backend = "nothing"
    accelerator = Accelerator.NATIVE

    def __init__(self, site: Site, request: LaunchRequest) -> None:
        self.request = request
        self.address = site.network.address
        self.cgroup = ControlGroup.open(group_of(site.session.id, "nothing"))
        self.timeline = Timeline()
        self.timeline.mark(Phase.EXECUTED)

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        raise NotImplementedError

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        return None

    def signal(self, number: int) -> None:
        raise NotImplementedError

    def stop(self, grace_seconds: float = 10.0) -> None:
        raise NotImplementedError
