"""``lab run``: one copy of an image or scenario in the foreground, on any backend."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.completion import complete_backend, complete_knob, complete_runnable
from lab.cli.interrupt import Interrupted, Interruptible
from lab.cli.owndisk import Backing, DiskFormat, Waited, is_meant, refuse, require_vm, run_disk
from lab.cli.privilege import require_root
from lab.cli.ready import parse_ready
from lab.cli.shape import patience, say
from lab.errors import BackendUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.backends.site import Site
    from lab.images.store import Image, Store
    from lab.instance import Backend, Instance, LaunchRequest
    from lab.model import Limits, PublishedPort, Readiness, Scenario, Volume

GRACE_SECONDS = 10.0
NOT_EXECUTED = (126, 127)  # as a shell says of a program that is none, or is not there
LOOPBACK = "127.0.0.1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")  # it is the hostname too (hostname(7))


def run(
    what: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|SCENARIO|DISK",
            help="An image, a scenario or its folder; with --on vm a bootable disk of yours, too.",
            autocompletion=complete_runnable,
        ),
    ],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- CMD…]", help="Instead of the image's CMD.")
    ] = None,
    on: Annotated[
        str, typer.Option("--on", metavar="BACKEND", help="Where to run it.", autocompletion=complete_backend)
    ] = "container",
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--publish",
            metavar="[ADDRESS:]H:C",
            help="Port H of the host's ADDRESS leads to port C. Default: 127.0.0.1, for this host alone.",
        ),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "-v", "--volume", metavar="HOST:PATH[:ro]", help="Show it a file or folder of the host's at PATH."
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("-e", "--env", metavar="K=V", help="Set an environment variable.")
    ] = None,
    memory: Annotated[str, typer.Option("--memory", "-m", metavar="SIZE", help="Memory limit, like 256M.")] = "",
    cpus: Annotated[str, typer.Option("--cpus", metavar="N", help="CPU limit, like 0.5.")] = "",
    pids: Annotated[int | None, typer.Option("--pids", min=1, metavar="N", help="Limit of processes.")] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            "--knob",
            metavar="K=LEVEL",
            help="Set a knob of the backend, like firmware=ovmf; lab compare --factors.",
            autocompletion=complete_knob,
        ),
    ] = None,
    rm: Annotated[
        bool, typer.Option("--rm", help="With -d: forget it when it ends, its logs too. Without, lab always does.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Let it run in the background, and print its name.")
    ] = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Give it standard input.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="With -d: return when its HEALTHCHECK or its first published port answers.")
    ] = False,
    ready: Annotated[
        str,
        typer.Option("--ready", metavar="HOW", help="Say when it is ready: http:/path, tcp, log:REGEX."),
    ] = "",
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, metavar="N", help="The TCP port that --ready asks.")
    ] = None,
    disk_format: DiskFormat = "",
    backing: Backing = None,
    name: Annotated[str, typer.Option("--name", help="Its name, and its hostname.")] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Print each step of its start, where to read on, how long it took.")
    ] = False,
) -> None:
    """Run one copy on any backend, in the foreground or with -d.

    Its output and exit code are the application's. Ctrl-C stops it; nothing is left behind.
    With -it it gets a terminal of its own: every key goes there, ^C as well.
    With -d it goes on by itself; see lab ps, logs, exec, stop.

    A scenario, or any folder with a Dockerfile, is built first.
    A disk is never written to, and ends with its system; its serial port is the output, and with -it the terminal.
    """
    from lab.backends.site import Site
    from lab.backends.support.streams import DEFAULT_TERM
    from lab.cli.build import build_scenario
    from lab.cli.detached import Wanted, run_detached
    from lab.cli.terminal import wanted_size
    from lab.model import Limits

    ports = tuple(parse_port(word) for word in publish or [])
    volumes = tuple(parse_volume(word) for word in volume or [])
    environment = parse_environment(env or [])
    knobs = parse_knobs(knob or [])
    if name and not NAME.fullmatch(name):
        raise UsageError(f"{name!r} can't be a name", hint="letters, digits, dots and dashes, like web-1")
    wanted = parse_waited(ready, port)
    merge(Limits(), memory, cpus, pids)  # refused before anything is built
    disk = is_meant(what, disk_format)
    if disk:
        require_vm(what, on)
        inside = {"CMD": command, "-v": volumes, "-e": env, "--pids": pids, "-d": detach, "--explain": explain}
        refuse(what, inside)
    elif backing:
        raise UsageError(f"--backing is about disks, and {what} is none", hint="leave it out")
    require_root()
    size = wanted_size(interactive=interactive) if tty else None
    if detach and (interactive or tty):
        raise UsageError("-i and -t need the foreground", hint="leave out -d, or: lab exec -it NAME CMD…")
    if wait and not detach:
        raise UsageError("--wait is for what goes on in the background", hint="add -d")
    if detach:
        if wanted:
            raise UsageError("--ready needs the foreground", hint="leave out -d, or: --wait")
        if explain:
            raise UsageError("--explain needs the foreground", hint="leave out -d")
        print(
            run_detached(
                Wanted(
                    what=what,
                    command=command or [],
                    backend=on,
                    ports=ports,
                    volumes=volumes,
                    wait=wait,
                    environment=environment,
                    memory=memory,
                    cpus=cpus,
                    pids=pids,
                    name=name,
                    remove=rm,
                    knobs=knobs,
                )
            )
        )
        return
    try:
        with Interruptible() as interruptible, Site.open() as site:
            try:
                waited = Waited(site, *wanted) if wanted else None
                if disk:
                    limits = merge(Limits(), memory, cpus, None)
                    code = run_disk(
                        site, what, interruptible, form=disk_format, backing=backing or [], knobs=knobs,
                        limits=limits, name=name or "run", ports=ports, interactive=interactive, size=size,
                        waited=waited,
                    )  # fmt: skip
                    raise typer.Exit(code)
                backend = require_usable(site.backend(on))
                backend.settle(knobs)
                backend.check_volumes(volumes)
                image, given, limits = find_image(site.store, what, lambda one: build_scenario(site, one))
                request = _request(
                    site,
                    image,
                    command or [],
                    {**({"TERM": DEFAULT_TERM} if tty else {}), **given, **environment},
                    merge(limits, memory, cpus, pids),
                    name or "run",
                    ports,
                )
                request = replace(
                    request, stdin=0 if interactive else None, terminal=size, knobs=knobs, volumes=volumes
                )
                if explain:
                    from lab.cli.explain import explained

                    request = explained(request, backend.kernel)
                code = _in_foreground(backend, request, interruptible, waited)
            finally:
                interruptible.disarm()  # closing the site is what leaves nothing behind
    except Interrupted as interrupted:
        raise typer.Exit(interrupted.exit_code) from None
    raise typer.Exit(code)


def parse_port(word: str) -> PublishedPort:
    """``8080:5000``, ``5000`` for any free port of the host, or ``0.0.0.0:8080:5000``. Raises UsageError.

    The address is one of the host's, an IPv6 one in brackets; without one it is 127.0.0.1, for this host alone.
    """
    from ipaddress import ip_address

    from lab.model import PublishedPort

    match _port_parts(word):
        case [instance]:
            address, host = LOOPBACK, "0"
        case [host, instance]:
            address = LOOPBACK
        case [address, host, instance]:
            host = host or "0"  # any free port of that address, as Docker has it
        case _:
            address = host = instance = ""
    numbers = [number for number in (host, instance) if number.isascii() and number.isdigit()]
    try:
        at, ports = str(ip_address(address)), [int(number) for number in numbers]
    except ValueError:
        at, ports = "", []
    if not at or len(ports) != 2 or max(ports) > 65535 or not ports[1]:
        raise UsageError(
            f"-p {word}: not [ADDRESS:]HOST_PORT:PORT", hint="write for example -p 8080:5000, or -p 0.0.0.0:8080:5000"
        )
    return PublishedPort(host_port=ports[0], instance_port=ports[1], address=at)


def parse_volume(word: str) -> Volume:
    """``HOST:PATH`` or ``HOST:PATH:ro``. The host's path is looked up once, here. Raises UsageError."""
    from lab.model import Volume

    source, _, rest = word.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or target == "/" or mode not in ("", "ro", "rw"):
        raise UsageError(f"-v {word}: not HOST:PATH[:ro]", hint="write for example -v ./data:/data:ro")
    if "/" not in source and not Path(source).exists():
        raise UsageError(
            f"-v {word}: there is no {source} here, and lab keeps no named volumes", hint=f"mkdir {source}"
        )
    found = Path(source).resolve()
    if not found.exists():
        raise UsageError(f"-v {word}: there is no {source} on this host", hint=f"mkdir -p {source}")
    return Volume(source=str(found), target=target, read_only=mode == "ro")


