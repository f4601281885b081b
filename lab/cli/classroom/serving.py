"""``lab class serve``, and what is left of classes: list and remove."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.classroom.lessons import LESSON, RESULTS, ROOT, run_folder
from lab.cli.instances.common import show as show_table
from lab.commands.completion import complete_backends, complete_class, complete_scenario
from lab.commands.output import JsonTo, Manner, say, write_json
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.classroom.web.serve import Served

PORT, KEEP_DAYS = 8765, 30


RUN = typer.Option("--run", metavar="RUN", help="The run that answers: a name, a folder, latest, or sample.")
BIND = typer.Option(
    "--bind", metavar="ADDRESS", help="An address of this host that phones reach; without it only this host does."
)
SESSION = typer.Option(
    "--session", metavar="NAME", help="The class's name, LESSON-DATE unless named; one that is there goes on."
)
KEEP = typer.Option("--keep", metavar="DAYS", min=1, max=3650, help="How long guesses are kept after the class.")
LIVE = typer.Option("--live", help="Measure the run while the class guesses; with root, which the server gives up.")
ON = typer.Option(
    "--on", metavar="A,B,…", help="Which backends --live measures. Default: as of lab compare.",
    autocompletion=complete_backends,
)  # fmt: skip
BLOCKS = typer.Option("--blocks", metavar="N", min=1, help="How many blocks --live measures.")
SCENARIO = typer.Option(
    "--scenario", metavar="SCENARIO|DIR", help="What --live measures. Default: the lesson's, which is web-app.",
    autocompletion=complete_scenario,
)  # fmt: skip
LIVE_BLOCKS = 6
CLASSES = typer.Argument(metavar="CLASS…", help="As lab class ls names it.", autocompletion=complete_class)


def serve(
    lesson: Annotated[str, LESSON],
    run: Annotated[str, RUN] = "",
    live: Annotated[bool, LIVE] = False,
    scenario: Annotated[str, SCENARIO] = "",
    on: Annotated[str, ON] = "",
    blocks: Annotated[int, BLOCKS] = LIVE_BLOCKS,
    bind: Annotated[str, BIND] = "",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes any free one.")] = PORT,
    session: Annotated[str, SESSION] = "",
    keep: Annotated[int, KEEP] = KEEP_DAYS,
    root: Annotated[Path, ROOT] = RESULTS,
) -> None:
    """Serve a lesson: a page for the projector, one for phones, and the teacher's.

    Students join by a code, guess, discuss, guess again; then what the run measured is revealed. Killed and started
    again it goes on where it was. Without --bind nobody but this host reaches it. As root it serves as a user that no
    account has. With --live another process measures meanwhile, and a reveal waits until the run can answer.
    """
    from lab.classroom.questions import lesson as lessons
    from lab.classroom.session.store import expire
    from lab.classroom.web.address import LOOPBACK, listen
    from lab.classroom.web.serve import serve as serve_it

    found = lessons.read(lessons.locate(lesson))
    name = session or f"{found.name}-{time.strftime('%Y-%m-%d')}"
    if not lessons.NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't name a class", hint="--session with small letters, digits and - between them"
        )
    for gone in expire(time.time()):
        say(f"the time of {gone} was over: removed")
    if live:
        _require_live(run, scenario or found.scenario)
    elif scenario or on or blocks != LIVE_BLOCKS:
        raise UsageError("--scenario, --on and --blocks say what --live measures", hint="add --live")
    folder = None if live else run_folder(run or "sample", root)
    with listen(bind or LOOPBACK, port) as listening:
        from lab.classroom.questions.material import material, pending
        from lab.classroom.questions.showing import showing

        def up(served: Served) -> None:
            _tell(served, open_to_others=bool(bind), keep=keep)

        if folder is not None:
            serve_it(
                name, material(found, folder), listening=listening, keep_days=keep, up=up,
                showing=showing(found, folder, run or "sample"),
            )  # fmt: skip
            return
        from lab.cli.classroom.measuring import measuring

        words = [
            "--quiet",
            "compare",
            scenario or found.scenario,
            "--blocks",
            str(blocks),
            "--out",
            str(root.resolve()),
        ]
        with measuring(found.folder, [*words, *(["--on", on] if on else [])]) as heard:
            serve_it(name, pending(found), listening=listening, keep_days=keep, up=up, live=heard)


def _require_live(run: str, scenario: str) -> None:
    """Raises UsageError, ScenarioError, LabError with the line to type."""
    import shlex
    import sys

    from lab.experiment.scenarios.scenario import load
    from lab.host.identity.privilege import Need, require

    if run:
        raise UsageError("--live measures a run, and --run names one", hint="leave one away")
    words = shlex.join(sys.argv[1:])
    require(Need.CONTAIN, "to measure live", f"{words}; without root leave --live away")
    load(scenario)  # what is wrong with it is told before a class is there


def _tell(served: Served, *, open_to_others: bool, keep: int) -> None:
    print(f"teacher    {served.teacher}", flush=True)
    print(f"students   {served.address}/  code {served.code}", flush=True)
    if Manner.quiet:
        return
    if served.joined:
        say(f"this class goes on: {served.joined} have joined it")
    if served.answered_by:
        say(
            f"It began with the run {served.answered_by}, which answers: the race, the figures and the report of "
            "another run are not shown"
        )
    if open_to_others:
        say(
            "Whoever is on that network, or is routed to that address, reaches these pages. They are plain HTTP: who "
            "listens on that network reads nicknames, guesses and cookies, the teacher’s link too."
        )
    else:
        say("Only this host reaches it; --bind ADDRESS lets phones in.")
    say(
        f"Kept of students: nickname, guesses, times; in {served.folder}, for {keep} days after the class or until: "
        f"lab class rm {served.folder.name}"
    )
    say("Ctrl-C ends it; the same command goes on.")


def list_classes(as_json: JsonTo = "") -> None:
    """List the classes that were held: lesson, students, and when what is kept of them goes."""
    from lab.classroom.session.store import every, expire

    now = time.time()
    expire(now)
    rows = [
        {
            "name": name, "lesson": known["lesson"], "students": known["students"],
            "last_used": time.strftime("%Y-%m-%d", time.localtime(known["used"])),
            "goes": time.strftime("%Y-%m-%d", time.localtime(known["used"] + known["keep_days"] * 86400)),
        }
        for name, known in every()
    ]  # fmt: skip
    if as_json:
        write_json(rows, as_json)
        return
    show_table(
        [("NAME", "LESSON", "STUDENTS", "LAST USED", "GOES"), *(tuple(map(str, row.values())) for row in rows)]
    )


def remove(names: Annotated[list[str], CLASSES]) -> None:
    """Delete all that was kept of classes: nicknames, guesses, times."""
    from lab.classroom.session.store import delete

    for name in names:
        delete(name)
        print(name)
