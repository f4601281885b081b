"""The terminal's table, the published figures, the look, and ``lab report``."""

from __future__ import annotations

import io
import re
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import typer
from rich.console import Console
from synthetic import keep_only, write_run
from typer.testing import CliRunner

from lab.analysis.quantities import QUANTITIES
from lab.backends.registry import available
from lab.cli.results.report import report
from lab.reports import style
from lab.reports.answers import classify
from lab.reports.figures.boot import _segments
from lab.reports.figures.factors import LINES
from lab.reports.material import Material, Value
from lab.reports.tables import sureness
from lab.results.store import RunFolder
from lab.studies.compare.report import terminal


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("results"))


def shown(run: RunFolder, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    terminal.show(run.path, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_fits_a_hundred_columns_and_cuts_nothing(run: RunFolder) -> None:
    text = shown(run, 100)
    assert max(map(len, text.splitlines())) <= 100
    for words in ("process", "own kernel, TCG", "PSS idle", "p99", "✗ 1 timed out", "80 × process", "not a score"):
        assert words in text, words


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_gets_fewer_columns_but_every_backend(run: RunFolder, width: int) -> None:
    text = shown(run, width)
    table = text.partition("reaches or shares")[0]
    assert "p99" not in table
    assert "…" not in table
    assert all(arm in table for arm in ("process", "container", "microvm", "vm"))


def test_p99_only_from_300_requests(run: RunFolder, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    file = folder.path / "samples.jsonl"
    file.write_text(file.read_text().replace('"requests":780', '"requests":299'))
    assert Material.read(run.path).enough_requests("microvm")
    assert not Material.read(folder.path).enough_requests("microvm")
    assert Material.read(folder.path).enough_requests("vm")


def test_segments_of_the_picture_add_up_to_about_the_total(run: RunFolder) -> None:
    material = Material.read(run.path)
    assert len(material.arms) > 1
    for arm in material.arms:
        total = material.value("boot.total", arm.label)
        assert total is not None
        assert sum(value for _, value in _segments(material, arm)) == pytest.approx(total.median, rel=0.05)


def test_p95_only_where_something_can_lie_beyond_it() -> None:
    few = Value(
        median=1.0, low=0.9, high=1.1, p95=1.4, unit="seconds", n=19, failed=1, timeout=0, resolution=0.002,
    )  # fmt: skip
    assert sureness(few).replace("\u00a0", " ") == "900 ms – 1.10 s · n = 19 · ±2.0 ms polling · ✗ 1 failed"
    assert "p95\u00a01.40\u00a0s" in sureness(replace(few, n=20))


@pytest.mark.parametrize(
    ("answer", "own_kernel", "reach"),
    [("yes", False, "open"), ("yes", True, "own"), ("no", False, "closed"), ("guest", True, "own"),
     ("no limit", True, "open"), ("effective", False, "closed"), ("42", False, "unknown")],
)  # fmt: skip
def test_the_class_of_a_bare_word(answer: str, own_kernel: bool, reach: str) -> None:
    assert classify(answer, own_kernel) == reach


def test_the_matrix_keeps_groups_together_and_leaves_the_twin_out(run: RunFolder) -> None:
    probes = Material.read(run.path).isolation
    groups = [probe.group for probe in probes]
    assert [group for index, group in enumerate(groups) if group not in groups[:index]] == sorted(
        set(groups), key=groups.index
    )
    assert all("container#aa" not in probe.cells for probe in probes)
    log = next(probe for probe in probes if probe.name == "kernel-log")
    assert log.cells["container"].unexpected
    assert not log.cells["vm"].unexpected


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_can_be_read() -> None:
    for _, ink, _ in (*style.BACKENDS.values(), style.OTHER):
        assert contrast(ink, style.PAPER) >= 4.5, ink
    for fill, ink, _ in style.REACH.values():
        assert contrast(fill, ink) >= 4.5, fill
    for fill, ink in style.PHASES.values():
        assert contrast(fill, ink) >= 4.5, fill


def test_charts_can_be_read_in_the_dark() -> None:
    sheet = files("lab.reports").joinpath("templates", "report.css").read_text()
    card = re.findall(r"--card: (#[0-9a-f]{6})", sheet)[1]  # the first is that of the light

    def seen(colour: str) -> str:
        return style.DARK.get(colour, colour)

    for fill, ink, _ in (*style.BACKENDS.values(), style.OTHER):
        assert contrast(seen(ink), card) >= 4.5, ink
        assert contrast(seen(fill), card) >= 3, fill
    for fill, ink, _ in style.REACH.values():
        assert contrast(seen(fill), seen(ink)) >= 4.5, fill
    for line in LINES:  # which are named in their colour
        assert contrast(seen(line), card) >= 4.5, line
    for fill, ink in style.PHASES.values():
        assert contrast(seen(fill), seen(ink)) >= 4.5, fill


def test_backends_differ_by_more_than_colour() -> None:
    markers = [marker for _, _, marker in (*style.BACKENDS.values(), style.OTHER)]
    assert len(markers) == len(set(markers))
    assert len({symbol for _, _, symbol in style.REACH.values()}) == len(style.REACH)


def test_phases_keep_their_order_in_greyscale() -> None:
    lightness = [luminance(fill) for fill, _ in style.PHASES.values()]
    assert lightness == sorted(lightness, reverse=True)


def test_published_figures_name_their_conditions_and_point_at_something_we_measure() -> None:
    figures = tomllib.loads(files("lab.reports").joinpath("published.toml").read_text())["figure"]
    backends = {kind.name for kind in available()}
    assert len(figures) >= 12
    for figure in figures:
        assert all(figure[key] for key in ("topic", "system", "says", "measures", "conditions", "source"))
        assert figure["basis"] in ("data", "paper", "promise", "page")
        if "beside" in figure:
            arms, quantity, _ = figure["beside"]
            assert backends.issuperset(arms.split("|"))
            assert quantity in QUANTITIES


def test_lab_report_finds_latest_writes_and_shows(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    keep_only(run, lambda raw: raw["quantity"] == "memory.pss")
    application = typer.Typer()
    application.command()(report)
    done = CliRunner().invoke(application, ["latest", "--format", "md", "--results", str(run.path.parent)])
    assert done.exit_code == 0, done.output
    assert "report.md" in done.output
    assert "own kernel, TCG" in done.output
    assert (run.path / "report.md").is_file()


def test_a_run_is_read_once_for_what_is_written_and_shown_and_anew_when_it_grew(tmp_path: Path) -> None:
    folder = write_run(tmp_path, blocks=2)
    before = Material.read(folder.path)
    assert Material.read(folder.path) is before
    samples = folder.path / "samples.jsonl"
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-1]))
    after = Material.read(folder.path)
    assert len(after.loaded.frame) == len(before.loaded.frame) - 1
