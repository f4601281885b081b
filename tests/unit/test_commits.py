"""What is asked of every commit: the hooks are the linters that are tests, and stop what these would find."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from test_style import LINTERS

ROOT = Path(__file__).parents[2]
HOOKS = ".pre-commit-config.yaml"


def test_every_linter_is_a_hook_and_none_is_fetched() -> None:
    (repository,) = yaml.safe_load((ROOT / HOOKS).read_text())["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    assert all(words[0] == "./bootstrap" for words in entries)
    called = {" ".join(words[1:3]) if words[1] == "ruff" else words[1] for words in entries}
    assert called == {*LINTERS, "pytest"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One with lab's hooks, in an environment that is complete: ``./bootstrap`` only passes on."""
    git(tmp_path, "init", "--quiet")
    for name in (HOOKS, "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    bootstrap = tmp_path / "bootstrap"
    bootstrap.write_text('#!/bin/sh\nexec "$@"\n')
    bootstrap.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "stopped"),
    [('"""Fine."""\n', []), ('"""Fine."""\n\nimport os\n', ["ruff"]), ('"""Fine."""\nx  =  1\n', ["ruff-format"])],
)
def test_a_commit_is_stopped_by_what_is_wrong_in_it(repository: Path, text: str, stopped: list[str]) -> None:
    (repository / "change.py").write_text(text)
    git(repository, "add", ".")
    words = [sys.executable, "-m", "pre_commit", "run", "--color=never", "--verbose", "--files", "change.py"]
    done = subprocess.run(
        words, cwd=repository, env=environment(repository), capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stdout.splitlines()
    failed = [after.split()[-1] for line, after in pairwise(lines) if line.endswith("Failed")]
    assert failed == stopped, done.stdout
    assert done.returncode == (1 if stopped else 0)


def environment(folder: Path) -> dict[str, str]:
    """With the programs of lab's environment, without what git says to hooks it runs these tests in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return kept | {"PATH": path, "PRE_COMMIT_HOME": str(folder / ".cache"), "SKIP": "style"}


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, env=environment(folder), check=True, timeout=30)
