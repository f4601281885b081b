"""``lab results``: the runs that were measured."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands.output import JsonTo, harmless, write_json
from lab.errors import LabError, ResultsError

if TYPE_CHECKING:
    from lab.results.record import Run

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

ROOT = typer.Option("--results", metavar="DIR", help="Where the runs are.")
RUN = typer.Argument(metavar="RUN", help="A run's name or folder, or latest.")


@app.callback()
def results() -> None:
    """Look at the runs that were measured; remove some."""


@app.command("ls")
def list_runs(root: Annotated[Path, ROOT] = Path("results"), as_json: JsonTo = "") -> None:
    """List the runs: name, scenario, backends, blocks, why each ended, size."""
    from lab.host.units import format_bytes

    found = [(path, run) for path in _folders(root) if (run := _readable(path)) is not None]
    if as_json:
        write_json([_described(path, run) for path, run in found], as_json)
        return
    if not found:
        print(f"no run in {root} yet; start one: lab compare web-app", file=sys.stderr)
        return
    rows: list[tuple[str, ...]] = [("NAME", "SCENARIO", "BACKENDS", "BLOCKS", "ENDED", "SIZE")]
    for path, run in found:
        about = _described(path, run)
        rows.append(
            tuple(
                harmless(str(cell)).replace("\n", " ")
                for cell in (
                    path.name,
                    run.scenario,
                    ",".join(map(str, about["backends"])),
                    about["blocks"],
                    run.ended_because or "not ended",
                    format_bytes(about["size_bytes"]),
                )
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command("show")
def show(
    run: Annotated[str, RUN] = "latest",
    root: Annotated[Path, ROOT] = Path("results"),
    as_json: JsonTo = "",
) -> None:
    """Show a run's table, or with --json all that was written down about it."""
    from lab.results.store import RunFolder, locate

    folder = locate(run, root)
    if as_json:
        from lab.results.codec import encode_run

        write_json(json.loads(encode_run(RunFolder.open(folder).run)), as_json)
        return
    from lab.studies.compare.report import terminal

    terminal.show(folder)


@app.command("query")
def ask(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="Over the tables samples, runs and arms; - reads it.")],
    root: Annotated[Path, ROOT] = Path("results"),
    csv: Annotated[str, typer.Option("--csv", metavar="FILE", help="Write the rows as CSV; - prints it.")] = "",
    markdown: Annotated[str, typer.Option("--markdown", metavar="FILE", help="Or as Markdown; - prints it.")] = "",
    as_json: JsonTo = "",
) -> None:
    """Ask all runs at once, in SQL (DuckDB's): docs/queries.md has the tables, and ten questions.

    The query sees these tables and nothing else: no file and no network.
    """
    from lab.analysis.many import folders
    from lab.analysis.questions.query import query
    from lab.commands.console.rows import plain, show, write_csv, write_markdown

    runs = folders(root)
    if not runs:
        raise ResultsError(f"there is no run in {root} yet", hint="lab compare web-app")
    text = sys.stdin.read() if sql == "-" else sql
    found = query(runs, text, skipped=lambda error: print(harmless(f"lab: {error.message}"), file=sys.stderr))
    if as_json:
        write_json([dict(zip(found.columns, map(plain, row), strict=True)) for row in found.rows], as_json)
    if csv:
        write_csv(csv, found.columns, found.rows)
    if markdown:
        write_markdown(markdown, found.columns, found.rows)
    if not (as_json or csv or markdown):
        show(found.columns, found.rows)


@app.command("rm")
def remove(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Names or folders of runs.")],
    root: Annotated[Path, ROOT] = Path("results"),
) -> None:
    """Remove runs with all their files. A run that is being written is left alone."""
    from lab.results.store import Linked, RunFolder, locate

    folders = [locate(word, root) for word in runs]
    for folder in folders:
        with RunFolder.open(folder) as held:
            with suppress(Linked):  # then nobody is writing it, and removing follows no link
                held.lock()
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise ResultsError(f"{folder} can't be removed: {error.strerror}", hint="check its owner") from error
        print(folder.name)


@app.command("merge")
def merge_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Names or folders of runs.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where the new folder is made.")] = None,
    root: Annotated[Path, ROOT] = Path("results"),
) -> None:
    """Join runs of the same plan, image and host into one, a session each. They stay as they are."""
    from lab.results.merge import merge
    from lab.results.store import RunFolder, locate
    from lab.studies.compare.report import terminal
    from lab.studies.compare.report.writer import write

    merged = merge([RunFolder.open(locate(word, root)) for word in runs], out or root)
    write(merged.path)
    terminal.show(merged.path)


@app.command("trend")
def show_trend(
    quantity: Annotated[
        str, typer.Argument(metavar="QUANTITY", help="As samples name it: boot.total, memory.pss, …")
    ],
    root: Annotated[Path, ROOT] = Path("results"),
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write CSV, PNG and SVG there. Default: --results.")
    ] = None,
    scenario: Annotated[str, typer.Option("--scenario", metavar="NAME", help="Only its runs.")] = "",
    as_json: JsonTo = "",
) -> None:
    """Draw a quantity over all runs, a line per scenario and backend, and write its table.

    Runs that waited for different things (first answer, port open, …) have lines of their own, too. Runs of different
    hosts are not comparable for being drawn together: the CSV names each run.
    """
    from lab.analysis.many import folders, trend
    from lab.reports.trend import write_trend

    runs = folders(root)
    if not runs:
        raise ResultsError(f"there is no run in {root} yet", hint="lab compare web-app")
    table = trend(runs, quantity, skipped=lambda error: print(f"lab: {error.message}", file=sys.stderr))
    if scenario:
        table = table[table["scenario"] == scenario]
        if table.empty:
            raise ResultsError(f"no run of {scenario} has an observation of {quantity}", hint="lab results ls")
    written = write_trend(table, quantity, out or root)
    if as_json:
        write_json(json.loads(table.to_json(orient="records", date_format="iso")), as_json)
        return
    for path in written:
        print(path)


def _folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/run.json"))


def _readable(path: Path) -> Run | None:
    """A run of a newer lab, or a broken one, is said and passed over."""
    from lab.results.store import RunFolder

    try:
        return RunFolder.open(path).run
    except LabError as error:
        print(harmless(f"lab: {error.message}"), file=sys.stderr)
        return None


def _described(path: Path, run: Run) -> dict[str, Any]:
    from lab.results.store import RunFolder

    done = RunFolder.open(path).completed()
    return {
        "name": path.name,
        "folder": str(path),
        "scenario": run.scenario,
        "started": run.started,
        "ended": run.ended,
        "ended_because": run.ended_because,
        "backends": list(dict.fromkeys(arm.backend for arm in run.arms)),
        "blocks": len({block for block, _ in done if block > 0}),
        "host": run.host.get("identity", ""),
        "image": run.image.get("digest", ""),
        "size_bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
    }
