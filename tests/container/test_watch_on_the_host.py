"""``lab watch``: measured again when something changes, compared with the run before; nothing is left by any end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import preloaded
import pytest
from comparing import make_scenario
from host_state import assert_unchanged, snapshot, wait_until

LAB = [sys.executable, "-m", "lab.cli.main"]
PLAN = """
scenario = "app"
options = ["--on", "process", "--metrics", "boot", "--idle", "0.2s", "--blocks", "8"]
[when]
files = true
[polite]
busy = 1000
"""
SLOWER = 'CMD ["sh", "-c", "sleep 0.2; exec httpd -f -p 8000 -h /srv"]'


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    make_scenario(tmp_path / "app")
    path = tmp_path / "nightly.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(autouse=True)
def same_host() -> Iterator[None]:
    before = snapshot()
    yield
    assert_unchanged(before, within_seconds=20)


def once(plan: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [*LAB, "watch", plan, "--once", *options]
    return preloaded.run(words, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.nightly
def test_a_change_is_measured_and_judged_and_no_change_is_not(plan: Path) -> None:
    first = once(plan)
    assert first.returncode == 0, first.stderr
    (run,) = (path.parent for path in plan.parent.glob("results/*/run.json"))
    again = once(plan, "--fail-if", "changed")
    assert again.returncode == 0
    assert [path.parent for path in plan.parent.glob("results/*/run.json")] == [run], "nothing has changed"

    dockerfile = plan.parent / "app" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace('CMD ["httpd", "-f", "-p", "8000", "-h", "/srv"]', SLOWER))
    slower = once(plan, "--fail-if", "worse")
    assert slower.returncode == 3, slower.stderr
    state = json.loads((plan.parent / "results" / ".watch-nightly.json").read_text())
    assert state["runs"][0] == run.name
    assert len(state["runs"]) == 2
    diary = (plan.parent / "results" / "watch-nightly.md").read_text()
    assert first.stdout in diary
    assert diary.endswith(slower.stdout)
    assert "**worse**: process: boot" in slower.stdout


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_it_ends_what_measures(plan: Path, ending: signal.Signals) -> None:
    with subprocess.Popen([*LAB, "watch", plan], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        samples = plan.parent / "results"
        assert wait_until(lambda: list(samples.glob("*/samples.jsonl")), timeout_seconds=120)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(ending)
        code = process.wait(120)
        assert code == (-ending if ending == signal.SIGKILL else 128 + ending)
        assert wait_until(lambda: not Path(f"/proc/{child}").exists(), timeout_seconds=60), "lab compare has ended"
    assert not (samples / ".watch-nightly.json").exists(), "what was not measured to its end is due again"


def test_what_failed_is_said_and_is_due_again(plan: Path) -> None:
    dockerfile = plan.parent / "app" / "Dockerfile"
    dockerfile.write_text("FROM scratch\nRUN no\n")
    done = once(plan)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (plan.parent / "results" / ".watch-nightly.json").exists()
