"""When is an instance there? Asked from outside, by the same client for every backend.

Before the application's execve has been seen nothing can listen, so nobody knocks often: packets that a booting
guest finds waiting would slow it down. From then on a fresh TCP connect starts every two milliseconds. A connect
that gets no answer yet is left pending rather than given up: an emulated guest may need longer to answer than the
step is. When many are pending no more are begun, but for those in the place of one so old that its packet must be
lost. A guest that is given up too early answers connects that nobody waits for any more, is knocked at for ever,
and does nothing but answer: receive livelock (Mogul and Ramakrishnan, ACM TOCS 15(3), 1997). For the same reason
the step grows with the time on a host that is itself emulated, where a guest may need 70 ms to refuse one connect.
The time since the latest connect began, a step as a rule, is the error bar of what is marked.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from lab.errors import GroupGone, LabError, LaunchError, NotReady
from lab.host.clock import RUNNING, now
from lab.host.survey.virtualisation import Ground, platform
from lab.instance import Instance
from lab.metrics.base import Subject
from lab.metrics.ready.health import Health
from lab.model import (
    DoneReadiness,
    HealthReadiness,
    HttpReadiness,
    LogReadiness,
    Phase,
    Readiness,
    StartedReadiness,
    TalkReadiness,
    TcpReadiness,
)

STEP_SECONDS = 0.002
LATER_STEP_SECONDS = 0.005
LATER_SECONDS = 3.0
HEALTH_STEP_SECONDS = 0.02
EMULATED_STEP_PART = 0.05  # of the time since somebody may answer, on a host whose times say nothing
LONGEST_STEP_SECONDS = 1.0
PATIENT_STEP_SECONDS = 0.1  # while the application is not known to run
MOST_PENDING = 64
LOST_SECONDS = 1.0  # when TCP sends a first packet again (RFC 6298, 2)
LOST_PART = 0.25  # of the time since somebody may answer: whoever is slow is asked ever more seldom
ANSWER_SECONDS = 10.0
LARGEST_BODY_BYTES = 1 << 20
ALIVE_STEP_SECONDS = 0.1
LOG_TAIL_LINES = 15
LOGS = ("stdout.log", "stderr.log", "console.log")
SOCKETS_AT_ONCE = 32
CONSOLE_STEP_SECONDS = 0.01  # a whole system says much
LOOKED_AT_BYTES = 1 << 18
LONGEST_LINE_BYTES = 4096
REACHABLE = (*RUNNING, Phase.ADDRESSED)


def wait_ready(subject: Subject) -> None:
    """Block until the instance is ready; marks LISTENING, where its port is asked, and RESPONDED.

    What ready means the scenario's readiness says: an HTTP answer, an answer to bytes sent, tcp (the connect itself),
    a line of the log, the image's HEALTHCHECK, or, without any of these, that the application's execve happened. So
    RESPONDED is no promise of an answer: `lab.model.Milestone` says what was seen. Notes the CPU spent
    until then in `Subject.cpu_at_response`. Raises NotReady when the time runs out and LaunchError when the
    application ends first, with the log's tail.
    """
    instance, scenario = subject.instance, subject.scenario
    watch = _Watch(instance, platform().patience * scenario.ready_timeout_seconds, scenario.port)
    match scenario.readiness:
        case None | StartedReadiness() | DoneReadiness() if not instance.opaque:
            _wait_executed(watch)
        case LogReadiness(pattern=pattern):
            _wait_log(watch, re.compile(pattern.encode()))
        case HealthReadiness() as readiness if not instance.opaque:
            _wait_healthy(watch, Health(instance, readiness))
        case None | StartedReadiness() | DoneReadiness() | HealthReadiness():
            raise NotReady(
                f"{instance.name} can't be seen to be ready: nothing of lab's is inside",
                hint="--ready tcp or http:/path with --port, or --ready log:REGEX, a line on its serial console",
            )
        case readiness:
            if scenario.port is None:
                raise NotReady(f"{scenario.name} has no port to ask", hint='set "port" in scenario.toml')
            with _Sockets(subject.network.run_in) as sockets:
                _wait_port(watch, readiness, (str(instance.address), scenario.port), sockets)
    with suppress(GroupGone):  # it ended right then, or was never in a group: `lab.studies.compare.measure.overhead`
        subject.cpu_at_response = instance.cgroup.cpu()


class _Watch:
    """One deadline, and whether the application still lives."""

    def __init__(self, instance: Instance, timeout_seconds: float, port: int | None) -> None:
        self.port = port
        self.instance = instance
        self.timeline = instance.timeline
        self.timeout_seconds = timeout_seconds
        self.deadline = now() + timeout_seconds
        self._look_again = 0.0
        self.last_answer = ""

    @property
    def began(self) -> float | None:
        """When there began to be somebody who may answer: its application's execve, or, of a system that lab did not
        make, the moment when it got its address.
        """
        return self.timeline.first_of(REACHABLE)

    def step_seconds(self) -> float:
        """How long until the next attempt."""
        running = self.began
        if running is None:
            return PATIENT_STEP_SECONDS
        passed = now() - running
        usual = STEP_SECONDS if passed < LATER_SECONDS else LATER_STEP_SECONDS
        if platform().ground is not Ground.EMULATED:
            return usual
        return max(usual, min(EMULATED_STEP_PART * passed, LONGEST_STEP_SECONDS))

    def lost_after_seconds(self) -> float:
        """How old a connect without any answer is when it is given up."""
        running = self.began
        return LOST_SECONDS if running is None else max(LOST_SECONDS, LOST_PART * (now() - running))

    def patience_seconds(self) -> float:
        """How long to wait for one answer."""
        return max(STEP_SECONDS, min(ANSWER_SECONDS, self.deadline - now()))

    def check(self) -> None:
        """Raise NotReady when the time is up, LaunchError when the application has ended."""
        at = now()
        if at >= self.deadline:
            why = self.last_answer or listeners(self.instance, self.port)
            what = f"did not become ready within {self.timeout_seconds:g} s"
            hint, detail = self._evidence()
            raise NotReady(f"{self.instance.name} {what}{why and f'; {why}'}", hint=hint, detail=detail)
        if at >= self._look_again:
            self._look_again = at + ALIVE_STEP_SECONDS
            if (code := self.instance.wait(0.0)) is not None:
                what = f"{ending(self.instance, code)} before it became ready"
                hint, detail = self._evidence()
                last = f": {detail.splitlines()[-1].strip()}" if detail else ""
                raise LaunchError(f"{self.instance.name} {what}{last}", hint=hint, detail=detail, exit_code=code)

    def _evidence(self) -> tuple[str, str]:
        """Where the logs are, and their tail."""
        logs = self.instance.request.log_directory
        return f"its logs are in {logs}", log_tail(logs)


def ending(instance: Instance, code: int) -> str:
    """How its application has ended, as a clause: the exit code, and whether the kernel has killed any process of it
    for memory, which a 137 alone does not tell.
    """
    killed = 0
    with suppress(OSError, LabError):  # its group may be gone with it
        killed = instance.cgroup.limit_hits().get("oom", 0)
    why = f" (the kernel killed {killed} of its processes for memory)" if killed else ""
    return f"ended with exit code {code}{why}"


class _Attempt(NamedTuple):
    """A connect that was begun, at a monotonic time in seconds."""

    socket: socket.socket
    began: float


class _Sockets:
    """Fresh non-blocking sockets in lab's namespace, made some at a time: entering it costs a thread."""

    def __init__(self, run_in: Callable[[Callable[[], list[socket.socket]]], list[socket.socket]]) -> None:
        self._run_in = run_in
        self._ready: list[socket.socket] = []
        self.pending: deque[_Attempt] = deque()
        self._latest = 0.0

    def take(self) -> socket.socket:
        if not self._ready:
            self._ready = self._run_in(lambda: [fresh_socket() for _ in range(SOCKETS_AT_ONCE)])
        return self._ready.pop()

    def knock(self, address: tuple[str, int], patience_seconds: float) -> None:
        """Begin one more connect, unless as many as may be are pending and none is older than that."""
        at = now()
        if len(self.pending) >= MOST_PENDING:
            if at - self.pending[0].began < patience_seconds:
                return
            self.pending.popleft().socket.close()
        fresh = self.take()
        with suppress(OSError):  # in progress; any other failure shows as an error on the socket
            fresh.connect(address)
        self.pending.append(_Attempt(fresh, at))
        self._latest = at

    def since_latest_seconds(self) -> float:
        """How long ago the latest connect was begun."""
        return now() - self._latest

    def drop_pending(self) -> None:
        """Hang up all other attempts: a server that serves one after the other would wait for their requests."""
        while self.pending:
            self.pending.pop().socket.close()

    def __enter__(self) -> _Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop_pending()
        for unused in self._ready:
            unused.close()


