"""``lab ps``, ``lab inspect``, ``lab port``: what is known of detached instances. None of them needs a supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.instances.common import ago, ports, show, status
from lab.commands.completion import complete_instance
from lab.commands.output import JsonTo, write_json
from lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from lab.supervisor.record import InstanceRecord

COMMAND_CHARACTERS = 30
FORMAT = typer.Option(
    "--format",
    metavar="TEMPLATE",
    help="A line for each: {{.name}}, {{.process.argv}}, … as inspect names the fields.",
)
FILTERS = ("name", "id", "status", "backend", "image")
DOCKER_STATUS = {"starting": "created", "running": "running", "running, supervisor lost": "running"}


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Names alone.")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", "-f", metavar="KEY=VALUE", help=f"Only those: {', '.join(FILTERS)}."),
    ] = None,
    template: Annotated[str, FORMAT] = "",
    as_json: JsonTo = "",
) -> None:
    """List detached instances, the newest first, as they really are."""
    from lab.commands.console.template import render
    from lab.supervisor.record import records

    wanted = [_filter(word) for word in filters or []]
    by_status = any(key == "status" for key, _ in wanted)
    found = [one for one in records() if everything or by_status or one.condition.value in DOCKER_STATUS]
    found = [one for one in found if all(_matches(one, key, value) for key, value in wanted)]
    if as_json:
        write_json([summary(record) for record in found], as_json)
    elif template:
        for record in found:
            print(render(template, summary(record)))
    elif quiet:
        for record in found:
            print(record.name)
    else:
        show([HEAD, *(_row(record) for record in found)])


HEAD = ("NAME", "ID", "BACKEND", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS")


def _row(record: InstanceRecord) -> tuple[str, ...]:
    command = " ".join(record.process.argv)
    if len(command) > COMMAND_CHARACTERS:
        command = f"{command[: COMMAND_CHARACTERS - 1]}…"
    created = f"{ago(record.created)} ago"
    return (
        record.name,
        record.id,
        record.backend,
        record.image,
        command.replace("\n", " "),
        created,
        status(record),
        ", ".join(ports(record)) if record.runs else "",
    )


def summary(record: InstanceRecord) -> dict[str, Any]:
    """The record with what is true now besides."""
    known = {name: value for name, value in record.to_json().items() if name != "source"}
    return {**known, "condition": record.condition.value, "status": status(record)}


def _filter(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or key not in FILTERS:
        raise UsageError(f"--filter {word}: not KEY=VALUE", hint=f"KEY is one of {', '.join(FILTERS)}")
    return key, value


def _matches(record: InstanceRecord, key: str, value: str) -> bool:
    match key:
        case "name":
            return value in record.name
        case "id":
            return record.id.startswith(value)
        case "image":
            return value in (record.image, record.image.removesuffix(":latest"), record.digest)
        case "backend":
            return value == record.backend
        case _:
            return value == DOCKER_STATUS.get(record.condition.value, "exited")


def inspect(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", autocompletion=complete_instance)],
    template: Annotated[str, FORMAT] = "",
) -> None:
    """Print everything that is known of instances, as JSON."""
    from lab.cli.instances.common import each
    from lab.commands.console.template import render

    found: list[dict[str, Any]] = []
    try:
        each(names, lambda record: found.append(summary(record)), say=False)
    finally:
        if template:
            print("\n".join(render(template, one) for one in found))
        else:
            write_json(found, "-")


def port(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_instance)],
    instance_port: Annotated[str, typer.Argument(metavar="[PORT]", help="Only where this one leads from.")] = "",
    as_json: JsonTo = "",
) -> None:
    """List an instance's published ports. A lost supervisor, which served them, is replaced first."""
    from lab.supervisor import client
    from lab.supervisor.record import Condition, find

    record = find(name)
    if record.condition is Condition.LOST:
        client.supervisor_of(record).close()
        record = find(name)
    if not record.runs:
        raise LabError(f"instance {record.name} does not run", hint="lab ps -a")
    wanted = instance_port.removesuffix("/tcp")
    found = [one for one in record.published if not wanted or str(one.instance_port) == wanted]
    if as_json:
        write_json(
            [{"host": one.address, "host_port": one.host_port, "port": one.instance_port} for one in found], as_json
        )
        return
    if wanted and not found:
        raise LabError(f"port {wanted} of {record.name} is not published", hint="lab run -d -p HOST_PORT:PORT …")
    for one in found:
        print(one.host if wanted else f"{one.instance_port}/tcp -> {one.host}")
