"""``lab race``: starts side by side, as they happen or as they were recorded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.classroom.lessons import RESULTS, ROOT, run_folder
from lab.cli.instances.common import show as show_table
from lab.commands.completion import complete_backends, complete_scenario
from lab.commands.output import JsonTo, can_redraw, say, write_json
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.classroom.race.model import Race

TARGET = typer.Argument(
    metavar="[SCENARIO|DIR]", help="What to start, live; or --replay RUN.", autocompletion=complete_scenario
)
ON = typer.Option(
    "--on",
    metavar="A,B,…",
    help="Which backends run. Default: as of lab compare. Of a recorded run which lanes. Default: all.",
    autocompletion=complete_backends,
)
REPLAY = typer.Option("--replay", metavar="RUN", help="A recorded run: a name, a folder, latest, or sample.")
ROUNDS = typer.Option(
    "--rounds", metavar="N", min=1, help="So many rounds. Default: one; of a recorded run one per block."
)
SPEED = typer.Option("--speed", metavar="X", help="Of a replay: 10 is ten times as fast as it was.")
HTML = typer.Option("--html", metavar="FILE", help="Write the race as one page for a browser; a replay only that.")
SERVE = typer.Option("--serve", help="Live in browsers: one link starts the rounds, another one shows them.")
BIND = typer.Option("--bind", metavar="ADDRESS", help="With --serve, an address of this host that others reach too.")
PORT = typer.Option("--port", metavar="N", min=0, max=65535, help="With --serve; 0 takes any free one.")
SERVED_AT = 8766
SAMPLE = "lab race --replay sample"


def race(
    target: Annotated[str, TARGET] = "",
    replay: Annotated[str, REPLAY] = "",
    on: Annotated[str, ON] = "",
    rounds: Annotated[int | None, ROUNDS] = None,
    speed: Annotated[float, SPEED] = 1.0,
    html: Annotated[Path | None, HTML] = None,
    serve: Annotated[bool, SERVE] = False,
    bind: Annotated[str, BIND] = "",
    port: Annotated[int, PORT] = SERVED_AT,
    root: Annotated[Path, ROOT] = RESULTS,
    as_json: JsonTo = "",
) -> None:
    """Watch backends start the same application side by side.

    Live, or with --replay a recorded run, which needs no root, KVM or Linux. What is too fast to be followed has a
    second lane, 100 times slower. Without a terminal it prints the times. It is a demonstration, not a measurement.
    """
    if bool(target) == bool(replay):
        raise UsageError("lab race wants a scenario or a run to replay, and one of them", hint=SAMPLE)
    if not 0 < speed < math.inf:
        raise UsageError(f"--speed {speed:g} is no factor above 0", hint="write for example --speed 10")
    if (serve or bind) and not (serve and target):
        raise UsageError("--serve is for a live race, and --bind for --serve", hint="a replay's page: --html FILE")
    if serve and as_json == "-":
        raise UsageError("with --serve the links are on standard output", hint="--json=FILE")
    if target:
        found = _live(target, on, rounds or 1, (bind, port) if serve else None, seen=can_redraw() and not as_json)
        if found is not None:
            _tell(found, html, as_json, None, f"lab compare {target}")
    else:
        _replay(replay, on, rounds, speed, html, root, as_json)


def _replay(
    replay: str, on: str, rounds: int | None, speed: float, html: Path | None, root: Path, as_json: str
) -> None:
    from lab.classroom.race.recorded import recorded
    from lab.host.units import parse_words

    folder = run_folder(replay, root)
    found = recorded(folder, parse_words(on), rounds)
    report = folder / "report.html"
    there = report if report.is_file() else None
    if html is None and not as_json and can_redraw():
        from lab.commands.race.showing import play

        remark = f"What was measured: {there or f'lab report {replay}'}"
        play(found, speed, remark)
        say(remark)
    else:
        _tell(found, html, as_json, there, f"lab report {replay}")


def _live(target: str, on: str, rounds: int, serve: tuple[str, int] | None, *, seen: bool) -> Race | None:
    from lab.classroom.web.address import LOOPBACK, listen
    from lab.commands.privilege import become_root
    from lab.commands.race.live import race_live
    from lab.host.units import parse_words

    become_root(*parse_words(on))
    remark = f"To measure it: lab compare {target}"
    if serve is None:
        return race_live(target, on, rounds, remark=remark, seen=seen)
    with listen(serve[0] or LOOPBACK, serve[1]) as listening:
        return race_live(target, on, rounds, remark=remark, seen=False, browsers=listening)


def _tell(found: Race, html: Path | None, as_json: str, report: Path | None, command: str) -> None:
    """The race as data, a page or a table; ``command`` measures it, or writes the report of what was measured."""
    if as_json:
        from lab.classroom.race.told import data

        write_json(data(found), as_json)
    if html is not None:
        from lab.classroom.race.page import write

        typer.echo(write(found, html, report, command), err=as_json == "-")
    if not as_json and html is None:
        from lab.classroom.race.model import NOT_MEASURED
        from lab.classroom.race.told import rows

        show_table(rows(found))
        say(f"{NOT_MEASURED} What is measured: {report or command}")
