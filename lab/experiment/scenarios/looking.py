"""What to wait for, and what to ask, when nobody says it: an application is started once and looked at.

    1. look      one copy on one of the backends: what it listens on is asked inside, by lab's helper, so that a
                 container and a guest are asked alike; then it is asked from outside, over HTTP
    2. settle    what was seen and what was said (scenario.toml, EXPOSE, HEALTHCHECK, the command line) become one
                 readiness, one port and one load, and sentences that say where each comes from

An application that ends during the look with exit code 0 is a batch job; one that ends otherwise has failed.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Protocol

from lab.errors import LabError, LaunchError, ScenarioError, UsageError
from lab.host.clock import now
from lab.instance import Backend, Instance, LaunchRequest
from lab.metrics.ready.health import readiness_of
from lab.metrics.ready.readiness import listening_sockets, log_tail
from lab.model import (
    DoneReadiness,
    HttpReadiness,
    ImageConfig,
    Kernel,
    Load,
    Readiness,
    Scenario,
    StartedReadiness,
    TalkReadiness,
    TcpReadiness,
)

if TYPE_CHECKING:
    import socket

LOOK_SECONDS = 20.0
"""So long may an application take, from its execve on, until it listens."""
EMULATED_LOOK_SECONDS = 120.0
STEP_SECONDS = 0.1
INNER_SECONDS = 4.0
"""So long after a socket at which nobody can be asked, one at which they can may follow."""
SETTLE_SECONDS = 0.5
"""From the first port until no further one is waited for."""
ANSWER_SECONDS = 10.0
MOST_ASKED = 8
PREFERENCE = ("container", "process")
"""Where to look first: what starts at once, behind a boundary if there is one."""
LONGEST_LINGER_SECONDS = 30.0


class Reachable(Protocol):
    """The network as the client sees it: makes sockets that reach every instance."""

    def socket(self) -> socket.socket: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One copy of the application, looked at for ``seconds`` from its execve on.

    ``ports`` accepted a connection from outside, over IPv4, in ascending order; ``answers`` has the status of GET
    ``path`` at those of them that speak HTTP. ``inner`` are addresses that it listens on and nobody outside reaches.
    ``exit_code`` is None while it ran; ``tail`` is then what it said last.
    """

    backend: str
    seconds: float
    ports: tuple[int, ...] = ()
    answers: Mapping[int, int] = field(default_factory=dict)
    path: str = "/"
    inner: tuple[str, ...] = ()
    udp: tuple[int, ...] = ()
    exit_code: int | None = None
    tail: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether it ended otherwise than with exit code 0."""
        return self.exit_code not in (None, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The scenario with nothing left open, the sentences that say why, and how long after its execve an application
    that is asked nothing is watched before its start counts as one.
    """

    scenario: Scenario
    found: tuple[str, ...] = ()
    linger_seconds: float = 1.0


def is_needed(scenario: Scenario, config: ImageConfig, *, loaded: bool) -> bool:
    """Whether there is anything that only a look can tell; ``loaded``: whether a load shall be offered."""
    readiness = scenario.readiness or readiness_of(config)
    port = scenario.port or config.exposed_ports
    if readiness is None or (isinstance(readiness, HttpReadiness | TcpReadiness | TalkReadiness) and not port):
        return True
    silent = isinstance(readiness, HttpReadiness | TalkReadiness | StartedReadiness | DoneReadiness)
    return loaded and scenario.load is None and scenario.work is None and not silent


def order(backends: Iterable[Backend]) -> list[Backend]:
    """The backends in the order in which they are looked at, until the application does not fail."""
    first = {name: place for place, name in enumerate(PREFERENCE)}
    return sorted(backends, key=lambda backend: (first.get(backend.name, len(first)), backend.order))