def fresh_socket() -> socket.socket:
    """Of the network namespace in which the calling thread is; it does not block."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _wait_executed(watch: _Watch) -> None:
    while not watch.timeline.wait_running(ALIVE_STEP_SECONDS):
        watch.check()
    watch.timeline.mark(Phase.RESPONDED, watch.timeline.running())


def _wait_log(watch: _Watch, pattern: re.Pattern[bytes]) -> None:
    opaque = watch.instance.opaque
    names = LOGS[2:] if opaque else LOGS[:2]
    step = CONSOLE_STEP_SECONDS if opaque else STEP_SECONDS
    logs = [_Growing(watch.instance.request.log_directory / name) for name in names]
    # Of a machine that is restored the log has a beginning before it runs.
    while (watch.timeline.running() is None and not opaque) or not any(log.matches(pattern) for log in logs):
        watch.check()
        time.sleep(step)
    watch.timeline.mark(Phase.RESPONDED, resolution_seconds=step)


class _Growing:
    """A log, of which only what is new is read, some at a time; of its last line what precedes it is kept. One that
    has become shorter was cut back in its middle, and is read anew.

    Lines are strangers', and so long as they like: one that is longer than `LONGEST_LINE_BYTES` is looked at in parts
    of that length, each of which begins in the middle of the one before. To look for ``a.*b`` takes a time that grows
    with the square of the length, and the whole process waits for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._kept = b""

    def matches(self, pattern: re.Pattern[bytes]) -> bool:
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._offset:
                self._offset, self._kept = 0, b""
            file.seek(self._offset)
            new = file.read(LOOKED_AT_BYTES)
            if new or not self._offset:
                self._offset += len(new)
                lines = re.findall(rb"[^\n]*\n|[^\n]+", self._kept + new) or [b""]
                self._kept = b"" if lines[-1].endswith(b"\n") else lines[-1][-LONGEST_LINE_BYTES:]
                return any(_holds(line, pattern) for line in lines)
        return False


