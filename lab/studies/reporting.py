"""How a run of a study is told: as a page with files beside it, as JSON, on a terminal."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from lab.analysis.loaded import Loaded, load
from lab.commands.output import write_json
from lab.errors import UsageError
from lab.reports.export.formats import SCHEMA_VERSION, parquet, pdf, plain
from lab.reports.page import article
from lab.reports.page.article import Article
from lab.reports.page.render import put, writing
from lab.results.store import PROGRESS, RUN, SAMPLES, RunFolder

if TYPE_CHECKING:
    import pandas as pd

ALWAYS = ("html", "md", "csv")
"""What a study's page consists of, whatever is asked for."""


class Report(ABC):
    """What each study's report.py has as ``REPORT``."""

    @abstractmethod
    def pages(self, loaded: Loaded) -> list[Path]:
        """Write pictures, data, report.md and, last, report.html into the run's folder. Returns what was written."""

    @abstractmethod
    def said(self, loaded: Loaded) -> dict[str, Any]:
        """What the run says besides what every run says, for ``--json``."""

    @abstractmethod
    def show(self, loaded: Loaded, page: Path) -> None:
        """Print the essence, and where the page is."""

    def show_again(self, folder: Path) -> None:
        """Print what ``lab report`` prints before the names of the files: nothing."""

    def write(self, folder: Path, formats: Sequence[str] = (), *, hidden: bool = False) -> list[Path]:
        """Write the report from the run's folder alone. Returns what was written, the page behind its parts.

        Raises UsageError for a format that this report does not have, ResultsError for a folder that can't be read
        or written.
        """
        if hidden:
            raise UsageError(
                f"{folder.name} is a study with a page of its own", hint="--hide is for lab compare's runs"
            )
        more: Mapping[str, Callable[[Path], list[Path]]] = {
            "json": lambda folder: [put(folder / "report.json", self.text(folder))],
            "pdf": lambda folder: pdf(None, folder),
            "parquet": lambda folder: parquet(None, folder),
        }
        if unknown := sorted(set(formats) - {*ALWAYS, *more}):
            raise UsageError(
                f"{folder.name} is a study, which has no format {', '.join(unknown)}",
                hint=f"it has {', '.join((*ALWAYS, *more))}",
            )
        with writing(folder):
            written = self.pages(load(folder))
            for name, export in more.items():
                if name in formats:
                    written += export(folder)
        return written

    def page(self, folder: Path) -> str:
        """The report's page alone, from the run's folder, in which nothing is written. Raises as `write` does."""
        with TemporaryDirectory(prefix="lab-page-") as scratch:
            copy = Path(scratch) / folder.name
            copy.mkdir()
            for name in (RUN, SAMPLES, PROGRESS):
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, copy / name)
            return self.pages(load(copy))[-1].read_text(encoding="utf-8")

    def conclude(self, folder: RunFolder, as_json: str) -> None:
        """End a command that has measured: write the report, then print its essence, or all of it as JSON."""
        written = self.write(folder.path)
        if as_json:
            write_json(self.as_json(folder.path), as_json)
        else:
            self.show(load(folder.path), written[-1])

    def as_json(self, folder: Path) -> dict[str, Any]:
        """The run as one object. Raises ResultsError when the folder can't be read."""
        loaded = load(folder)
        run = loaded.run
        head = {
            "folder": str(folder),
            "kind": run.settings["kind"],
            "schema": SCHEMA_VERSION,
            "run": run.name,
            "scenario": run.scenario,
            "title": run.title,
            "started": run.started,
            "ended": run.ended,
            "ended_because": run.ended_because,
            "blocks": loaded.blocks,
            "seed": run.seed,
            "arms": [asdict(arm) for arm in loaded.all_arms],
        }
        tail = {
            "image": run.image,
            "host": run.host,
            "versions": run.versions,
            "limits": run.limits,
            "settings": run.settings,
        }
        found: dict[str, Any] = plain(head | self.said(loaded) | tail)
        return found

    def text(self, folder: Path) -> str:
        """The same as a file's text."""
        return json.dumps(self.as_json(folder), ensure_ascii=False, indent=1) + "\n"


class ArticleReport(Report):
    """A report that is an `Article`: the study says what is in it, draws its picture, and gives the data of that."""

    picture: ClassVar[str]  # plots/NAME.png and .svg, and NAME.csv

    @abstractmethod
    def describe(self, loaded: Loaded) -> Article:
        """What is on the page."""

    @abstractmethod
    def draw(self, loaded: Loaded, directory: Path) -> Sequence[Path]:
        """Draw the picture. Returns its files."""

    @abstractmethod
    def data(self, loaded: Loaded) -> pd.DataFrame:
        """The observations behind the picture."""

    def pages(self, loaded: Loaded) -> list[Path]:
        plots = loaded.path / "plots"
        plots.mkdir(exist_ok=True)
        drawn = self.draw(loaded, plots)
        data = put(loaded.path / f"{self.picture}.csv", self.data(loaded).to_csv(index=False))
        return [*drawn, data, *article.write(self.describe(loaded), loaded.path)]

    def show(self, loaded: Loaded, page: Path) -> None:
        article.show(self.describe(loaded), page)


def judged(found: Any, name: str) -> dict[str, Any]:
    """A result with its judgement beside the numbers: ``verdict`` and ``claim``, null where nothing was judged."""
    told = asdict(found)
    judgement = told.pop(name)
    of = getattr(found, name)
    return told | {"verdict": of and of.verdict.value, "claim": of and of.claim, "judgement": judgement}