def parse_environment(words: list[str]) -> dict[str, str]:
    """``K=V`` each; a bare ``K`` takes lab's own value and is left out when there is none. Raises UsageError."""
    import os

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key:
            raise UsageError(f"-e {word}: no name before the =", hint="write for example -e GREETING=hello")
        if equals:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


def parse_knobs(words: list[str]) -> dict[str, str]:
    """``NAME=LEVEL`` each; which there are, the backend knows. Raises UsageError."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, level = word.partition("=")
        if not (name and equals and level):
            raise UsageError(f"--knob {word}: not NAME=LEVEL", hint="write for example --knob console=off")
        if name in found:
            raise UsageError(f"--knob {name} is given twice", hint="once is enough")
        found[name] = level
    return found


def merge(limits: Limits, memory: str, cpus: str, pids: int | None) -> Limits:
    """The scenario's limits, replaced by those of the command line. Raises UsageError."""
    from lab.host.units import parse_bytes, parse_cpus
    from lab.model import Limits

    return Limits(
        memory_bytes=parse_bytes(memory) if memory else limits.memory_bytes,
        cpus=parse_cpus(cpus) if cpus else limits.cpus,
        pids=limits.pids if pids is None else pids,
    )


def parse_waited(ready: str, port: int | None) -> tuple[Readiness, int | None] | None:
    """What ``--ready`` and ``--port`` say, None where they say nothing. Raises UsageError."""
    from lab.model import HttpReadiness, LogReadiness, TcpReadiness

    if not ready:
        if port:
            raise UsageError("--port is what --ready asks", hint="--ready tcp, or --ready http:/path")
        return None
    readiness = parse_ready(ready)
    if not isinstance(readiness, HttpReadiness | TcpReadiness | LogReadiness):
        raise UsageError(f"--ready {ready} tells nothing here", hint="http:/path, tcp or log:REGEX")
    if isinstance(readiness, LogReadiness) == bool(port):
        wrong = "asks no port" if port else "asks a port"
        raise UsageError(f"--ready {ready} {wrong}", hint="leave out --port" if port else "--port N")
    return readiness, port


