"""The report of a ladder: a page with the staircase of probes, Markdown, a picture, a table for the terminal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.analysis.inference.estimate import FEWEST
from lab.analysis.loaded import Loaded
from lab.analysis.quantities import format_interval, format_value
from lab.analysis.readiness import until_ready
from lab.model import Accelerator
from lab.reports import tables
from lab.reports.answers import WORDS
from lab.reports.material import stamp
from lab.reports.page import article, emulation
from lab.reports.page.article import Article, Section
from lab.reports.page.opening import Opening, quoted, warnings_of
from lab.reports.page.render import put
from lab.reports.style import REACH
from lab.studies.ladder import picture
from lab.studies.ladder.analyse import BOOT, MEMORY, PSS, START, Cost, Row, costs, rows, still_open, stops
from lab.studies.reporting import Report, judged

NEVER = "stopped by none of them"
UNKNOWN = "could not be told here"

NOT_TO_CONCLUDE = (
    "That a mechanism which stops nothing new is useless. What an earlier step has stopped already it can't stop "
    "again, and defence in depth is the point: lab isolation ladder --rungs takes them in another order.",
    "That an answer is the strength of a boundary. A probe asks whether a door is there, not how hard it is to pick; "
    "all rungs without a kernel of their own share one, whose bugs no step removes.",
    "That the steps' costs add up for another application: what is measured is the start, and memory while idle. "
    "What a filter or a virtual network costs under load, lab compare measures.",
    "That this is all the memory it takes. Pages of files are left out: they are shared, and charged to whoever "
    "touched them first. Of a machine its whole emulator counts, guest included.",
)
EMULATED = "How fast machines start on hardware that helps: here TCG emulated theirs."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One rung as the page shows it."""

    number: int
    label: str
    title: str
    stamp: str
    adds: str
    manual: str
    changes: tuple[str, ...]
    start: Cost
    boot: Cost
    memory: Cost
    pss: Cost
    stopped: tuple[str, ...]  # questions
    machine: bool
    failure: str


CONTAINERS = frozenset(
    ("mounts", "pid", "net", "ipc-uts", "cgroup", "limits", "capabilities", "seccomp", "masks", "no-new-privs")
)
"""The rungs that every container has climbed, with Docker's defaults."""


class Climb:
    """A loaded ladder and all that is said of it, computed once."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.costs = costs(loaded)
        self.rows = rows(loaded)
        self.arms = loaded.all_arms

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every rung, the lowest first."""
        settings: dict[str, Any] = dict(self.loaded.run.settings)
        told = {str(each["name"]): each for each in settings.get("rungs", ())}
        stopped = stops(self.rows)
        questions = {row.probe: row.question for row in self.rows}
        return tuple(
            Step(
                number=number,
                label=arm.label,
                title=arm.title,
                stamp=stamp(arm),
                adds=arm.mechanism,
                manual=str(told.get(arm.label, {}).get("manual", "")),
                changes=tuple(told.get(arm.label, {}).get("changes", ())),
                start=self.costs[arm.label, START],
                boot=self.costs[arm.label, BOOT],
                memory=self.costs[arm.label, MEMORY],
                pss=self.costs[arm.label, PSS],
                stopped=tuple(questions[probe] for probe in stopped.get(arm.label, ())),
                machine=arm.has_own_kernel,
                failure=self._failure(arm.label),
            )
            for number, arm in enumerate(self.arms, 1)
        )

    def _failure(self, label: str) -> str:
        frame = self.loaded.frame
        failed = frame[(frame["arm"] == label) & (frame["quantity"] == START) & frame["value"].isna()]
        return str(failed["text"].iloc[0]) if len(failed) else ""

    def grouped(self) -> list[tuple[str, list[Row]]]:
        """The rows under the title of the step that stops them."""
        titles = {arm.label: arm.title for arm in self.arms} | {"": NEVER}
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(UNKNOWN if row.stopped_by is None else titles[row.stopped_by], []).append(row)
        return list(found.items())

    @property
    def story(self) -> list[str]:
        """What a reader should take home, a sentence each."""
        said = []
        counted = [step for step in self.steps if step.stopped and step.number > 1]
        if counted:
            best = max(counted, key=lambda step: len(step.stopped))
            said.append(
                f"Of one step most is stopped by “{best.title}”: {len(best.stopped)} of {len(self.rows)} probes."
            )
        dearest = [step for step in self.steps if step.start.is_sure and not step.machine]
        if dearest:
            most = max(dearest, key=lambda step: step.start.step)
            said.append(
                f"The dearest step on the host's kernel is “{most.title}”: {most.start.tell_step()} at the start."
            )
        natives = [step for step in self.steps if not step.machine and step.start.n]
        if len(natives) > 1:
            first, last = natives[0].start, natives[-1].start
            said.append(f"At “{natives[0].title}” the start takes {first}, at “{natives[-1].title}” {last}.")
        never = [row for row in self.rows if row.stopped_by == ""]
        kernel = [step for step in self.steps if step.machine and step.stopped]
        if kernel:
            whose = f"a kernel of its own (“{kernel[0].title}”) stops {len(kernel[0].stopped)} more"
            below = {step.label for step in self.steps[: kernel[0].number - 1]}
            if below >= CONTAINERS:
                said.append(
                    f"Only {whose}, which every container lets through: they are about the kernel that all share."
                )
            else:
                said.append(f"{whose[0].upper()}{whose[1:]}, which the rungs before it let through.")
        if never:
            said.append(f"{len(never)} reach the host on the last rung, too.")
        return said


