"""A page about one question: a picture, tables, points; the same as HTML, as Markdown and on a terminal.

`lab compare` has a report of its own (`lab.studies.compare.report.document`). What answers one question (how many
copies fit, what a bad neighbour does) is an article: its module says what is in it, this one how it looks.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.reports.page.opening import MOST_SENTENCES, Opening, lines
from lab.reports.page.render import embedded, embedded_text, put, render
from lab.reports.tables import Cell, Table
from lab.results.record import Run

WIDTH = 100
"""Columns of a terminal that is none: a file, a pipe."""

NOT_TO_CONCLUDE = "What you may not conclude"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with any of paragraphs, a picture, a table and points; ``gist`` says beside it what one finds there.
    ``picture`` and ``alt`` are as an `Article`'s.
    """

    title: str
    gist: str = ""
    paragraphs: tuple[str, ...] = ()
    picture: str = ""
    alt: str = ""
    table: Table | None = None
    points: tuple[str, ...] = ()

    @classmethod
    def of_warnings(cls, points: Sequence[str]) -> Section:
        """What follows from none of the numbers."""
        return cls(title=NOT_TO_CONCLUDE, gist="read it before you quote a number", points=tuple(points))


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """``picture`` is the name of plots/NAME.png and .svg, ``alt`` what it shows in words; ``large`` is another one,
    for where it is shown large. What it was drawn from is in ``data``.csv, by default that of its name. ``facts`` say
    how it was measured, and the page's footer what lies ``beside`` it. What is about many runs is of no ``run``, and
    has the words of its ``command``.
    """

    run: Run | None
    title: str
    lead: str
    opening: Opening
    picture: str
    alt: str
    sections: tuple[Section, ...]
    data: str = ""
    large: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    beside: str = ""
    command: tuple[str, ...] = ()

    @property
    def repeat(self) -> str:
        """The command that measures it again, in the same order."""
        if self.run is None:
            return shlex.join(self.command)
        words = self.run.command_line
        is_seeded = not self.run.seed or any(word.partition("=")[0] == "--seed" for word in words)
        return shlex.join(words if is_seeded else (*words, "--seed", str(self.run.seed)))


def write(article: Article, folder: Path) -> list[Path]:
    """report.md and report.html, each whole or not at all; the picture and its data are there already."""
    return [put(folder / "report.md", markdown(article)), put(folder / "report.html", html(article, folder))]


def html(article: Article, folder: Path, own: Path | None = None, **shown: Any) -> str:
    """One self-contained page: styles, picture and data inside, no script, nothing fetched.

    A study that shows more than tables has page.html.j2 and page.css in the folder ``own``. That template extends
    article.html.j2, and its block ``own`` shows what is ``shown``, before the sections.
    """
    figure = _figure(folder, article.picture, article.alt, article.data) | {
        "large": embedded("image/svg+xml", folder / "plots" / f"{article.large or article.picture}.svg")
    }
    context = {"article": article, "run": article.run, **shown, **article.opening.context(article.picture, figure)}
    for section in article.sections:
        if section.picture:
            context["figures"].setdefault(
                section.picture, _figure(folder, section.picture, section.alt, article.data)
            )
    if own is None:
        return render("article.html.j2", context)
    return render("page.html.j2", context, styles=("report.css", "page.css"), beside=own)


def _figure(folder: Path, name: str, alt: str, data: str) -> dict[str, str]:
    """A picture and its data, as a page holds them."""
    file = folder / f"{data or name}.csv"
    return {
        "alt": alt,
        "data": embedded("image/svg+xml", folder / "plots" / f"{name}.svg"),
        "csv": embedded_text("text/csv", file.read_text(encoding="utf-8") if file.exists() else ""),
    }


def facts_of(run: Run) -> tuple[tuple[str, str], ...]:
    """What was measured, and where."""
    host = (run.host.get("kernel_release"), run.host.get("distribution"), f"lab {run.versions.get('lab', '')}")
    return ("image", str(run.image.get("digest", ""))), ("host", " · ".join(str(each) for each in host if each))


def markdown(article: Article) -> str:
    """The same in Markdown, its picture linked under ``plots/``."""
    said = [f"# {article.title}", "", article.lead, "", *article.opening.markdown(), ""]
    said += [
        f"![{article.alt}](plots/{article.picture}.png)",
        "",
        *([f"[Every mark of it](plots/{article.large}.png)", ""] if article.large else []),
        f"[The data of this figure]({article.data or article.picture}.csv)",
    ]
    for section in article.sections:
        said += ["", f"## {section.title}"]
        for paragraph in section.paragraphs:
            said += ["", paragraph]
        if section.picture:
            said += ["", f"![{section.alt}](plots/{section.picture}.png)"]
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