def _holds(line: bytes, pattern: re.Pattern[bytes]) -> bool:
    line, step = line.replace(b"\r\n", b"\n"), LONGEST_LINE_BYTES // 2
    parts = range(0, max(len(line) - step, 1), step)
    return any(pattern.search(line, begin, begin + LONGEST_LINE_BYTES) is not None for begin in parts)


def _wait_healthy(watch: _Watch, health: Health) -> None:
    """The image's own check, again and again: a process is started for each, so the step is a longer one."""
    while not watch.timeline.wait_running(ALIVE_STEP_SECONDS):
        watch.check()
    while True:
        watch.check()
        probe = health.probe(max(STEP_SECONDS, watch.deadline - now()))
        if probe.exit_code == 0:
            watch.timeline.mark(Phase.RESPONDED, resolution_seconds=probe.seconds + HEALTH_STEP_SECONDS)
            return
        if now() < watch.deadline or not watch.last_answer:  # one that the deadline cut short tells less
            said = probe.output.decode(errors="replace").strip().splitlines()
            watch.last_answer = f"its HEALTHCHECK exits with {probe.exit_code}" + (f": {said[-1]}" if said else "")
        time.sleep(HEALTH_STEP_SECONDS)


def _wait_port(watch: _Watch, readiness: Readiness, address: tuple[str, int], sockets: _Sockets) -> None:
    while True:
        watch.check()
        step = watch.step_seconds()
        connected = _knock(address, sockets, step, watch)
        if connected is None:
            continue
        sockets.drop_pending()
        with connected:
            polled = max(step, sockets.since_latest_seconds())
            watch.timeline.mark(Phase.LISTENING, resolution_seconds=polled)
            if isinstance(readiness, TcpReadiness):
                watch.timeline.mark(Phase.RESPONDED, watch.timeline.at(Phase.LISTENING), resolution_seconds=polled)
                return
            if isinstance(readiness, TalkReadiness):
                wrong = ask_bytes(connected, readiness, watch.patience_seconds())
            else:
                assert isinstance(readiness, HttpReadiness)
                wrong = ask_http(connected, address, readiness, watch.patience_seconds())
            if now() < watch.deadline or not watch.last_answer:  # one that the deadline cut short tells less
                watch.last_answer = wrong and f"last answer: {wrong}"
            if not wrong:
                # An answer is an event; only the attempt's start was polled.
                watch.timeline.mark(Phase.RESPONDED, resolution_seconds=polled)
                return
        time.sleep(step)


