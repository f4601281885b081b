"""``lab scenario``: what there is, and a template that is a scenario."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli.images.scenario import app
from lab.errors import ScenarioError, UsageError
from lab.experiment.scenarios import scenario
from lab.model import HttpReadiness, Load


def told(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_every_scenario_is_listed() -> None:
    listed = told("ls")
    assert [line.split()[0] for line in listed.splitlines()[1:]] == scenario.names()
    assert [each["name"] for each in json.loads(told("ls", "--json=-"))] == scenario.names()


def test_a_scenario_is_shown_with_its_page() -> None:
    text = told("show", "key-value")
    assert "redis-benchmark" in text
    assert "## What it teaches" in text
    assert json.loads(told("show", "key-value", "--json=-"))["readiness"]["kind"] == "talk"


def test_a_new_scenario_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "lab compare my-app" in told("new", "my-app")
    found = scenario.load("my-app")
    assert found.title == "My app"
    assert found.readiness == HttpReadiness(path="/health", body="ok")
    assert found.load == Load(path="/", connections=4, duration_seconds=3.0)
    compile((found.directory / "app.py").read_text(), "app.py", "exec")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="there already"):
        CliRunner().invoke(app, ["new", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(UsageError, match="names no folder"):
        CliRunner().invoke(app, ["new", "./"], catch_exceptions=False)
