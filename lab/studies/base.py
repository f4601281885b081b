"""What a study is: one question that is measured, and answered by a page. Each folder of `lab/studies/` is one.

    __init__.py   STUDY: what is known of it before anything of it is imported
    command.py    the command: it parses, measures, and concludes
    measure.py    the story of the measurement, which appends samples to a run's folder
    analyse.py    samples become numbers, and what may be claimed of them
    report.py     REPORT: how a run is told, as a page, as JSON and on a terminal

The first two files of the measurement and the last two of its analysis meet only through the run's folder:
import-linter refuses any import from one side to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.studies.reporting import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """``kind`` is the name of its folder, and of its runs in ``settings["kind"]``. ``command`` is what is typed
    behind ``lab``; its last word is the function in command.py. ``sentence`` is the first one of that function's
    docstring.
    """

    kind: str
    command: str
    sentence: str

    @property
    def function(self) -> str:
        """Where the command's function is: ``module:name``."""
        return f"{__package__}.{self.kind}.command:{self.command.rpartition(' ')[2]}"

    def report(self) -> Report:
        """How a run of this study is told."""
        found: Report = import_module(f"{__package__}.{self.kind}.report").REPORT
        return found
