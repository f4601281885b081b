"""The workflow of docs/continuous-integration.md, step by step, for a change that makes a start slower."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparing import make_scenario
from host_state import assert_unchanged, snapshot

ROOT = Path(__file__).parents[2]
QUICK = "--on process --metrics boot --idle 0.2s --blocks 8"
SLOWER = '["sh", "-c", "sleep 0.2; exec httpd -f -p 8000 -h /srv"]'
AUTHOR = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


@dataclass(frozen=True)
class Runner:
    """What GitHub's runner is to a job: a checkout, a folder for what is temporary, and variables."""

    folder: Path
    base: str
    job: Mapping[str, Any]

    @property
    def summary(self) -> Path:
        return self.folder / "summary.md"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """One step, as the shell ``bash`` of a workflow runs it."""
        known = {"github.event.pull_request.base.sha": self.base, "runner.temp": str(self.temporary)}
        expressions = re.compile(r"\$\{\{ *([\w.]+) *\}\}")
        own = {name: expressions.sub(lambda found: known[found[1]], value) for name, value in self.job["env"].items()}
        own |= {"LAB": str(ROOT), "MEASURE": QUICK, "RUNNER_TEMP": str(self.temporary)}
        own |= {"GITHUB_STEP_SUMMARY": str(self.summary), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        file = self.folder / "step.sh"
        file.write_text(script)
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)]
        return subprocess.run(
            words,
            cwd=self.folder / "work",
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, *words], env=os.environ | AUTHOR, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def pull_request(folder: Path, change: str) -> Runner:
    """A repository with an application, checked out at a commit that says ``change`` as its command."""
    make_scenario(folder / "work" / "app")
    (folder / "temporary").mkdir()
    (folder / "bin").mkdir()
    sudo = folder / "bin" / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')  # root runs the tests
    sudo.chmod(0o755)
    git(folder / "work", "init", "--quiet")
    git(folder / "work", "add", ".")
    git(folder / "work", "commit", "--quiet", "--message", "An application")
    base = git(folder / "work", "rev-parse", "HEAD")
    dockerfile = folder / "work" / "app" / "Dockerfile"
    dockerfile.write_text(re.sub(r"CMD .*", f"CMD {change}", dockerfile.read_text()))
    git(folder / "work", "commit", "--quiet", "--all", "--allow-empty", "--message", "A change")
    page = (ROOT / "docs" / "continuous-integration.md").read_text()
    job = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])["jobs"]["measure"]
    assert job["defaults"]["run"]["shell"] == "bash"
    return Runner(folder=folder, base=base, job=job)


@pytest.mark.nightly
def test_a_change_that_makes_a_start_slower_ends_the_build_and_is_named(tmp_path: Path) -> None:
    before = snapshot()
    runner = pull_request(tmp_path, SLOWER)
    *measuring, judging = [step["run"] for step in runner.job["steps"] if "run" in step]
    for script in measuring:
        done = runner.run(script)
        assert done.returncode == 0, done.stderr
    done = runner.run(judging)
    assert done.returncode == 3, done.stderr
    assert "::error" in done.stdout
    assert {path.name for path in (runner.temporary / "runs").iterdir()} == {"before", "after", "again"}
    assert "**worse**: process: boot" in runner.summary.read_text()
    assert_unchanged(before)


@pytest.mark.nightly
def test_a_change_that_changes_nothing_ends_no_build(tmp_path: Path) -> None:
    runner = pull_request(tmp_path, '["httpd", "-f", "-p", "8000", "-h", "/srv"]')
    for step in runner.job["steps"]:
        if "run" in step:
            done = runner.run(step["run"])
            assert done.returncode == 0, (done.stdout, done.stderr)
    assert "worse" not in runner.summary.read_text()


def test_what_could_not_be_compared_is_no_regression(tmp_path: Path) -> None:
    runner = pull_request(tmp_path, SLOWER)
    *_, judging = [step["run"] for step in runner.job["steps"] if "run" in step]
    done = runner.run(judging)
    assert done.returncode in (1, 2)
    assert "::error" not in done.stdout
    assert not runner.summary.exists()
