"""``lab isolation``: what each boundary stops, asked from inside, with the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands.completion import complete_groups, complete_probes, complete_scenario
from lab.commands.measuring import On, choose_backends
from lab.commands.options.limits import as_far_as_given
from lab.commands.output import JsonTo, Manner, say, write_json
from lab.commands.privilege import become_root
from lab.errors import LabError
from lab.host.identity.privilege import is_system_wide, remedy
from lab.host.units import parse_words
from lab.studies.registry import studies

if TYPE_CHECKING:
    from rich.console import Console

    from lab.experiment.isolation import Asked
    from lab.isolation.base import Probe
    from lab.results.observation import Observation

app = typer.Typer(add_completion=False, rich_markup_mode=None)

PROBE = typer.Option("--probe", metavar="A,B,…", help="Only these probes.", autocompletion=complete_probes)
ONE_PROBE = typer.Argument(metavar="PROBE", help="As lab isolation ls names it.", autocompletion=complete_probes)
GROUP = typer.Option(
    "--group",
    metavar="A,B,…",
    help="Only these groups, by name or the beginning of it.",
    autocompletion=complete_groups,
)
SYMBOLS = {"closed": "[green]✓[/green]", "own": "[blue]◐[/blue]", "open": "[red]✗[/red]", "unknown": "[dim]?[/dim]"}
SHORTER = {"inconclusive": "unclear", "effective": "holds"}
WIDTH_OF_A_PIPE = 160
LEGEND = "✓ stopped   ◐ its own only   ✗ reaches the host   ? can't be told here   ! not what was expected"


@app.callback(invoke_without_command=True)
def isolation(
    ctx: typer.Context,
    on: On = "",
    group: Annotated[str, GROUP] = "",
    probe: Annotated[str, PROBE] = "",
    scenario: Annotated[
        str,
        typer.Option(
            "--scenario",
            metavar="SCENARIO|DIR",
            help="Ask beside this application, in its limits.",
            autocompletion=complete_scenario,
        ),
    ] = "",
    as_json: JsonTo = "",
) -> None:
    """Ask from inside what each boundary stops, show the answers.

    Starts one instance per backend, and asks each in turn; see lab isolation ls for the questions.
    Of an application that ends by itself a copy that waits is asked. Exit code 1 when an answer is not the one that
    is expected of its kind of boundary, 0 otherwise. What can't be told on this host is neither.
    Where lab is root, it asks at last what an escaped process would reach (lab isolation breakout).
    """
    if ctx.invoked_subcommand is not None:
        return
    from lab.isolation.registry import choose

    chosen = choose(group, probe)
    become_root(*parse_words(on))
    asked = _ask(on, chosen, scenario)
    surprises = [each for one in asked for each in one.answers if each.detail["as_expected"] is False]
    if as_json:
        write_json([_record(one, each) for one in asked for each in one.answers], as_json)
    else:
        _print_matrix(asked, chosen)
        if not group and not probe:
            if is_system_wide():
                surprises += _print_breakout()
            else:
                hint = remedy("isolation breakout")
                print(f"\nwho breaks out of these is you, and reaches what is yours; {hint} asks what else")
    if surprises:
        raise typer.Exit(1)


@app.command("breakout")
def breakout(as_json: JsonTo = "") -> None:
    """Tell what an escaped process reaches: root's, an ordinary user's.

    Once out of root's, once out of an ordinary user's (rootless): asked on the host itself, as root and as root of a
    user namespace, which is all that is left then. Needs root, whose answers are the controls. Exit code 1 when an
    answer is not the expected one.
    """
    if not is_system_wide():
        raise LabError("what root reaches is the control, and takes root", hint=remedy("isolation breakout"))
    if as_json:
        from lab.isolation.breakout import PREFIX, ask_broken_out

        answers = list(ask_broken_out())
        write_json(
            [{"probe": o.quantity.removeprefix(PREFIX), "answer": o.text, **o.detail} for o in answers], as_json
        )
        surprises = [each for each in answers if each.detail["as_expected"] is False]
    else:
        surprises = _print_breakout()
    if surprises:
        raise typer.Exit(1)


@app.command("ls")
def list_probes(group: Annotated[str, GROUP] = "", as_json: JsonTo = "") -> None:
    """List the probes, by group."""
    from lab.isolation.registry import choose

    chosen = choose(group, "")
    if as_json:
        write_json([described(each) for each in chosen], as_json)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    heading = ""
    for each in chosen:
        if each.group != heading:
            table.add_row(*([""] if heading else []))
            heading = each.group
            table.add_row(f"[bold]{heading}[/bold]")
        table.add_row(f"  {each.id}", escape(each.question), f"[dim]{each.mechanism}[/dim]")
    _console().print(table)


@app.command()
def explain(
    probe: Annotated[str, ONE_PROBE],
    as_json: JsonTo = "",
) -> None:
    """Explain a probe, and what its answers would mean."""
    from lab.isolation.registry import choose

    found = choose("", probe)[0]
    if as_json:
        write_json(described(found), as_json)
        return
    from lab.isolation.explain import explanation

    print(explanation(found))


for study in studies():
    if study.command.startswith("isolation "):
        module, _, name = study.function.partition(":")
        app.command()(getattr(import_module(module), name))


def _ask(on: str, chosen: Sequence[Probe], scenario: str) -> list[Asked]:
    from rich.console import Console

    from lab.backends.site import Site
    from lab.experiment.isolation import LIMITS, ask_backends

    backends = choose_backends(on)
    with Site.open() as site:
        image, process, limits, ends = None, None, LIMITS, False
        if scenario:
            from lab.commands.building.images import build_scenario
            from lab.experiment.scenarios.scenario import load
            from lab.images.process import resolve
            from lab.model import DoneReadiness

            loaded = load(scenario)
            image, limits = build_scenario(site, loaded), loaded.limits
            ends = isinstance(loaded.readiness, DoneReadiness)
            environment = dict(loaded.environment)
            process = resolve(image, site.store.lower_directories(image), environment=environment)
        with Console(stderr=True, quiet=Manner.quiet).status("") as status:
            watch = _Status(status.update)
            return list(
                ask_backends(
                    site,
                    backends,
                    watch,
                    logs=site.scratch / "logs",
                    chosen=chosen,
                    image=image,
                    process=process,
                    limits=as_far_as_given(limits),
                    ends=ends,
                )
            )


class _Status:
    """A Watch that shows the last line on a terminal's standard error."""

    def __init__(self, show: Any) -> None:
        self._show = show

    def doing(self, what: str) -> None:
        self._show(what)

    def progress(self, done: int, expected: int) -> None:
        """Nothing to count."""

    def note(self, sentence: str) -> None:
        say(f"lab: {sentence}")


