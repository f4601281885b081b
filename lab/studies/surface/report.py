"""The report of an attack surface counted: a page, Markdown, a picture, and the numbers as CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.analysis.loaded import Loaded, load
from lab.analysis.readiness import boots_until, until_ready
from lab.errors import LabError
from lab.model import Accelerator, Milestone
from lab.reports.material import stamp
from lab.reports.page import article, emulation
from lab.reports.page.anchors import published
from lab.reports.page.article import Article, Section
from lab.reports.page.opening import Opening, quoted, warnings_of
from lab.reports.page.render import put
from lab.reports.tables import Cell, Row, Table
from lab.results.store import RunFolder
from lab.studies.reporting import Report
from lab.studies.surface import picture, tables
from lab.studies.surface.analyse import (
    PER,
    SETUP,
    START,
    STATES,
    THROUGH,
    Call,
    Exposed,
    Reach,
    Reached,
    Work,
)
from lab.studies.surface.words import LOOKS, SIDE_NAMES, SIDES, number

NOT_TO_CONCLUDE = (
    "That fewer is safer. A count says how many doors there are, not how they are locked or what lies behind: one "
    "flaw in one function that everybody reaches outweighs all others. Nothing here is a ranking of security.",
    "That what was not reached can't be. A workload reaches what it needs; who attacks, looks for what nobody needs. "
    "What can be reached is the first table, what was reached are the others.",
    "That a call which is allowed is harmless, or one that needs a privilege is stopped: it reaches the kernel's "
    "code, which then asks. And ioctl, bpf, keyctl or io_uring are whole interfaces behind one number.",
    "That a machine's own kernel is no attack surface: all calls reach it, as the table says. To get at the host, an "
    "attacker needs a flaw in the monitor as well, and then has the system calls that the monitor may make.",
    "That the numbers hold for another application, load or kernel: each reaches its own parts.",
)
EMULATED = (
    "How a machine behaves under KVM. Here TCG emulated it: its monitor makes calls that KVM would save it, and none "
    "of the exits to KVM."
)


def _tables(found: Exposed) -> Iterator[Path]:
    """surface-calls.csv, surface-host-calls.csv and, where there are any, surface-functions.csv."""
    reachable = [
        (reach.arm.label, call.number, call.name, call.subsystem, call.outcome, call.filter, call.seen, call.agrees)
        for reach in found.reaches
        for call in reach.calls
    ]
    made = [
        (work.arm.label, work.state, work.side, name, value, PER[work.state], work.n)
        for work in found.works
        for name, value in work.most
    ]
    entered = [
        (each.arm.label, each.state, each.side, name, name in each.beyond)
        for each in found.functions
        for name in each.names
    ]
    for name, columns, rows in (
        ("calls", "arm,number,call,subsystem,outcome,filter,seen,agrees", reachable),
        ("host-calls", "arm,state,side,call,median,per,rounds", made),
        ("functions", "arm,state,side,function,beyond_the_baseline", entered),
    ):
        path = found.loaded.path / f"surface-{name}.csv"
        if rows:
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([columns.split(","), *rows])
            yield path


def agreement(reach: Reach) -> str:
    """Of how many calls both ways say the same; a dash where only one of them said anything."""
    agreeing, both = reach.agreeing
    return f"{agreeing} of {both}" if both else "–"


def story(found: Exposed) -> list[str]:
    """What a reader should take home, a sentence each."""
    said = []
    arms = {arm.label: arm for arm in found.loaded.all_arms}
    for reach in found.reaches:
        if not reach.own_kernel and (closed := reach.outcomes["refused"] + reach.outcomes["killed"]):
            some = reach.outcomes["by argument"]
            said.append(
                f"{reach.arm.title}: its filter stops {closed} of {len(reach.calls)} system calls, and decides "
                f"{some} by their arguments."
            )
    base, ready = arms.get(found.loaded.baseline), until_ready(found.loaded.run)
    bare = found.work(base, START) if base else None
    asked = boots_until(found.loaded.run) is not Milestone.STARTED
    then = f"from its execve until {ready}" if asked else "from then on"
    for arm in arms.values():
        work, setup = found.work(arm, START), found.work(arm, START, SETUP)
        if work and setup and work.n and setup.n:
            beside = ""
            if bare and bare.n and arm is not base:
                beside = f" (the bare application: {bare.total:,.0f})"
            said.append(
                f"{arm.title}: putting it up took {setup.total:,.0f} system calls, {setup.distinct} different ones; "
                f"{then} it made {work.total:,.0f} of the host{beside}."
            )
    return said


def not_to_conclude(found: Exposed) -> tuple[str, ...]:
    """The section of that name."""
    emulated = any(arm.accelerator is Accelerator.TCG for arm in found.loaded.all_arms)
    return (*emulation.not_to_conclude(found.loaded.run), *NOT_TO_CONCLUDE, *([EMULATED] if emulated else []))


def describe(found: Exposed) -> Article:
    """What is on the page besides the tables of system calls."""
    run = found.loaded.run
    facts = {
        "rounds": f"{found.loaded.blocks}; in each every backend once, in a random order drawn from seed {run.seed}. "
        "Medians over the rounds, with their extremes",
        "start": f"from the request until {until_ready(run)}. What lab's own process and launcher do is told apart "
        "from the processes they make; these become the instance with an execve",
        "steady state": "the threads of the instance's control group and what comes of them, for 1 s idle and under "
        "the scenario's load",
        "lost events": "counted by the kernel; said where there are any",
    }
    return Article(
        run=run,
        title=f"Attack surface, counted: {run.title or run.scenario}",
        lead="Which system calls get through each boundary, and which ones were made of the host while the "
        "application started, idled and served. A count is a description, never a score.",
        opening=opening(found),
        picture="surface",
        alt="Bars: system calls by outcome for each backend; system calls made of the host for a start and per "
        "request. The tables on this page hold the same.",
        sections=(Section.of_warnings(not_to_conclude(found)),),
        data="surface-calls",
        facts=(*facts.items(), *article.facts_of(run)),
        beside="; surface-*.csv hold its tables",
    )


def page(found: Exposed) -> str:
    """The article, with the tables of system calls."""
    return article.html(
        describe(found),
        found.loaded.path,
        Path(__file__).parent,
        reaches=found.reaches,
        chapters=chapters(found),
        looks=LOOKS,
        stamp=stamp,
        states=STATES,
        per=PER,
        sides=SIDES,
        side_names=SIDE_NAMES,
        works=found.works,
        functions=found.functions,
        not_measurable=found.not_measurable,
        not_called=dict(found.settings.get("not_called") or {}),
        anchors=published("attack surface"),
        number=number,
        agreement=agreement,
        baseline=found.loaded.baseline,
    )


def opening(found: Exposed) -> Opening:
    """The first screen."""
    rows = []
    for reach in found.reaches:
        works = {state: found.work(reach.arm, state) for state in STATES}
        through = "–" if reach.failure else str(sum(reach.outcomes[outcome] for outcome in THROUGH))
        stopped = "–" if reach.failure else str(reach.outcomes["refused"] + reach.outcomes["killed"])
        made = [Cell(text=number(work.total) if work and work.n else "–") for work in works.values()]
        kernel = "its own kernel" if reach.own_kernel else "the host's kernel"
        rows.append(
            Row(
                header=reach.arm.title,
                note=f"{kernel} · {stamp(reach.arm)}",
                cells=(Cell(text=through), Cell(text=stopped), *made),
            )
        )
    columns = [
        ("get through", "of all system calls"),
        ("stopped", "by its filter"),
        *((f"made: {state}", PER[state]) for state in STATES),
    ]
    return Opening(
        warnings=warnings_of(found.loaded, by_blocks=True),
        verdict=tuple(story(found)),
        table=Table(
            caption="System calls",
            corner="backend",
            columns=tuple(Cell(text=text, note=note) for text, note in columns),
            rows=tuple(rows),
        ),
        note="What gets through reaches the code of the kernel that serves the instance: the host's, or its own. "
        "Made: system calls that the instance's processes, the monitor of a machine, or a kernel that is a program, "
        "made of the host. No score.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """The system calls of one subsystem."""

    title: str
    calls: list[tuple[int, str]]
    cells: Mapping[tuple[str, int], Call]  # by arm and number
    through: Mapping[str, int]  # how many reach the kernel's code for them, by arm


def chapters(found: Exposed) -> list[Chapter]:
    """Every system call by what it is about."""
    grouped: dict[str, dict[tuple[str, int], Call]] = {}
    for reach in found.reaches:
        for call in reach.calls:
            grouped.setdefault(call.subsystem, {})[reach.arm.label, call.number] = call
    return [
        Chapter(
            title=title,
            calls=sorted({(call.number, call.name) for call in cells.values()}),
            cells=cells,
            through=Counter(arm for (arm, _), call in cells.items() if call.outcome in THROUGH),
        )
        for title, cells in sorted(grouped.items())
    ]


def markdown(found: Exposed) -> list[str]:
    """The report as Markdown, a line each."""
    run, blocks, whole = found.loaded.run, found.loaded.blocks, describe(found)
    rounds = f"{blocks} round{'s' if blocks != 1 else ''}"
    said = [f"# {whole.title}", ""]
    said += [
        f"{run.started[:16].replace('T', ' ')} UTC, {rounds} in random order, seed {run.seed}.",
        "",
        *quoted(whole.opening.warnings),
        *(f"- {each}" for each in story(found)),
        "",
        "![System calls by outcome, and what each backend makes of the host](plots/surface.png)",
        "",
        "## System calls: what becomes of them",
        "",
        "| backend | kernel | " + " | ".join(LOOKS) + " | both ways agree |",
        "| --- | --- |" + " ---: |" * (len(LOOKS) + 1),
    ]
    for reach in found.reaches:
        kernel = "its own" if reach.own_kernel else "the host's"
        if reach.failure:
            said.append(f"| {reach.arm.title} | {kernel} | not measured: {reach.failure} |")
            continue
        counts = " | ".join(str(reach.outcomes[outcome]) for outcome in LOOKS)
        said.append(f"| {reach.arm.title} | {kernel} | {counts} | {agreement(reach)} |")
    held = [reach for reach in found.reaches if reach.in_force]
    said += ["", *(f"- Filter of {reach.arm.title}, read back from the kernel: {reach.in_force}." for reach in held)]
    for reach in found.reaches:
        for each in reach.disagreements:
            said += [
                "",
                f"- {reach.arm.title}: the filter says {each.said}, inside it is {each.seen}: "
                f"{', '.join(each.names)}. {each.reason[0].upper()}{each.reason[1:]}.",
            ]
    for state in STATES:
        rows = [work for work in found.works if work.state == state]
        if rows:
            said += ["", f"## System calls made of the host, {PER[state]}", "", *_work_table(rows)]
    if found.functions:
        said += ["", "## Functions of the host's kernel that were entered", "", *_function_table(found.functions)]
    if found.not_measurable:
        said += ["", "## What could not be measured here", ""]
        said += [f"- {what}: {why}" for what, why in found.not_measurable.items()]
    said += ["", "## What others counted", ""]
    said += [
        f"- {each.system}: {each.says} – {each.measures} ({each.source})" for each in published("attack surface")
    ]
    said += ["", "## What you may not conclude", "", *(f"- {each}" for each in not_to_conclude(found))]
    return [*said, "", f"Repeat it: `{whole.repeat}`"]


def _work_table(rows: list[Work]) -> Iterator[str]:
    yield "| backend | who | system calls | over the rounds | different | the most frequent | exits to KVM | lost |"
    yield "| --- | --- | ---: | --- | ---: | --- | ---: | ---: |"
    for work in rows:
        where = f"{work.arm.label} ({stamp(work.arm)})"
        if not work.n:
            yield f"| {where} | {SIDE_NAMES[work.side]} | failed: {'; '.join(work.failures)} |"
            continue
        most = ", ".join(f"{name} {number(value)}" for name, value in work.most[:6])
        yield (
            f"| {where} | {SIDE_NAMES[work.side]} | {number(work.total)} | {number(work.low)} to "
            f"{number(work.high)}, n = {work.n} | {work.distinct} | {most} | {number(work.exits)} | {work.lost} |"
        )


def _function_table(rows: list[Reached]) -> Iterator[str]:
    yield "| backend | state | who | different functions | not entered by the baseline | lost |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for each in rows:
        beyond = str(len(each.beyond)) if each.beyond else "–"
        who = SIDE_NAMES[each.side]
        yield f"| {each.arm.label} | {each.state} | {who} | {len(each.names)} | {beyond} | {each.lost} |"


class SurfaceReport(Report):
    """How much of the host's kernel each backend's instances can reach, and do."""

    def __init__(self, *, each_call: bool = False) -> None:
        """``each_call`` prints a line per system call, too."""
        self.each_call = each_call

    def pages(self, loaded: Loaded) -> list[Path]:
        plots = loaded.path / "plots"
        plots.mkdir(exist_ok=True)
        found = Exposed(loaded)
        drawn = picture.draw(found, plots)
        return [
            *drawn,
            *_tables(found),
            put(loaded.path / "report.md", "\n".join(markdown(found)) + "\n"),
            put(loaded.path / "report.html", page(found)),
        ]

    def said(self, loaded: Loaded) -> dict[str, Any]:
        found = Exposed(loaded)
        return {
            "not_measurable": found.not_measurable,
            "backends": {
                reach.arm.label: {
                    "outcomes": reach.outcomes,
                    "calls": [asdict(call) for call in reach.calls],
                    "not_measured": reach.failure,
                    "in_force": reach.in_force and asdict(reach.in_force),
                }
                for reach in found.reaches
            },
            "host_calls": [asdict(work) | {"arm": work.arm.label} for work in found.works],
            "host_functions": [asdict(each) | {"arm": each.arm.label} for each in found.functions],
        }

    def show(self, loaded: Loaded, page: Path) -> None:
        tables.terminal(loaded, each_call=self.each_call)
        print(f"\nreport: {page}")

    def conclude(self, folder: RunFolder, as_json: str) -> None:
        """As every report does. Raises LabError when nothing could be counted."""
        super().conclude(folder, as_json)
        if all(reach.failure for reach in Exposed(load(folder.path)).reaches):
            raise LabError("no instance came up on any backend", hint=f"see the logs in {folder.path}/logs")


REPORT = SurfaceReport()
