"""The top of the ladder: behind a kernel of its own the host's kernel is out of reach."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from comparing import LAB, make_scenario, only_run

from lab.analysis import load
from lab.studies.ladder.analyse import MEMORY, START, costs, rows


@pytest.mark.nightly
def test_a_microvm_is_a_rung(tmp_path: Path) -> None:
    scenario = make_scenario(tmp_path / "page")
    out = tmp_path / "results"
    argv = [*LAB, "isolation", "ladder", str(scenario), "--rungs", "microvm", "--blocks", "1", "--out", str(out)]
    argv += ["--probe", "boot-id,keyrings,host-processes"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    loaded = load(only_run(out))
    stopped = {row.probe: row.stopped_by for row in rows(loaded)}
    assert stopped["boot-id"] == stopped["keyrings"] == "microvm"
    assert stopped["host-processes"] == "microvm"
    found = costs(loaded)
    assert found["microvm", START].median > found["chroot", START].median
    assert found["microvm", MEMORY].median > found["chroot", MEMORY].median