def _record(asked: Asked, seen: Observation) -> dict[str, Any]:
    """One answer, as --json prints it."""
    return {
        "probe": seen.quantity.removeprefix("isolation."),
        "backend": asked.backend.name,
        "accelerator": str(asked.accelerator),
        "answer": seen.text,
        "value": seen.value,
        **seen.detail,
    }


def described(probe: Probe) -> dict[str, Any]:
    """One probe, as --json prints it."""
    from lab.isolation.explain import how

    return {
        "probe": probe.id,
        "group": str(probe.group),
        "question": probe.question,
        "asked": how(probe),
        "mechanism": str(probe.mechanism),
        "severity": str(probe.severity),
        "expected": {
            str(boundary): {"answers": [str(answer) for answer in wanted.answers], "because": wanted.because}
            for boundary, wanted in probe.expected.items()
        },
        "controls": {"positive": str(probe.positive), "negative": str(probe.negative)},
        "surprise": probe.surprise,
        "pages": list(probe.pages),
    }


def _print_matrix(asked: Sequence[Asked], chosen: Sequence[Probe]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for one in asked:
        table.add_column(f"{one.backend.name}\n[dim]{one.accelerator}[/dim]")
    heading = ""
    for index, probe in enumerate(chosen):
        if probe.group != heading:
            heading = probe.group
            table.add_row()
            table.add_row(f"[bold]{heading}[/bold]")
        table.add_row(escape(probe.question), *(_cell(one.answers[index]) for one in asked))
    console.print(table)
    console.print(f"\n{LEGEND}\nlab isolation explain PROBE says what an answer means; none of this is a score\n")
    for line in _surprises(asked):
        console.print(escape(line), soft_wrap=True)
    for line in _untold(asked):
        console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)


def _print_breakout() -> list[Observation]:
    """Ask what an escaped process reaches, and show it; the answers that were not expected."""
    from rich.markup import escape
    from rich.table import Table

    from lab.isolation.breakout import PREFIX, ask_broken_out

    console = _console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in (
        "[bold]an escaped process reaches[/bold]",
        "out of root's\ncontainer",
        "out of an ordinary\nuser's",
    ):
        table.add_column(title)
    heading, answers = "", list(ask_broken_out())
    for each in answers:
        if each.detail["group"] != heading:
            heading = each.detail["group"]
            table.add_row()
            table.add_row(f"[bold]{heading}[/bold]")
        root = each.detail["root"]
        table.add_row(escape(each.detail["question"]), _worded(root["answer"], root["reach"]), _cell(each))
    console.print(table)
    console.print("\nasked on the host itself, as root and as an ordinary user's root; docs/isolation.md says how\n")
    surprises = [each for each in answers if each.detail["as_expected"] is False]
    for each in surprises:
        told = each.detail
        line = (
            f"! {each.quantity.removeprefix(PREFIX)}: “{each.text}” instead of “{told['expected']}” "
            f"({told['reason']}): {told['surprise']}. {told['evidence']}"
        )
        console.print(escape(line), soft_wrap=True)
    for each in answers:
        if each.text == "inconclusive":
            line = f"? {each.quantity.removeprefix(PREFIX)}: {each.detail['evidence']}"
            console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)
    return surprises


def _console() -> Console:
    """A terminal as wide as it is; whatever reads a pipe gets a question in one line."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_PIPE
    return console


def _cell(seen: Observation) -> str:
    surprise = " [bold]![/bold]" if seen.detail["as_expected"] is False else ""
    return f"{_worded(seen.text, seen.detail['reach'])}{surprise}"


def _worded(answer: str, reach: str) -> str:
    return f"{SYMBOLS[reach]} {SHORTER.get(answer, answer)}"


def _surprises(asked: Sequence[Asked]) -> list[str]:
    return [
        f"! {one.backend.name}, {each.quantity.removeprefix('isolation.')}: “{each.text}” instead of "
        f"“{each.detail['expected']}” ({each.detail['reason']}): {each.detail['surprise']}. {each.detail['evidence']}"
        for one in asked
        for each in one.answers
        if each.detail["as_expected"] is False
    ]


def _untold(asked: Sequence[Asked]) -> list[str]:
    """Why questions could not be answered, those with the same reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in asked:
        for each in one.answers:
            if each.text == "inconclusive":
                key = each.quantity.removeprefix("isolation."), each.detail["evidence"]
                reasons.setdefault(key, []).append(one.backend.name)
    return [f"? {probe} ({', '.join(where)}): {why}" for (probe, why), where in reasons.items()]
