"""The scenarios whose images take minutes to make: each is built, run and checked, by night."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from comparing import LAB
from host_state import assert_unchanged, snapshot

pytestmark = pytest.mark.nightly

HEAVY = ("code-sandbox", "ci-job", "browser")


@pytest.mark.timeout(3600)
def test_each_works_with_its_limits(tmp_path: Path) -> None:
    before, out = snapshot(), tmp_path / "matrix.json"
    argv = [*LAB, "scenario", "matrix", *HEAVY, "--on", "process,container", f"--json={out}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=3500, check=False)
    assert done.returncode == 0, done.stderr
    assert_unchanged(before)
    cells = json.loads(out.read_text())["cells"]
    assert len(cells) == 2 * len(HEAVY)
    assert [each["outcome"] for each in cells] == ["works"] * len(cells), cells
