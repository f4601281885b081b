"""A run measured in a machine that is emulated itself says so, wherever its figures are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import studies
from synthetic import draw_nothing, write_run
from typer.testing import CliRunner

from lab.analysis.findings import Kind, Severity
from lab.cli.app import app
from lab.host.survey import facts, virtualisation
from lab.host.survey.virtualisation import NESTED
from lab.reports.material import Material
from lab.results.store import RunFolder

EMULATED = virtualisation.of("qemu")


def on_an_emulated_host(folder: Path) -> Path:
    """The run as lab would have written it there."""
    path = folder / "run.json"
    run = json.loads(path.read_text())
    run["host"]["platform"] = {"ground": EMULATED.ground, "by": EMULATED.by, "title": EMULATED.title}
    for arm in run["arms"]:
        arm["nested"] = True
        arm["accelerator"] = "kvm" if arm["accelerator"] == "tcg" else arm["accelerator"]
    path.write_text(json.dumps(run))
    return folder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_an_emulated_host(write_run(tmp_path_factory.mktemp("results")).path)


def reported(folder: Path) -> str:
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_a_comparison_says_it_in_the_terminal_and_on_its_page(compared: Path) -> None:
    found = [each for each in Material.read(compared).findings if each.kind is Kind.EMULATED]
    assert [each.severity for each in found] == [Severity.SERIOUS]
    assert NESTED in reported(compared)
    for name in ("report.html", "report.md"):
        text = (compared / name).read_text()
        assert NESTED in text, name
        assert "KVM on an emulated host" in text, name


@pytest.mark.parametrize(
    "make",
    [studies.density_run, studies.noisy_run, studies.surface_run, studies.ladder_run, studies.starts_run],
)
def test_every_study_says_it_on_its_page(tmp_path: Path, make: Callable[[Path], RunFolder]) -> None:
    folder = make(tmp_path).path
    reported(folder)
    assert NESTED not in (folder / "report.html").read_text()
    reported(on_an_emulated_host(folder))
    assert NESTED in (folder / "report.html").read_text()
    assert NESTED in (folder / "report.md").read_text()


def test_provenance_holds_what_the_host_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtualisation, "platform", lambda: EMULATED)
    found = facts.provenance()["platform"]
    assert (found["ground"], found["by"]) == ("emulated", "qemu")
    assert found["effect"]