def look(
    backend: Backend, request: LaunchRequest, network: Reachable, *, ports: Sequence[int] = (), path: str = "/"
) -> Seen:
    """Start one copy and see what becomes of it. Of ``ports``, where there are any, one is waited for.

    Raises LabError when it can't be launched for a reason that is not the application's.
    """
    backend.prepare(request.image, request.knobs)
    try:
        with backend.launch(request) as instance:
            instance.wait_executed()
            return observe(instance, backend, network, frozenset(ports), path)
    except LaunchError as error:
        if error.exit_code not in (126, 127):  # of a program that can't be executed, as in a shell
            raise
        return Seen(backend=backend.name, seconds=0.0, exit_code=error.exit_code, tail=error.message)


def observe(instance: Instance, backend: Backend, network: Reachable, wanted: frozenset[int], path: str) -> Seen:
    """See what becomes of an instance whose application executes: see `look`, whose ``ports`` are ``wanted`` here."""
    began = now()
    limit = EMULATED_LOOK_SECONDS if backend.kernel is Kernel.OWN else LOOK_SECONDS
    outer: set[int] = set()
    inner: dict[str, None] = {}
    unasked = 0.0
    while now() - began < limit:
        code = instance.wait(STEP_SECONDS)
        if code is None:
            outer, inner = _listening(instance)
            if not outer and (inner or _udp(instance)):
                unasked = unasked or now()
            waited = unasked and now() - unasked > INNER_SECONDS
            if not (outer & wanted if wanted else outer) and (outer or not waited):
                continue
            code = instance.wait(SETTLE_SECONDS)
            outer, inner = (outer, inner) if code is not None else _listening(instance)
        if code is None:
            break
        lived, said = now() - began, log_tail(instance.request.log_directory)
        return Seen(backend=backend.name, seconds=lived, exit_code=code, tail=said)
    chosen = sorted(outer, key=lambda port: (port not in wanted, port))[:MOST_ASKED]
    asked = {port: _ask(network, instance.address, port, path, began + limit) for port in chosen}
    return Seen(
        backend=backend.name,
        seconds=now() - began,
        ports=tuple(sorted(port for port, status in asked.items() if status is not None)),
        answers={port: status for port, status in asked.items() if status},
        path=path,
        inner=(*inner, *(f"{UNREACHED}{port}" for port, status in asked.items() if status is None)),
        udp=_udp(instance) if not outer else (),
    )


def _listening(instance: Instance) -> tuple[set[int], dict[str, None]]:
    """The TCP ports that others might reach, and the addresses that are for itself alone."""
    outer: set[int] = set()
    inner: dict[str, None] = {}
    for address, port in _sockets(instance, "tcp", "tcp6"):
        if address.is_loopback:
            shown = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
            inner[shown] = None
        else:
            outer.add(port)
    return outer, inner


def _sockets(instance: Instance, *tables: str, state: str = "0A") -> list[tuple[IPv4Address | IPv6Address, int]]:
    """What /proc/net says inside; of an instance that ends meanwhile, or has no /proc, nothing."""
    found: list[tuple[IPv4Address | IPv6Address, int]] = []
    for table in tables:
        try:
            text = json.loads(instance.inside("read", f"/proc/net/{table}").stdout)["text"] or ""
        except (LabError, OSError, ValueError, KeyError):
            continue
        found += listening_sockets(text, state)
    return found


def _udp(instance: Instance) -> tuple[int, ...]:
    """UDP ports that are bound and connected to nobody: TCP_CLOSE, 07, is what proc_net(5) calls that."""
    return tuple(sorted({port for _, port in _sockets(instance, "udp", "udp6", state="07")}))


def _ask(network: Reachable, address: IPv4Address, port: int, path: str, deadline: float) -> int | None:
    """The status of GET ``path``, asked again while it is one of the server's errors and there is time; 0 of one that
    accepts a connection and speaks no HTTP, None of one that accepts none.
    """
    while True:
        status = _ask_once(network, address, port, path)
        if status is None or status < 500 or now() >= deadline:
            return status


