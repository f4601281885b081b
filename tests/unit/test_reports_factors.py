"""What a report says of factors: in words, figures, tables and data; and that all else shows the first levels."""

from __future__ import annotations

import csv
import io
import json
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from factorial import write_factorial
from told import tells

from lab.reports.drawing import composed, looks_of
from lab.reports.export import formats
from lab.reports.figures import factors as figures
from lab.reports.material import Material
from lab.reports.words import factors
from lab.studies.compare.report.document import html, markdown
from lab.studies.compare.report.terminal import show


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.read(write_factorial(tmp_path_factory.mktemp("factorial")).path)


def test_the_words_say_what_matters_how_much_and_what_depends_on_what(material: Material) -> None:
    said = [each.sentence for each in factors.statements(material)]
    assert tells(said[1], "cpus", "1", "0.5", "container", "0.598 ×")
    assert tells(said[2], "firmware", "seabios", "direct")
    assert tells(said[2], "5 %", "PSS (idle)", "microvm")
    both = ("cpus", "firmware", "microvm", "1.00 ×", "firmware=direct", "0.670 ×", "firmware=ovmf")
    apart = ("memory", "microvm", "container", "1.02 ×", "container", "1.29 ×", "microvm")
    assert [sum(tells(each, *facts) for each in said) for facts in (both, apart)] == [1, 1]


def test_the_tables_hold_every_effect_and_what_it_depends_on(material: Material) -> None:
    table = factors.effects(material)
    assert [column.text for column in table.columns] == ["container", "microvm"]
    rows = {(row.header, row.note): row.cells for row in table.rows}
    boot = material.label("boot.total")
    assert rows["firmware: ovmf ÷ direct", boot][0].text == "–"  # nothing to a container
    assert tells(rows["firmware: ovmf ÷ direct", boot][1].note, "cpus"), "what it depends on"
    assert not tells(rows["firmware: seabios ÷ direct", boot][1].note, "cpus")
    assert len(rows) == 3 * 5  # boot, teardown, PSS by four levels that are no first ones, and firmware's together
    assert rows["firmware: all levels", "PSS (idle)"][1].text.startswith("up to 1.0")
    assert rows["firmware: all levels", boot][1].note != rows["firmware: all levels", "PSS (idle)"][1].note
    assert "failed" in rows["firmware: all levels", boot][1].note  # in block 2
    assert [row.header for row in factors.interactions(material).rows] == [
        "memory=256M × backend=microvm",
        "cpus=1 × firmware=ovmf",
    ]


def test_the_figures_draw_every_effect_and_the_lines_that_are_not_parallel(material: Material) -> None:
    chart = figures.main_effects(material)
    assert len(chart.panels) == 2 * 3
    assert tells(chart.alt, "firmware=ovmf", "microvm", "2.46 ×")
    assert tells(chart.alt, "memory=256M", "container", "1.01 ×")
    crossing = figures.interactions(material)
    (panel,) = crossing.panels
    assert [len(row["points"]) for row in panel.rows] == [3, 3]
    assert tells(crossing.alt, "cpus=0.5", "firmware=ovmf", "3.98 s")
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
        assert tells(document, "memory=64M", "cpus=0.5", "firmware=direct")
        assert all(each.sentence.partition(":")[0] in unescape(document) for each in factors.statements(material))
        assert tells(document, "full factorial", "16")


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
    assert tells(varied["firmware"], "direct", "seabios", "ovmf", "container")


def test_other_tables_show_an_arm_per_backend(material: Material) -> None:
    assert [arm.label for arm in material.arms] == ["container", "microvm"]
    assert set(material.ratios["arm"]) == {"microvm", "container#aa"}
    assert len(material.loaded.arms) == 16


def test_other_programs_get_the_effects_too(material: Material, tmp_path: Path) -> None:
    found = json.loads(json.dumps(formats.document(material)))
    schema = Path(formats.__file__).with_name("report.schema.json")
    jsonschema.validate(found, json.loads(schema.read_text("utf-8")))
    assert len(found["effects"]) == len(material.effects)
    assert found["arms"][-1]["factors"] == {"memory": "256M", "cpus": "1", "firmware": "ovmf"}
    assert "effects.csv" in [path.name for path in formats.csv(material, tmp_path)]


def test_the_terminal_says_it_too(material: Material, capsys: pytest.CaptureFixture[str]) -> None:
    show(material.loaded.path)
    told = " ".join(capsys.readouterr().out.split())
    assert tells(told, "cpus", "firmware", "microvm")
    assert tells(told, "memory=64M", "cpus=0.5", "firmware=direct")


def test_without_factors_there_is_no_section(tmp_path: Path) -> None:
    from synthetic import write_run

    plain = Material.read(write_run(tmp_path, blocks=3).path)
    assert factors.section(plain) is None
    assert 'id="factors"' not in html(plain, [])
    assert "first level" not in markdown(plain, [])
