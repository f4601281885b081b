"""What a report says of factors: in words, figures, tables and data; and that all else shows the first levels."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from factorial import write_factorial

from lab.reports import exports, factors
from lab.reports.drawing import composed, looks_of
from lab.reports.figures import factors as figures
from lab.reports.material import Material
from lab.studies.compare.report.document import html, markdown
from lab.studies.compare.report.terminal import show


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.read(write_factorial(tmp_path_factory.mktemp("factorial")).path)


def test_the_words_say_what_matters_how_much_and_what_depends_on_what(material: Material) -> None:
    said = [each.sentence for each in factors.statements(material)]
    assert "cpus 1 instead of 0.5: time until first correct answer of container 0.598 ×" in said[1]
    assert "the same within 5 %, proven: PSS (idle) of microvm" in said[2]
    assert said[2].startswith("firmware seabios instead of direct")
    (together,) = [
        each for each in said if "cpus and firmware interact on microvm, time until first correct answer" in each
    ]
    assert "1.00 × with firmware=direct, 0.670 × with firmware=ovmf" in together
    (apart,) = [each for each in said if "memory does not do the same to microvm and container" in each]
    assert "1.02 × for container, 1.29 × for microvm" in apart
    assert said[-1].startswith("No other interaction can be claimed")


def test_the_tables_hold_every_effect_and_what_it_depends_on(material: Material) -> None:
    table = factors.effects(material)
    assert [column.text for column in table.columns] == ["container", "microvm"]
    rows = {(row.header, row.note): row.cells for row in table.rows}
    assert rows["firmware: ovmf ÷ direct", "time until first correct answer"][0].text == "–"  # nothing to a container
    assert rows["firmware: ovmf ÷ direct", "time until first correct answer"][1].note.endswith(
        "an effect · depends on cpus"
    )
    assert "depends" not in rows["firmware: seabios ÷ direct", "time until first correct answer"][1].note
    assert len(rows) == 3 * 5  # boot, teardown, PSS by four levels that are no first ones, and firmware's together
    assert rows["firmware: all levels", "PSS (idle)"][1].text.startswith("up to 1.0")
    assert "they differ" not in rows["firmware: all levels", "PSS (idle)"][1].note
    assert "instances failed" in rows["firmware: all levels", "time until first correct answer"][1].note  # in block 2
    assert [row.header for row in factors.interactions(material).rows] == [
        "memory=256M × backend=microvm",
        "cpus=1 × firmware=ovmf",
    ]


def test_the_figures_draw_every_effect_and_the_lines_that_are_not_parallel(material: Material) -> None:
    chart = figures.main_effects(material)
    assert len(chart.panels) == 2 * 3
    assert "firmware=ovmf on time until first correct answer of microvm: 2.46 ×." in chart.alt
    assert "memory=256M on time until first correct answer of container: 1.01 × (not claimed)." in chart.alt
    crossing = figures.interactions(material)
    (panel,) = crossing.panels
    assert [len(row["points"]) for row in panel.rows] == [3, 3]
    assert "cpus=0.5 with firmware=ovmf 3.98 s" in crossing.alt
    for each in (chart, crossing):
        with composed(each, looks_of(material.loaded.all_arms)) as picture:
            assert len(picture.axes) == len(each.panels)


def test_the_figures_data_are_what_they_show(material: Material) -> None:
    effects = list(csv.DictReader(io.StringIO(figures.effects_data(material))))
    assert len(effects) == len(material.effects)
    means = list(csv.DictReader(io.StringIO(figures.interactions_data(material))))
    assert {(row["level"], row["other_level"]) for row in means} == {
        (level, other) for level in ("0.5", "1") for other in ("direct", "seabios", "ovmf")
    }


class Headings(HTMLParser):
    """Collects the ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]


def test_both_documents_have_the_section_and_say_that_the_rest_is_at_the_first_levels(material: Material) -> None:
    page, text = html(material, []), markdown(material, [])
    headings = Headings()
    headings.feed(page)
    assert "factors" in headings.ids
    for document in (page, text):
        assert "Shown at the first level of each factor (memory=64M, cpus=0.5, firmware=direct)" in document
        assert "cpus and firmware interact on microvm" in document
        assert "Main effects" in document or "factor, and what it acts on" in document
        assert "That a level is the best there is." in document
        assert "full factorial: 16 arms" in document


def test_the_section_says_what_a_backend_was_left_out_of(material: Material, tmp_path: Path) -> None:
    whole = factors.section(material)
    assert whole is not None
    assert "Left out" not in whole.intro
    folder = write_factorial(tmp_path, blocks=1).path
    run = json.loads((folder / "run.json").read_text())
    run["arms"] = [
        arm for arm in run["arms"] if arm["backend"] == "container" or arm["factors"]["memory"] == "64M"
    ]  # as if 256M were too much for a machine
    (folder / "run.json").write_text(json.dumps(run))
    samples, kept = folder / "samples.jsonl", {arm["label"] for arm in run["arms"]}
    lines = [line for line in samples.read_text().splitlines(keepends=True) if json.loads(line)["arm"] in kept]
    samples.write_text("".join(lines))
    said = factors.section(Material.read(folder))
    assert said is not None
    assert "Left out is what can't be started: 6 combinations of levels." in said.intro
    varied = dict(said.varied)
    assert varied["memory"] == "64M, 256M (microvm: 64M alone): what memory does"
    assert varied["firmware"].startswith("direct, seabios, ovmf (container: not touched by it): ")


def test_other_tables_show_an_arm_per_backend(material: Material) -> None:
    assert [arm.label for arm in material.arms] == ["container", "microvm"]
    assert set(material.ratios["arm"]) == {"microvm", "container#aa"}
    assert len(material.loaded.arms) == 16


def test_other_programs_get_the_effects_too(material: Material, tmp_path: Path) -> None:
    found = json.loads(json.dumps(exports.document(material)))
    jsonschema.validate(found, exports.schema())
    assert len(found["effects"]) == len(material.effects)
    assert found["arms"][-1]["factors"] == {"memory": "256M", "cpus": "1", "firmware": "ovmf"}
    assert "effects.csv" in [path.name for path in exports.csv(material, tmp_path)]


def test_the_terminal_says_it_too(material: Material, capsys: pytest.CaptureFixture[str]) -> None:
    show(material.loaded.path)
    told = " ".join(capsys.readouterr().out.split())
    assert "cpus and firmware interact on microvm" in told
    assert "above: memory=64M, cpus=0.5, firmware=direct" in told


def test_without_factors_there_is_no_section(tmp_path: Path) -> None:
    from synthetic import write_run

    plain = Material.read(write_run(tmp_path, blocks=3).path)
    assert factors.section(plain) is None
    assert 'id="factors"' not in html(plain, [])
    assert "first level" not in markdown(plain, [])
