"""``lab top``: what every detached instance uses, containers and machines in one table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.instances.common import show, status
from lab.commands.completion import complete_instance
from lab.commands.output import JsonTo, can_redraw, write_json
from lab.commands.privilege import become_root_if_possible

if TYPE_CHECKING:
    from lab.supervisor.record import InstanceRecord
    from lab.supervisor.usage import Usage

INTERVAL_SECONDS = 1.0
FIRST_SECONDS = 0.25  # a first figure of CPU needs two looks
HEAD = ("NAME", "BACKEND", "CPU %", "MEMORY / LIMIT", "MEM %", "PIDS", "READ / WRITTEN", "STATUS")


def top(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", autocompletion=complete_instance)] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one table, as it does without a terminal.")] = False,
    as_json: JsonTo = "",
) -> None:
    """Show what instances use: CPU, memory, processes, disk.

    On a terminal again and again; q or Ctrl-C ends it.

    CPU is in per cent of one CPU. A machine's figures are those of its VMM, with the guest in it.
    """
    from lab.supervisor.usage import usages

    become_root_if_possible()
    before = usages(_chosen(names))
    time.sleep(FIRST_SECONDS)
    now = usages(_chosen(names))
    if as_json:
        write_json([_fields(one, before.get(key)) for key, one in now.items()], as_json)
    elif once or not can_redraw():
        show([HEAD, *(_row(one, before.get(key)) for key, one in now.items())])
    else:
        _live(names, before, now)


def _chosen(names: list[str] | None) -> list[InstanceRecord]:
    from lab.supervisor.record import find, records

    return [find(name) for name in names] if names else records()


def _live(names: list[str] | None, before: dict[str, Usage], now: dict[str, Usage]) -> None:
    """On a screen of its own, which a terminal takes away again at the end, should lab be killed as well."""
    from rich.live import Live
    from rich.table import Table

    from lab.commands.console.keyboard import keyboard
    from lab.supervisor.usage import usages

    def table() -> Table:
        made = Table(*HEAD, box=None, pad_edge=False, header_style="bold")
        made.columns[0].no_wrap = True  # on a narrow terminal figures break, never what they are of
        for column in made.columns[2:7]:
            column.justify = "right"
        for key, one in now.items():
            made.add_row(*_row(one, before.get(key)))
        return made

    with keyboard() as keys, Live(table(), screen=True, auto_refresh=False) as live:
        until = time.monotonic()
        while True:
            live.update(table(), refresh=True)
            until += INTERVAL_SECONDS
            while (left := until - time.monotonic()) > 0:  # another key is no reason to look sooner
                if {"q", "escape"} & {*keys.pressed(left)}:
                    return
            until = max(until, time.monotonic())
            before, now = now, usages(_chosen(names))


def _row(one: Usage, before: Usage | None) -> tuple[str, ...]:
    from lab.host.units import format_bytes

    cpu = one.cpu_percent(before) if before else None
    limit, used = one.memory_limit_bytes, one.memory_bytes
    return (
        one.record.name,
        one.record.backend,
        "-" if cpu is None else f"{cpu:.1f}",
        f"{'-' if used is None else format_bytes(used)} / {format_bytes(limit) if limit else 'none'}",
        f"{100 * used / limit:.1f}" if used is not None and limit else "-",
        "-" if one.pids is None else str(one.pids),
        f"{format_bytes(one.read_bytes)} / {format_bytes(one.written_bytes)}",
        status(one.record),
    )


def _fields(one: Usage, before: Usage | None) -> dict[str, Any]:
    return {
        "name": one.record.name,
        "id": one.record.id,
        "backend": one.record.backend,
        "condition": one.record.condition.value,
        "cpu_percent": one.cpu_percent(before) if before else None,
        "cpu_seconds": one.cpu_seconds,
        "memory_bytes": one.memory_bytes,
        "memory_limit_bytes": one.memory_limit_bytes,
        "pids": one.pids,
        "read_bytes": one.read_bytes,
        "written_bytes": one.written_bytes,
    }