def _ask_once(network: Reachable, address: IPv4Address, port: int, path: str) -> int | None:
    with network.socket() as connected:
        connected.settimeout(ANSWER_SECONDS)
        try:
            connected.connect((str(address), port))
        except OSError:
            return None
        request = f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n\r\n"
        try:
            connected.sendall(request.encode())
            response = http.client.HTTPResponse(connected, method="GET")
            try:
                response.begin()
                return response.status
            finally:
                response.close()
        except (OSError, http.client.HTTPException):
            return 0


def settle(scenario: Scenario, config: ImageConfig, looks: Sequence[Seen] = (), *, loaded: bool = True) -> Settled:
    """What is waited for and asked of every instance. Raises UsageError or ScenarioError when that is not clear.

    ``looks`` are none when nothing had to be looked for, else one on each backend until the application did not fail.
    """
    readiness = scenario.readiness or readiness_of(config)
    port, whose = scenario.port, "as it was asked for"
    if port is None and config.exposed_ports:
        port, whose = config.exposed_ports[0], "the image's EXPOSE"
    if not looks:
        return _with_load(Settled(scenario=replace(scenario, port=port, readiness=readiness)), None, loaded)
    seen = looks[-1]
    if seen.has_failed:
        ended = ", ".join(each.backend for each in looks)
        found = (f"looked at before the run, it ended with exit code {seen.exit_code} on {ended}",)
        asked = replace(scenario, port=port, readiness=readiness or StartedReadiness())
        return Settled(scenario=asked, found=found, linger_seconds=_linger_seconds(looks))
    if seen.exit_code == 0:
        return _batch(scenario, seen, readiness, port)
    chosen = _choose(scenario, config, seen)
    if chosen is None:
        return replace(_silent(scenario, seen, readiness, port), linger_seconds=_linger_seconds(looks))
    if chosen != port:
        whose = "found by looking" if port is None else f"found by looking, since nobody listens on {port}, {whose}"
    settled = replace(scenario, port=chosen, readiness=readiness or _readiness(seen, chosen))
    return _with_load(Settled(scenario=settled, found=(_told(seen, chosen, whose),)), seen, loaded)


def _linger_seconds(looks: Sequence[Seen]) -> float:
    """Half as long again as the copies lived that failed: others that fail are not to look alive before."""
    longest = max((look.seconds for look in looks if look.has_failed), default=0.0)
    return min(LONGEST_LINGER_SECONDS, max(1.0, 1.5 * longest))


def _readiness(seen: Seen, port: int) -> Readiness:
    status = seen.answers.get(port)
    return TcpReadiness() if status is None else HttpReadiness(path=seen.path, status=status)


def _told(seen: Seen, port: int, whose: str) -> str:
    status = seen.answers.get(port)
    asked = f"GET {seen.path} answered {status}" if status else "it accepted a connection, and answered no HTTP"
    others = [str(other) for other in seen.ports if other != port]
    beside = f"; it listens on {', '.join(others)} too, which is not asked" if others else ""
    return f"port {port} {'is ' if whose.startswith('the ') else ''}{whose}; {asked}{beside}"


def _choose(scenario: Scenario, config: ImageConfig, seen: Seen) -> int | None:
    """The port to ask: the one that was asked for, the first of EXPOSE that is open, the only one, or the only one
    that speaks HTTP; None when there is none. Raises UsageError when there are several, and ScenarioError when nobody
    outside reaches it.
    """
    if scenario.port is not None and scenario.port not in seen.ports:
        there = f"it listens on {', '.join(map(str, seen.ports))}" if seen.ports else _why_not(seen)
        hint = " or ".join(f"--port {port}" for port in seen.ports) or HINT
        raise ScenarioError(f"nobody answers on port {scenario.port} of {scenario.name}: {there}", hint=hint)
    declared = [scenario.port] if scenario.port is not None else config.exposed_ports
    for port in declared:
        if port in seen.ports:
            return port
    if not seen.ports and seen.inner:
        raise ScenarioError(f"nobody outside reaches {scenario.name}: {_why_not(seen)}", hint=HINT)
    speaking = [port for port in seen.ports if port in seen.answers] or list(seen.ports)
    if len(speaking) > 1:
        listed = ", ".join(f"{port} (GET / answered {seen.answers[port]})" if port in seen.answers else str(port)
                           for port in seen.ports)  # fmt: skip
        choices = " or ".join(f"--port {port}" for port in speaking)
        raise UsageError(
            f"{scenario.name} listens on several ports: {listed}", hint=f"say which one to ask: {choices}"
        )
    return speaking[0] if speaking else None


