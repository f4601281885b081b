"""The study that docs/adding-a-study.md shows measures, and its run is told as those of lab's own studies are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pages import checkout, follow


def test_the_study_of_the_page_measures_and_is_told(tmp_path: Path) -> None:
    copy = checkout(tmp_path, "lab", "scenarios/idle")
    follow("adding-a-study.md", copy)

    def lab(words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lab.cli.main", *words.split()],
            cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True, timeout=250,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = json.loads(lab("again idle --on process --blocks 3 --json"))
    assert told["kind"] == "again"
    assert told["ended_because"] == "done"
    (starts,) = told["starts"]
    assert (starts["arm"], starts["n"], starts["failed"]) == ("process", 2, 0)
    assert 0 < starts["first"] < 30
    assert starts["median"] > 0
    folder = copy / told["folder"]
    page = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert "report.html" in lab(f"report {folder}")
    assert (folder / "report.html").read_text() == page, "rebuilt from the folder alone"
    assert "What you may not conclude" in page
    assert (folder / "again.csv").read_text().count("again.start") == 3
    assert "again" in lab("results ls")
