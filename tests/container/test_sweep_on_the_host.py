"""``lab sweep --local``: this host alone, in the way that many are measured, with the real lab compare."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import preloaded
import pytest
from comparing import make_scenario
from host_state import assert_unchanged, snapshot

from lab import load

LAB = [sys.executable, "-m", "lab.cli.main"]
PLAN = """
scenarios = ["app"]
backends = ["process"]
options = ["--metrics", "boot", "--idle", "0.2s", "--blocks", "1"]
[polite]
busy = 1000
"""


@pytest.fixture(autouse=True)
def same_host() -> Iterator[None]:
    before = snapshot()
    yield
    assert_unchanged(before, within_seconds=20)


def test_this_host_alone(tmp_path: Path) -> None:
    make_scenario(tmp_path / "app")
    (tmp_path / "plan.toml").write_text(PLAN)
    words = [*LAB, "sweep", "plan.toml", "--local"]
    done = preloaded.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    sweep = Path(done.stdout.strip())
    (run,) = (sweep / "runs").iterdir()
    assert load(run).run.scenario == "app"
    events = [json.loads(line) for line in (sweep / "events.jsonl").read_text().splitlines()]
    assert [each["state"] for each in events if each["task"]] == ["waiting", "measuring", "done", "done"]
    assert events[-1]["confirmed"], "the host may forget it"
    again = preloaded.run(
        [*LAB, "sweep", "--resume", sweep], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert again.returncode == 0, "there is nothing left to do"
