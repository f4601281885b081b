"""``--json`` of what measures, and ``lab report`` of every kind of run: the same words for the same things."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from studies import density_run, ladder_run, noisy_run, starts_run, surface_run
from synthetic import draw_nothing, write_run
from typer.testing import CliRunner

from lab.cli.app import app
from lab.results.store import RunFolder

KINDS: dict[str, tuple[Callable[[Path], RunFolder], str]] = {
    "compare": (write_run, "ratios"),
    "density": (density_run, "growth"),
    "noisy": (noisy_run, "disturbances"),
    "starts": (starts_run, "starts"),
    "ladder": (ladder_run, "costs"),
    "surface": (surface_run, "backends"),
}
HEAD = {"folder", "kind", "run", "scenario", "started", "blocks", "seed", "arms", "image", "host", "settings"}


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Numbers are asked for; the pages and pictures of each study are drawn by its own tests."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_is_told_as_one_object_and_nothing_else_is_on_standard_output(
    kind: str, tmp_path: Path
) -> None:
    make, own = KINDS[kind]
    folder = make(tmp_path)
    done = CliRunner().invoke(app, ["report", str(folder.path), "--json"])
    told = json.loads(done.stdout, parse_constant=pytest.fail)  # NaN is no JSON
    assert set(told) >= HEAD
    assert told["kind"] == kind
    assert told[own]
    assert (folder.path / "report.html").is_file()


def test_what_is_claimed_stands_beside_the_numbers(tmp_path: Path) -> None:
    def told(folder: RunFolder) -> Any:
        return json.loads(CliRunner().invoke(app, ["report", str(folder.path), "--json"]).stdout)

    slowed = {(each["kind"], each["limits"]): each for each in told(noisy_run(tmp_path))["disturbances"]}
    assert slowed["cpu", "without limits"]["claim"] is True
    assert slowed["cpu", "with limits"]["claim"] is False
    growth = {each["quantity"]: each for each in told(density_run(tmp_path))["growth"]}
    assert growth["density.charged"]["claim"] is True
    assert growth["density.charged"]["per_copy"] == pytest.approx(5e6)


def test_several_runs_are_an_array_and_a_file_takes_it(tmp_path: Path) -> None:
    runs = [str(make(tmp_path).path) for make in (density_run, noisy_run)]
    target = tmp_path / "both.json"
    done = CliRunner().invoke(app, ["report", *runs, f"--json={target}"])
    assert done.exit_code == 0
    assert done.stdout == ""
    assert [each["kind"] for each in json.loads(target.read_text())] == ["density", "noisy"]


def test_a_study_has_the_formats_that_it_has_and_refuses_others(tmp_path: Path) -> None:
    folder = density_run(tmp_path)
    done = CliRunner().invoke(app, ["report", str(folder.path), "--format", "json"])
    assert done.exit_code == 0
    assert json.loads((folder.path / "report.json").read_text())["kind"] == "density"
    done = CliRunner().invoke(app, ["report", str(folder.path), "--format", "slides"])
    assert done.exit_code != 0
    assert "slides" in str(done.exception)
    assert "json" in getattr(done.exception, "hint", "")


def test_a_result_can_not_be_hidden_and_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(write_run(tmp_path).path), "--hide", "results", "--json"])
    assert "--json tells a result" in str(done.exception)
