"""``lab stop``, ``lab kill``, ``lab rm``, ``lab wait``, ``lab start``: how detached instances end, and begin anew."""

from __future__ import annotations

import signal as signals
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.instances.common import each
from lab.commands.completion import complete_instance
from lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from lab.supervisor.record import InstanceRecord

Names = Annotated[list[str], typer.Argument(metavar="NAME…", autocompletion=complete_instance)]

GRACE_SECONDS = 10.0


def complete_signal(incomplete: str) -> list[str]:
    return [one.name for one in signals.Signals if one.name.startswith(incomplete.upper())]


def stop(
    names: Names,
    seconds: Annotated[
        float, typer.Option("--time", "-t", min=0, metavar="SECONDS", help="How long to wait before it is killed.")
    ] = GRACE_SECONDS,
) -> None:
    """Stop instances: their stop signal, time to obey, SIGKILL. Their record and logs stay.

    A guest gets its signal as a container does; then its plug is pulled.
    """
    from lab.supervisor import client

    each(names, lambda record: client.stop(record, seconds), together=True)


def start(names: Names) -> None:
    """Start instances that have ended anew, from their image.

    They get the options they had. What they had written into their own files is gone; their logs go on.
    One that runs is left as it is.
    """
    from lab.supervisor import client

    each(names, client.start_again, together=True)


def kill(
    names: Names,
    signal: Annotated[
        str,
        typer.Option("--signal", "-s", metavar="SIGNAL", help="Another one.", autocompletion=complete_signal),
    ] = "KILL",
) -> None:
    """Send instances a signal, SIGKILL unless another is named."""
    from lab.supervisor import client

    number = parse_signal(signal)

    def send(record: InstanceRecord) -> None:
        if not record.runs:
            raise LabError(f"instance {record.name} does not run", hint="lab ps")
        client.signal(record, number)

    each(names, send)


def rm(
    names: Names,
    force: Annotated[bool, typer.Option("--force", "-f", help="Kill what still runs.")] = False,
) -> None:
    """Remove instances that have ended: record and logs.

    With -f it is enough that there is none of that name afterwards.
    """
    from lab.supervisor import client, record

    def remove(one: InstanceRecord) -> None:
        if one.runs and not force:
            raise LabError(f"instance {one.name} runs", hint=f"lab stop {one.name}, or lab rm -f {one.name}")
        client.stop(one, 0.0)
        record.remove(one)

    each(names, remove, together=True, absent_ok=force)


def wait(names: Names) -> None:
    """Wait until instances have ended, and print their exit codes."""
    from lab.supervisor import client

    def until_end(record: InstanceRecord) -> None:
        ended = client.wait(record)
        if ended is None:
            raise LabError(f"instance {record.name} was removed")
        if ended.exit_code is None:
            raise LabError(f"the exit code of {record.name} is not known: {ended.error}")
        print(ended.exit_code, flush=True)

    each(names, until_end, say=False)


def parse_signal(word: str) -> int:
    """``KILL``, ``SIGKILL`` or ``9``. Raises UsageError."""
    text = word.upper()
    name = text if text.startswith("SIG") else f"SIG{text}"
    if text.isdigit() and int(text) in set(signals.Signals):
        return int(text)
    if name not in signals.Signals.__members__:
        raise UsageError(f"no signal is called {word}", hint="for example -s HUP; kill -l lists them")
    return int(signals.Signals[name])
