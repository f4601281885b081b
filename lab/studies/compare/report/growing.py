"""A run's page while it is measured: written after a block, by a process of its own, so that nothing of it stays.

    python -m lab.studies.compare.report.growing RUN_FOLDER SECONDS

The page is the report as far as it goes, without files of pictures. It says that it is not the last word, and loads
itself again every SECONDS, with what was open still open, until the finished report takes its place.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from lab.analysis.findings import Kind
from lab.reports.figures import charts
from lab.reports.material import Material
from lab.reports.page.render import put, writing
from lab.studies.compare.report.document import html

NICENESS = 10


def write_growing(run_folder: Path, seconds: float) -> Path:
    """report.html of what there is by now; with no ``seconds`` as that of a run that ended so. Raises ResultsError
    when the folder can't be read or written.
    """
    material = Material.read(run_folder)
    growing = None
    if seconds:
        material.findings = tuple(each for each in material.findings if each.kind is not Kind.INTERRUPTED)
        growing = {"blocks": material.loaded.blocks, "seconds": round(seconds), "written": round(time.time())}
    with writing(run_folder):
        return put(run_folder / "report.html", html(material, list(charts(material)), growing=growing))


if __name__ == "__main__":
    os.nice(NICENESS)
    write_growing(Path(sys.argv[1]), float(sys.argv[2]))