def describe(climb: Climb) -> Article:
    """What is on the page besides the rungs and the staircase."""
    run = climb.loaded.run
    facts = {
        "rounds": f"{climb.loaded.blocks}; in each every rung once, in a random order drawn from seed {run.seed}",
        "start": "from the request to the application's execve, on the host's clock. Until a rung gives it one, it "
        "lives in a network that stood before its clock started",
        "memory": "anonymous and shared memory and the kernel's own on its behalf, as charged to its control group "
        f"(every rung has one for that), {run.settings.get('idle_seconds', 0)} s after {until_ready(run)}",
        "probes": "once per rung, inside an instance that does nothing else; until a rung gives it one, in the "
        "host's network",
    }
    return Article(
        run=run,
        title=f"The ladder of {run.title or run.scenario}",
        lead="A container is not one thing. Here its mechanisms are added one at a time, from chroot on: what each "
        "step stops, and what it costs.",
        opening=opening(climb),
        picture=picture.GLANCE,
        large="ladder",
        data="ladder",
        alt="Rungs as columns: time, memory, and how many questions reach the host on which rung. The tables on this "
        "page hold the same.",
        sections=(Section.of_warnings(_not_to_conclude(climb)),),
        facts=(*facts.items(), *article.facts_of(run)),
    )


def page(climb: Climb) -> str:
    """The article, with the rungs and the staircase of probes."""
    return article.html(
        describe(climb),
        climb.loaded.path,
        Path(__file__).parent,
        steps=climb.steps,
        groups=climb.grouped(),
        key=[(name, REACH[name][2], word) for name, word in WORDS.items()],
        symbols={name: look[2] for name, look in REACH.items()},
        value=format_value,
        interval=format_interval,
    )


def opening(climb: Climb) -> Opening:
    """The first screen."""
    rows_ = [
        tables.Row(
            header=f"{step.number} {step.title}",
            cells=tuple(
                tables.Cell(text=text, note=note)
                for text, note in (
                    (_short(step.start), step.start.glance),
                    (_short(step.memory), step.memory.glance),
                    (str(len(step.stopped) or "·"), ""),
                    (str(still_open(climb.rows, step.number - 1)), ""),
                )
            ),
        )
        for step in climb.steps
    ]
    columns = ("app runs after", "memory of its own", "stops", "still open")
    return Opening(
        warnings=warnings_of(climb.loaded, by_blocks=True),
        verdict=tuple(climb.story),
        table=tables.Table(
            caption="The rungs", corner="rung", columns=tuple(tables.Cell(text=text) for text in columns),
            rows=tuple(rows_),
        ),
        note="Below a value stands what the rung adds to the one above, and another kernel to the last rung on the "
        "host's; ≈: not proven either way, or the same. "
        "stops: questions that no longer reach the host from here on.",
    )  # fmt: skip


def _not_to_conclude(climb: Climb) -> tuple[str, ...]:
    emulated = any(arm.accelerator is Accelerator.TCG for arm in climb.arms)
    return (*emulation.not_to_conclude(climb.loaded.run), *NOT_TO_CONCLUDE, *([EMULATED] if emulated else []))


