"""The notebook runs from top to bottom on a run, and was committed without output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import write_run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "explore.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    folder = write_run(tmp_path)
    monkeypatch.setenv("LAB_RUN", str(folder.path))
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        assert cell["outputs"] == []
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert {"table", "compared", "per_block"} <= set(names)