def require_usable(backend: Backend) -> Backend:
    """The backend, refused before anything is built when this host can't run it."""
    for check in backend.check():
        if not check.ok:
            raise BackendUnavailable(f"{backend.name} can't run here: {check.name}: {check.found}", hint=check.remedy)
    return backend


def find_image(
    store: Store, what: str, build: Callable[[Scenario], Image]
) -> tuple[Image, Mapping[str, str], Limits]:
    """The image, with the environment and limits of its scenario if it is one, which is built first."""
    from lab.errors import ImageError, ScenarioError
    from lab.experiment import scenario as scenarios
    from lab.model import Limits

    try:
        scenarios.locate(what)
    except ScenarioError as no_scenario:
        try:
            return store.find(what), {}, Limits()
        except ImageError:
            if Path(what).is_dir():
                raise no_scenario from None
            raise ImageError(
                f"no image, scenario or folder is called {what}",
                hint=f"scenarios: {', '.join(scenarios.names())}; images: lab image ls; or: lab build DIR -t {what}",
            ) from None
    scenario = scenarios.load(what)
    return build(scenario), scenario.environment, scenario.limits


def _request(
    site: Site,
    image: Image,
    command: list[str],
    environment: Mapping[str, str],
    limits: Limits,
    name: str,
    ports: tuple[PublishedPort, ...],
) -> LaunchRequest:
    from lab.images.process import resolve
    from lab.instance import LaunchRequest

    logs = site.scratch / "logs" / name
    logs.mkdir(parents=True)
    return LaunchRequest(
        name=name,
        image=image,
        process=resolve(image, site.store.lower_directories(image), argv=command, environment=environment),
        limits=limits,
        log_directory=logs,
        published=ports,
        stdout=sys.stdout.fileno(),
        stderr=sys.stderr.fileno(),
    )


def _in_foreground(
    backend: Backend, request: LaunchRequest, interruptible: Interruptible, waited: Waited | None
) -> int:
    """Launch, wait, stop. A signal is passed on; who sends a second one wants it dead now."""
    import signal
    from threading import Thread

    from lab.cli.terminal import Terminal

    with patience(f"lab: preparing {request.image.name} for {backend.name}; what is made now is kept"):
        backend.prepare(request.image, request.knobs)
    interruptible.hold()
    place = Terminal(interactive=request.stdin is not None) if request.terminal else nullcontext()
    with place as terminal, backend.launch(request) as instance:
        try:
            interruptible.release()
            announce(instance)
            if waited is not None:
                waited.begin(instance)
            if terminal is not None:
                instance.wait_executed()  # until then ^C is for lab: a guest boots
                terminal.hand_over(instance.resize)
            code = instance.wait()
            assert code is not None, "waiting without a limit ends with the instance"
            if code in NOT_EXECUTED and instance.timeline.running() is None:
                instance.wait_executed()  # it raises, and says what could not be executed
        except Interrupted as interrupted:
            # from a thread: the handler may have interrupted the holder of a lock that sending needs
            kill = Thread(target=instance.signal, args=(signal.SIGKILL,), daemon=True)
            interruptible.when_impatient = lambda: None if kill.ident else kill.start()
            if instance.timeline.running() is not None:  # else nobody is there to hear it: a guest boots
                instance.signal(interrupted.number)
                instance.wait(GRACE_SECONDS)
            raise
        finally:
            interruptible.disarm()
    return code


def announce(instance: Instance) -> None:
    """Say where its published ports are."""
    for port in instance.published:
        say(f"lab: {instance.name} listens on http://{port.host} (its port {port.instance_port}){_reach(port)}")


def _reach(port: PublishedPort) -> str:
    """Who else can reach it, where that is not this host alone."""
    from ipaddress import ip_address

    return "" if ip_address(port.address).is_loopback else ", for every host that reaches that address"


def _port_parts(word: str) -> list[str]:
    """``[::1]:8080:80`` in three, ``8080:80`` in two; any number of parts for what is no port."""
    if word.startswith("["):
        address, bracket, rest = word[1:].partition("]:")
        return [address, *rest.split(":")] if bracket else [word]
    return word.split(":")