def markdown(climb: Climb) -> list[str]:
    """The report as Markdown, a line each."""
    run, whole = climb.loaded.run, describe(climb)
    said = [f"# {whole.title}", ""]
    said += [
        f"{run.started[:16].replace('T', ' ')} UTC, {climb.loaded.blocks} rounds in random order, seed {run.seed}. "
        "Each rung adds one mechanism to the one before, or takes another kernel than the host's.",
        "",
        *quoted(whole.opening.warnings),
        *(f"- {each}" for each in climb.story),
        "",
        f"![What each mechanism stops, and what it costs](plots/{picture.GLANCE}.png)",
        "",
        "[The same with every question](plots/ladder.png)",
        "",
        "| rung | adds | until the application runs | step | memory of its own | step | stops |",
        "| --- | --- | --- | --- | --- | --- | ---: |",
    ]
    for step in climb.steps:
        said.append(
            f"| {step.title} ({step.stamp}) | {step.adds} ({step.manual}) "
            f"| {step.start} | {step.start.tell_step() or '–'} "
            f"| {step.memory} | {step.memory.tell_step() or '–'} | {len(step.stopped)} |"
        )
    if climb.rows:
        said += ["", "## Which step stops which probe", ""]
        symbols = ", ".join(f"{REACH[name][2]} {word}" for name, word in WORDS.items())
        said += [f"{symbols}. **Bold**: the step changes the answer.", ""]
        said.append("| stopped by | question | " + " | ".join(step.label for step in climb.steps) + " |")
        said.append("| --- | --- |" + " :-: |" * len(climb.steps))
        for title, members in climb.grouped():
            for row in members:
                said.append(f"| {title} | {row.question} | " + " | ".join(_mark(row)) + " |")
    said += ["", "## What you may not conclude", "", *(f"- {each}" for each in _not_to_conclude(climb))]
    return [*said, "", f"Repeat it: `{whole.repeat}`"]


def _mark(row: Row) -> list[str]:
    found = []
    for cell in row.cells:
        symbol = "–" if cell is None else REACH[cell.reach][2]
        found.append(f"**{symbol}**" if cell and cell.changed else symbol)
    return found


def terminal(loaded: Loaded) -> None:
    """Print a row per rung, at most 100 columns: what it costs, and how many probes it stops."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    climb = Climb(loaded)
    console = Console(highlight=False, width=None if Console().is_terminal else 100)
    title = f"The ladder of {loaded.run.title or loaded.run.scenario}"
    grid = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    grid.add_column("rung", no_wrap=True)
    for name in ("app runs after", "step", "memory", "step", "stops", "open"):
        grid.add_column(name, justify="right", no_wrap=True)
    for step in climb.steps:
        cells = [_short(step.start), step.start.glance, _short(step.memory), step.memory.glance]
        grid.add_row(step.title, *cells, str(len(step.stopped) or "·"), str(still_open(climb.rows, step.number - 1)))
    console.print()
    console.print(grid)
    for line in climb.story:
        console.print(Text(f"· {line}"), width=min(console.width, 100))
    few = climb.loaded.blocks < FEWEST
    sure = "? too few rounds to say how sure it is." if few else "≈ not proven either way, or the same."
    console.print(Text(f"{sure} stops: probes that no longer reach the host.", style="dim"))


def _short(cost: Cost) -> str:
    return format_value(cost.median, cost.unit) if cost.n else "failed" if cost.failed else "–"


class LadderReport(Report):
    """Which mechanism stops what, and what each costs."""

    def pages(self, loaded: Loaded) -> list[Path]:
        plots = loaded.path / "plots"
        plots.mkdir(exist_ok=True)
        climb = Climb(loaded)
        drawn = [
            *picture.draw(loaded, climb.costs, climb.rows, plots),
            *picture.draw_at_a_glance(loaded, climb.costs, climb.rows, plots),
        ]
        columns = ["arm", "block", "quantity", "state", "value", "unit", "status", "text"]
        table = loaded.frame[columns].rename(columns={"arm": "rung", "block": "round"})
        return [
            *drawn,
            put(loaded.path / "ladder.csv", table.to_csv(index=False)),
            put(loaded.path / "report.md", "\n".join(markdown(climb)) + "\n"),
            put(loaded.path / "report.html", page(climb)),
        ]

    def said(self, loaded: Loaded) -> dict[str, Any]:
        answered = rows(loaded)
        labels = [arm.label for arm in loaded.all_arms]
        return {
            "costs": [judged(each, "judged") for each in costs(loaded).values()],
            "answers": [
                {"probe": row.probe, "group": row.group, "question": row.question, "stopped_by": row.stopped_by}
                | {"answers": {name: cell and asdict(cell) for name, cell in zip(labels, row.cells, strict=True)}}
                for row in answered
            ],
            "stops": stops(answered),
        }

    def show(self, loaded: Loaded, page: Path) -> None:
        terminal(loaded)
        print(f"\nreport: {page}")


REPORT = LadderReport()
