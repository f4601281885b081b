"""A report that tells no result, for predicting first; and slides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from synthetic import draw_nothing, leave_pictures_empty, write_run
from typer.testing import CliRunner

from lab.cli.results.report import report
from lab.errors import UsageError
from lab.reports import style
from lab.reports.material import Material
from lab.results.store import RunFolder
from lab.studies.compare.report.writer import write, write_hidden

OTHER = {"host": "own", "yes": "no", "no": "yes", "own": "host", "guest": "no", "effective": "ignored"}


def with_other_values(folder: RunFolder) -> None:
    """Every number another, by another factor for each backend; every answer another."""
    file = folder.path / "samples.jsonl"
    lines = []
    for line in file.read_text().splitlines():
        raw = json.loads(line)
        if isinstance(raw.get("value"), int | float):
            raw["value"] *= 1.5 + len(raw["arm"])
        raw["text"] = OTHER.get(raw.get("text", ""), raw.get("text", ""))
        lines.append(json.dumps(raw) + "\n")
    file.write_text("".join(lines))


def test_no_value_reaches_a_hidden_report_in_any_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that differ in nothing but values and answers give the same bytes: source, tooltips, alt texts and
    all.
    """
    leave_pictures_empty(monkeypatch)  # a hidden report has none
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other")
    assert one.run.name.split("-")[-2:] == other.run.name.split("-")[-2:]
    (other.path / "run.json").write_text((one.path / "run.json").read_text())
    with_other_values(other)
    shown = [[path.read_bytes() for path in write_hidden(each.path, ["html", "slides"])] for each in (one, other)]
    assert shown[0] == shown[1]
    text = shown[0][0].decode()
    material = Material.read(one.path)
    for words in (
        *(arm.label for arm in material.arms),
        "Can it mount a file system?",
        "CPU for 1,000 requests",
        "Every start",
        "latency p50",
        "anonymous",
        "init runs",
    ):
        assert words in text
    assert "data-reach" not in text
    assert "n = " not in text
    draw_nothing(monkeypatch)
    write(one.path, ["html"]), write(other.path, ["html"])  # the control: a report that tells results differs
    assert (one.path / "report.html").read_bytes() != (other.path / "report.html").read_bytes()


def test_the_command_tells_no_result_either(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    application = typer.Typer()
    application.command()(report)
    done = CliRunner().invoke(application, [str(folder.path), "--hide", "results"])
    assert done.exit_code == 0, done.output
    assert done.output.split() == [str(folder.path / "predict.html")]
    assert not (folder.path / "report.html").exists()
    assert not (folder.path / "plots").exists()
    for wrong in (["--hide", "names"], ["--hide", "results", "--format", "csv"],
                  ["--hide", "results", "--fail-if", "boot.median(vm) > 1"]):  # fmt: skip
        refused = CliRunner().invoke(application, [str(folder.path), *wrong])
        assert isinstance(refused.exception, UsageError), wrong
        assert refused.exception.hint


def test_slides_have_a_page_for_each_figure_and_colours_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_nothing(monkeypatch)
    folder = write_run(tmp_path)
    write(folder.path, ["slides"])
    text = (folder.path / "slides.html").read_text()
    figures = list((folder.path / "plots").glob("*.png"))
    assert text.count('<section class="slide"') == len(figures) == 7
    assert text.index("emulates every instruction") < text.index("times as")
    for fill, ink, _ in style.REACH.values():
        assert contrast(style.PROJECTED[fill], ink) >= 4.5
    assert contrast(style.PROJECTED[style.QUIET], style.PAPER) >= 10


def contrast(first: str, second: str) -> float:
    """WCAG 2.2."""

    def luminance(colour: str) -> float:
        channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
