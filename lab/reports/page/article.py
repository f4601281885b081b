"""A page about one question: a picture, tables, points; the same as HTML, as Markdown and on a terminal.

`lab compare` has a report of its own (`lab.studies.compare.report.document`). What answers one question (how many
copies fit, what a bad neighbour does) is an article: its module says what is in it, this one how it looks.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from lab.reports.page.opening import MOST_SENTENCES, Opening, lines
from lab.reports.page.render import embedded, put, render
from lab.reports.tables import Cell, Table
from lab.results.record import Run

WIDTH = 100
"""Columns of a terminal that is none: a file, a pipe."""

NOT_TO_CONCLUDE = "What you may not conclude"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with any of paragraphs, a table and points; ``gist`` says beside it what one finds there."""

    title: str
    gist: str = ""
    paragraphs: tuple[str, ...] = ()
    table: Table | None = None
    points: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """``picture`` is the name of plots/NAME.png and .svg, ``alt`` what it shows in words; NAME.csv holds its data."""

    run: Run
    title: str
    lead: str
    opening: Opening
    picture: str
    alt: str
    sections: tuple[Section, ...]

    @property
    def repeat(self) -> str:
        """The command that measured it."""
        return shlex.join(self.run.command_line)


def write(article: Article, folder: Path) -> list[Path]:
    """report.md and report.html, each whole or not at all; the picture and its data are there already."""
    return [put(folder / "report.md", markdown(article)), put(folder / "report.html", html(article, folder))]


def html(article: Article, folder: Path) -> str:
    """One self-contained page: styles, picture and data inside, no script, nothing fetched."""
    figure = {
        "alt": article.alt,
        "data": embedded("image/svg+xml", folder / "plots" / f"{article.picture}.svg"),
        "csv": embedded("text/csv", folder / f"{article.picture}.csv"),
    }
    context = {"article": article, "run": article.run}
    return render("article.html.j2", context | article.opening.context(article.picture, figure))


def markdown(article: Article) -> str:
    """The same in Markdown, its picture linked under ``plots/``."""
    said = [f"# {article.title}", "", article.lead, "", *article.opening.markdown(), ""]
    said += [
        f"![{article.alt}](plots/{article.picture}.png)",
        "",
        f"[The data of this figure]({article.picture}.csv)",
    ]
    for section in article.sections:
        said += ["", f"## {section.title}"]
        for paragraph in section.paragraphs:
            said += ["", paragraph]
        if section.table is not None:
            said += ["", *lines(section.table)]
        if section.points:
            said += ["", *(f"- {point}" for point in section.points)]
    return "\n".join([*said, "", f"Repeat it: `{article.repeat}`"]) + "\n"


def show(article: Article, report: Path) -> None:
    """Print it, at most 100 columns wide where nobody looks at a terminal, and where the page is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console(highlight=False, width=None if Console().is_terminal else WIDTH)
    wide = min(console.width, WIDTH)
    console.print()
    console.print(Text(article.title, style="bold"), Text(article.lead, style="dim"), sep="\n", width=wide)
    console.print()
    for each in article.opening.warnings:
        console.print(
            Text(f"{each.severity}: {each.sentence}", style="yellow"), Text(each.advice, style="dim"), width=wide
        )
    for sentence in article.opening.verdict[:MOST_SENTENCES]:
        console.print(Text(f"• {sentence}"), width=wide)
    for section in article.sections:
        console.print()
        console.print(Text(section.title, style="bold"), width=wide)
        for paragraph in section.paragraphs:
            console.print(Text(paragraph), width=wide)
        if section.table is not None:
            grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
            for column in (section.table.corner, *(column.text for column in section.table.columns)):
                grid.add_column(column, overflow="fold")
            for row in section.table.rows:
                cells = [(cell.text, cell.note) for cell in (Cell(text=row.header, note=row.note), *row.cells)]
                lines = [(Text(text), Text(note, style="dim")) for text, note in cells]
                grid.add_row(*(Text("\n").join(filter(None, both)) for both in lines))
            console.print(grid)
        for point in section.points:
            console.print(Text(f"· {point}"), width=wide)
    console.print()
    console.print(Text("report: ").append(str(report), style="bold"), soft_wrap=True)
