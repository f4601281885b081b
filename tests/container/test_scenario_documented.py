"""The scenario that docs/adding-a-scenario.md shows is measured, with the load that it brings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pages import follow

import lab


@pytest.mark.nightly
@pytest.mark.timeout(1300)  # the first to ask for it makes python:3.11-slim
def test_the_scenario_of_the_page_is_measured(tmp_path: Path) -> None:
    follow("adding-a-scenario.md", tmp_path)
    words = "compare ./greeter --on process,container --blocks 1 --metrics boot,work --idle 0.1s"
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli.main", *words.split()],
        cwd=tmp_path, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    seen = lab.load(str(folder)).measured
    assert set(seen["status"]) == {"ok"}
    greetings = seen[seen["quantity"] == "work.greetings"].set_index("arm")
    assert set(greetings.index) >= {"process", "container"}
    assert set(greetings["unit"]) == {"requests/s"}
    assert (greetings["value"] > 10).all()
    assert (seen.loc[seen["quantity"] == "boot.total", "value"] > 0).all()
