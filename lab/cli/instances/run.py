"""``lab run``: one copy of an image or scenario in the foreground, on any backend."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.instances.disk import refuse, require_vm, run_disk
from lab.cli.instances.foreground import Waited, foreground
from lab.cli.instances.request import (
    GRACE_SECONDS,
    NAME,
    find_image,
    parse_environment,
    parse_knobs,
    parse_port,
    parse_volume,
    parse_waited,
    require_usable,
)
from lab.commands.completion import complete_backend, complete_knob, complete_runnable
from lab.commands.disks import Backing, DiskFormat, is_meant
from lab.commands.interrupt import Interrupted, Interruptible
from lab.commands.measuring import limit
from lab.commands.output import patience
from lab.commands.privilege import require_root
from lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.backends.site import Site
    from lab.commands.terminal import Terminal
    from lab.images.store import Image
    from lab.instance import Instance, LaunchRequest
    from lab.model import Limits, PublishedPort


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
    from lab.cli.instances.detached import Wanted, run_detached
    from lab.commands.building.images import build_scenario
    from lab.commands.terminal import wanted_size
    from lab.model import Limits

    ports = tuple(parse_port(word) for word in publish or [])
    volumes = tuple(parse_volume(word) for word in volume or [])
    environment = parse_environment(env or [])
    knobs = parse_knobs(knob or [])
    if name and not NAME.fullmatch(name):
        raise UsageError(f"{name!r} can't be a name", hint="letters, digits, dots and dashes, like web-1")
    wanted = parse_waited(ready, port)
    limit(Limits(), memory, cpus, pids)  # refused before anything is built
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
                    limits = limit(Limits(), memory, cpus, None)
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
                    limit(limits, memory, cpus, pids),
                    name or "run",
                    ports,
                )
                request = replace(
                    request, stdin=0 if interactive else None, terminal=size, knobs=knobs, volumes=volumes
                )
                if explain:
                    from lab.cli.instances.explain import explained

                    request = explained(request, backend.kernel)
                with patience(f"lab: preparing {image.name} for {backend.name}; what is made now is kept"):
                    backend.prepare(request.image, request.knobs)
                code = foreground(
                    backend, request, interruptible, waited, interactive=interactive, attend=_attend, end=_end
                )
            finally:
                interruptible.disarm()  # closing the site is what leaves nothing behind
    except Interrupted as interrupted:
        raise typer.Exit(interrupted.exit_code) from None
    raise typer.Exit(code)


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


def _attend(instance: Instance, terminal: Terminal | None) -> None:
    if terminal is not None:
        instance.wait_executed()  # until then ^C is for lab: a guest boots
        terminal.hand_over(instance.resize)


def _end(instance: Instance, number: int) -> None:
    if instance.timeline.running() is not None:  # else nobody is there to hear it: a guest boots
        instance.signal(number)
        instance.wait(GRACE_SECONDS)
