"""``lab run``: one copy of an image or scenario in the foreground, on any backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.instances.request import NAME, parse_environment, parse_knobs, parse_port, parse_volume, parse_waited
from lab.commands.completion import complete_backend, complete_knob, complete_runnable
from lab.commands.interrupt import Interrupted
from lab.commands.measuring import limit
from lab.commands.options.brought import Docker, hosted, one
from lab.commands.options.disks import Backing, DiskFormat, is_meant
from lab.commands.options.limits import require_given
from lab.commands.privilege import become_root
from lab.commands.running.disk import refuse, require_vm
from lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.instance import LaunchRequest
    from lab.model import Kernel


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
        str,
        typer.Option(
            "--on",
            metavar="BACKEND",
            help="Where to run it; oci:PATH on an OCI runtime of yours.",
            autocompletion=complete_backend,
        ),
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
    docker: Docker = "",
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
    from lab.commands.console.terminal import wanted_size
    from lab.commands.running.attached import run_attached
    from lab.commands.running.detached import run_detached
    from lab.commands.running.wanted import Wanted
    from lab.model import Limits

    ports = tuple(parse_port(word) for word in publish or [])
    volumes = tuple(parse_volume(word) for word in volume or [])
    environment = parse_environment(env or [])
    knobs = parse_knobs(knob or [])
    if name and not NAME.fullmatch(name):
        raise UsageError(f"{name!r} can't be a name", hint="letters, digits, dots and dashes, like web-1")
    waited = parse_waited(ready, port)
    limits = limit(Limits(), memory, cpus, pids)
    is_disk = is_meant(what, disk_format)
    if is_disk:
        require_vm(what, on)
        inside = {"CMD": command, "-v": volumes, "-e": env, "--pids": pids, "-d": detach, "--explain": explain}
        refuse(what, inside)
    elif backing:
        raise UsageError(f"--backing is about disks, and {what} is none", hint="leave it out")
    on = one(hosted(on, docker))
    become_root(on)
    require_given(limits)
    size = wanted_size(interactive=interactive) if tty else None
    if detach and (interactive or tty):
        raise UsageError("-i and -t need the foreground", hint="leave out -d, or: lab exec -it NAME CMD…")
    if detach and docker:
        raise UsageError("what runs in an engine that is not lab's needs the foreground", hint="leave out -d")
    if wait and not detach:
        raise UsageError("--wait is for what goes on in the background", hint="add -d")
    if detach:
        if waited:
            raise UsageError("--ready needs the foreground", hint="leave out -d, or: --wait")
        if explain:
            raise UsageError("--explain needs the foreground", hint="leave out -d")
    wanted = Wanted(
        what=what, backend=on, command=command or [], ports=ports, volumes=volumes, environment=environment,
        limits=limits, knobs=knobs, name=name, remove=rm, wait=wait, interactive=interactive, size=size,
        waited=waited, is_disk=is_disk, form=disk_format, backing=backing or [],
    )  # fmt: skip
    if detach:
        print(run_detached(wanted))
        return
    try:
        code = run_attached(wanted, _told() if explain else None)
    except Interrupted as interrupted:
        code = interrupted.exit_code
    raise typer.Exit(code)


def _told() -> Callable[[LaunchRequest, Kernel], LaunchRequest]:
    from lab.cli.instances.explain import explained  # which knows the steps of every backend

    return explained