def _knock(address: tuple[str, int], sockets: _Sockets, step_seconds: float, watch: _Watch) -> socket.socket | None:
    """Start one more connect, and give all that are pending a step's time; the first connected one, or None."""
    sockets.knock(address, watch.lost_after_seconds())
    if watch.began is None:
        watch.timeline.wait_first_of(REACHABLE, step_seconds)  # that ends the patient step at once
        step_seconds = 0.0
    return _first_connected(sockets.pending, step_seconds)


def _first_connected(pending: deque[_Attempt], timeout_seconds: float) -> socket.socket | None:
    """Wait until one of the pending connects succeeds; those that failed are closed and dropped."""
    end = now() + timeout_seconds
    poll = select.poll()  # select(2) would stop at descriptor 1023
    for waiting in pending:
        poll.register(waiting.socket, select.POLLOUT)
    by_descriptor = {waiting.socket.fileno(): waiting for waiting in pending}
    for descriptor, _ in poll.poll(timeout_seconds * 1000):
        tried = by_descriptor[descriptor]
        pending.remove(tried)
        if tried.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            return tried.socket
        tried.socket.close()
    if not pending:  # refused at once: the next attempt waits for its time all the same
        time.sleep(max(0.0, end - now()))
    return None


def ask_http(
    connected: socket.socket, address: tuple[str, int], readiness: HttpReadiness, patience_seconds: float
) -> str:
    """GET over a connected socket (HTTP/1.1, RFC 9112); "" when status and body are right, else what was wrong."""
    connected.settimeout(patience_seconds)
    request = f"GET {readiness.path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nConnection: close\r\n\r\n"
    try:
        connected.sendall(request.encode())
        response = http.client.HTTPResponse(connected, method="GET")
        try:
            response.begin()
            body = response.read(LARGEST_BODY_BYTES)
        finally:
            response.close()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    if response.status != readiness.status:
        return f"status {response.status} instead of {readiness.status}"
    if readiness.body.encode() not in body:
        return f"status {response.status}, but the body lacks {readiness.body!r}"
    return ""


def ask_bytes(connected: socket.socket, readiness: TalkReadiness, patience_seconds: float) -> str:
    """Send the bytes and read until the answer holds what is expected; "" when it does, else what was wrong."""
    deadline = now() + patience_seconds
    wanted, answer = readiness.expect.encode(), b""
    try:
        connected.settimeout(patience_seconds)
        connected.sendall(readiness.send.encode())
        while wanted not in answer and len(answer) < LARGEST_BODY_BYTES:
            connected.settimeout(max(STEP_SECONDS, deadline - now()))
            part = connected.recv(LARGEST_BODY_BYTES)
            if not part:
                break
            answer += part
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "" if wanted in answer else f"{answer[:80]!r} instead of {readiness.expect!r}"


def listeners(instance: Instance, port: int | None) -> str:
    """Why nobody answers at ``port``: what listens inside instead; "" when there is no port, or no telling."""
    if instance.opaque and instance.timeline.at(Phase.ADDRESSED) is None:
        return "it has asked for no address by DHCP"
    if port is None or instance.opaque:
        return ""
    try:
        tables = [json.loads(instance.inside("read", f"/proc/net/{name}").stdout)["text"] for name in ("tcp", "tcp6")]
    except (LabError, ValueError, KeyError):
        return ""
    found = [pair for table in tables for pair in listening_sockets(table or "")]
    here = [address for address, number in found if number == port]
    if here and all(address.is_loopback for address in here):
        return f"it listens on {here[0]} only: let it listen on 0.0.0.0"
    if here:
        return ""
    others = sorted({number for _, number in found})
    return f"nothing listens on port {port} inside" + (f", but on {', '.join(map(str, others))}" if others else "")


def listening_sockets(table: str, state: str = "0A") -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    """Addresses and ports in a state, TCP_LISTEN unless given, of /proc/net/tcp, tcp6, udp or udp6: words in host
    order (proc_net(5)).
    """
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 4 or words[3] != state:
            continue
        text, _, port = words[1].partition(":")
        raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
        yield ip_address(raw), int(port, 16)


def log_tail(directory: Path) -> str:
    """The last lines of the first log that holds any: the application's stderr, its stdout, the console."""
    for name in ("stderr.log", "stdout.log", "console.log"):
        if text := _read(directory / name).decode(errors="replace").strip():
            return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])
    return ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
