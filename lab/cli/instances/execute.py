"""``lab exec``: one more command in a detached instance."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.completion import complete_instance
from lab.errors import LaunchError

if TYPE_CHECKING:
    from lab.commands.console.terminal import Terminal
    from lab.model import TerminalSize
    from lab.runtime.channel import Channel


def execute(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_instance)],
    command: Annotated[list[str], typer.Argument(metavar="CMD…")],
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Give it standard input.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
    env: Annotated[
        list[str] | None, typer.Option("-e", "--env", metavar="K=V", help="Set an environment variable.")
    ] = None,
    directory: Annotated[str, typer.Option("--workdir", "-w", metavar="DIR", help="Where it starts.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", metavar="USER[:GROUP]", help="Who runs it.")] = "",
) -> None:
    """Run a command in an instance, and end with its exit code.

    It runs behind the same boundary as the application. With -it it gets a terminal of its own, in a virtual machine
    too: every key goes there, ^C as well.
    """
    from lab.cli.instances.request import parse_environment
    from lab.commands.console import terminal
    from lab.supervisor import client
    from lab.supervisor.record import find

    size = terminal.wanted_size(interactive=interactive) if tty else None
    record = find(name)
    command = command[1:] if command[0] == "--" else command  # as other lab commands want it; Docker does without
    environment = parse_environment(env or [])
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    with terminal.Terminal(interactive=interactive) if size else nullcontext() as place:
        channel = client.begin(
            record,
            command,
            descriptors=(0 if interactive else null, 1, 2),
            environment=environment,
            directory=directory,
            user=user,
            terminal=size,
        )
        code = _follow(channel, place, f"{command[0]} was killed: the supervisor of {record.name} has died")
    raise typer.Exit(code)


def _follow(channel: Channel, place: Terminal | None, lost: str) -> int:
    """Its exit code when it has ended; changes of the terminal's size are passed on until then."""
    from lab.runtime.channel import ChannelClosed
    from lab.supervisor import client, control

    def resize(size: TerminalSize) -> None:
        with suppress(ChannelClosed, OSError):  # the command is over
            channel.send(control.Request.RESIZE, rows=size.rows, columns=size.columns)

    try:
        if place is not None:
            place.hand_over(resize)
        return int(str(client.answer(channel, control.Answer.EXITED)["code"]))
    except ChannelClosed:
        raise LaunchError(lost, exit_code=137) from None
    finally:
        channel.close()
