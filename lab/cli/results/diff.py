"""``lab diff``: what changed between two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.output import JsonTo, write_json, write_text
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.analysis.questions.difference import Difference

FAILING = {"worse": ("worse",), "changed": ("worse", "better", "different")}
FAIL_IF = "End with exit code 3 when something is proven to be: worse, or changed."


def diff(
    before: Annotated[str, typer.Argument(metavar="RUN", help="The earlier run: a name, a folder, or latest.")],
    after: Annotated[str, typer.Argument(metavar="RUN", help="The later run.")],
    across_hosts: Annotated[
        bool, typer.Option("--across-hosts", help="Compare runs of different hosts all the same.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every quantity, not only those that are judged.")
    ] = False,
    markdown: Annotated[
        str, typer.Option("--markdown", metavar="FILE", help="Ten lines for a pull request; - prints them.")
    ] = "",
    fail_if: Annotated[str, typer.Option("--fail-if", metavar="WHAT", help=FAIL_IF)] = "",
    as_json: JsonTo = "",
    root: Annotated[Path, typer.Option("--results", metavar="DIR", help="Where runs are looked up by name.")] = Path(
        "results"
    ),
) -> None:
    """Say what changed between two runs, and how sure that is.

    Exit code 0 whatever changed, unless --fail-if says otherwise: then 3, which tells that from a failure (1).
    Less is better of time and memory, more of a rate. For conditions on one run see lab report --fail-if.
    """
    from lab.analysis.loaded import load
    from lab.analysis.questions.difference import difference
    from lab.commands.options.conditions import CONDITION_HOLDS
    from lab.reports.words import verdict
    from lab.results.store import locate

    if fail_if not in ("", *FAILING):
        raise UsageError(f"--fail-if {fail_if} is unknown", hint=f"--fail-if {' or '.join(FAILING)}")
    found = difference(load(locate(before, root)), load(locate(after, root)), across_hosts=across_hosts)
    if as_json:
        rows = json.loads(found.table.to_json(orient="records"))
        write_json({"unlike": list(found.unlike), "caution": found.caution, "rows": rows}, as_json)
    if markdown:
        write_text(markdown, verdict.markdown(found, everything=everything))
    if not (as_json or markdown):
        _show(found, everything)
    if fail_if and {each.change for each in verdict.changes(found, everything=everything)} & set(FAILING[fail_if]):
        raise typer.Exit(CONDITION_HOLDS)


def _show(found: Difference, everything: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from lab.analysis.inference.judge import WITHIN, Verdict
    from lab.analysis.quantities import format_ratio, format_ratios, format_value, is_key, label

    short = {Verdict.SAME: f"the same within {WITHIN}", Verdict.OPEN: "not proven"}
    plain = Console()
    console = Console(highlight=False, width=None if plain.is_terminal else 110)
    for sentence in (*found.unlike, *filter(None, [found.caution])):
        console.print(f"[yellow]note:[/yellow] {escape(sentence)}", soft_wrap=True)
    grid = Table(box=None, pad_edge=False)
    grid.add_column("what")
    blocks = found.before.blocks, found.after.blocks
    for title in (f"before (n = {blocks[0]})", f"after (n = {blocks[1]})", "after ÷ before", "95 %"):
        grid.add_column(title, justify="right", no_wrap=True)
    grid.add_column("")
    table = found.table if everything else found.table[found.table["quantity"].map(is_key).astype(bool)]
    for arm in found.before.arms:
        group = table[table["arm"] == arm.label]
        if group.empty:
            continue
        grid.add_row(f"[bold]{escape(arm.label)}[/bold]")
        for row in group.to_dict("records"):
            name = label(str(row["quantity"])) + (f", {row['state'].replace('-', ' ')}" if row["state"] else "")
            grid.add_row(
                f"  {name}",
                format_value(row["before"], row["unit"]),
                format_value(row["after"], row["unit"]),
                format_ratio(row["ratio"]),
                format_ratios(row["low"], row["high"]) or "–",
                "[bold]changed[/bold]" if row["claim"] else f"[dim]{short[Verdict(row['verdict'])]}[/dim]",
            )
    changed, of = int(table["claim"].sum()), f"{len(table)} quantit{'y' if len(table) == 1 else 'ies'}"
    verdict = f"{changed} of {of} changed." if changed else f"Of {of} none is proven to have changed."
    console.print(f"[bold]{verdict}[/bold]\n")
    console.print(grid)
    console.print(
        "\nThe ratio is that of the geometric means, which the "
        "medians beside it are not. Not proven does not mean no change: only that these runs could show neither a "
        "change nor that there is none."
    )