HINT = (
    "let it listen on 0.0.0.0 (Flask: host='0.0.0.0') or on both (:: without IPV6_V6ONLY), or measure without "
    "asking: --ready log:REGEX, --ready started"
)
UNREACHED = "port "
"""How a port in `Seen.inner` begins that is nobody's loopback, and accepts nothing all the same."""


def _why_not(seen: Seen) -> str:
    if not seen.inner:
        return "it listens on no TCP port"
    where = f"it listens on {', '.join(seen.inner)} alone"
    if any(text.startswith(UNREACHED) for text in seen.inner):
        where += ", for IPv6 and not for IPv4 (IPV6_V6ONLY), and lab's network has IPv4 alone"
    return where


def _batch(scenario: Scenario, seen: Seen, readiness: Readiness | None, port: int | None) -> Settled:
    """It has ended by itself and is content: a batch job, unless somebody says what to wait for."""
    told = "it ended by itself with exit code 0: a batch job, measured until it is done"
    if readiness is not None:
        return Settled(scenario=replace(scenario, port=port, readiness=readiness))
    limit = max(scenario.ready_timeout_seconds, 30 * seen.seconds)
    settled = replace(scenario, port=port, readiness=DoneReadiness(), load=None, ready_timeout_seconds=limit)
    return Settled(scenario=settled, found=(told,))


def _silent(scenario: Scenario, seen: Seen, readiness: Readiness | None, port: int | None) -> Settled:
    """It runs on and listens nowhere."""
    if isinstance(readiness, HttpReadiness | TcpReadiness | TalkReadiness):
        raise ScenarioError(
            f"{scenario.name} listens on no TCP port {seen.seconds:.0f} s after its start", hint="--port, --ready"
        )
    what = f"it listens on UDP port {', '.join(map(str, seen.udp))}, which lab can't ask" if seen.udp else (
        f"it listened on no port within {seen.seconds:.0f} s, and ran on"
    )  # fmt: skip
    if readiness is not None:
        return Settled(scenario=replace(scenario, port=port, readiness=readiness), found=(f"no load: {what}",))
    advice = "nothing is asked of it; --ready done, for a job that takes longer, or log:REGEX says more"
    settled = replace(scenario, port=port, readiness=StartedReadiness(), load=None)
    return Settled(scenario=settled, found=(f"{what}: {advice}",))


def _with_load(settled: Settled, seen: Seen | None, loaded: bool) -> Settled:
    """GET on its HTTP port, for an application that says nothing of a load and brings no work of its own."""
    scenario = settled.scenario
    if not loaded or scenario.load is not None or scenario.work is not None or scenario.port is None:
        return settled
    if isinstance(scenario.readiness, HttpReadiness):
        path, status = scenario.readiness.path, scenario.readiness.status
    elif seen is not None and scenario.port in seen.answers:
        path, status = seen.path, seen.answers[scenario.port]
    else:
        return settled
    if status >= 400:  # wrk counts such answers as failed ones
        return replace(settled, found=(*settled.found, f"no load: GET {path} answers {status}"))
    return replace(
        settled,
        scenario=replace(scenario, load=Load(path=path)),
        found=(*settled.found, f"load: GET {path}, since the scenario says nothing of one"),
    )
