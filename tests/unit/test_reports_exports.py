"""What other programs read of a run: CSV, Parquet, JSON by its schema, and a figure's own data."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
from synthetic import leave_pictures_empty, write_run

from lab.errors import ResultsError
from lab.reports.export import formats
from lab.reports.material import Material
from lab.results.store import RunFolder
from lab.studies.compare.report.writer import write

SCHEMA = json.loads(Path(formats.__file__).with_name("report.schema.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_pictures_empty(monkeypatch)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def material(run: RunFolder) -> Material:
    return Material.read(run.path)


def test_the_json_is_what_its_schema_says(material: Material, tmp_path: Path) -> None:
    (path,) = formats.report_json(material, tmp_path)
    found = json.loads(path.read_text(), parse_constant=pytest.fail)  # no NaN: that is no JSON
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(found, SCHEMA)
    row = next(row for row in found["summary"] if (row["quantity"], row["arm"]) == ("boot.total", "vm"))
    value = material.value("boot.total", "vm")
    assert value is not None
    assert (row["median"], row["n"], row["timeout"]) == (value.median, value.n, value.timeout)
    assert {each["arm"] for each in found["answers"]} == {"process", "container", "microvm", "vm"}


def test_a_json_that_lies_is_refused_by_the_schema(material: Material) -> None:
    for change in ({"schema": 1}, {"blocks": -1}, {"arms": "all"}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(formats.document(material) | change, SCHEMA)


def test_csv_holds_every_observation(material: Material, tmp_path: Path) -> None:
    samples, summary, ratios = (pd.read_csv(path) for path in formats.csv(material, tmp_path))
    assert len(samples) == len(material.loaded.frame)
    assert summary["median"].sum() == pytest.approx(material.summary["median"].sum())
    assert int(ratios["claim"].sum()) == int(material.ratios["claim"].sum())


def test_parquet_is_written_for_a_run_that_was_interrupted(
    run: RunFolder, material: Material, tmp_path: Path
) -> None:
    for name in ("run.json", "samples.jsonl", "progress.jsonl"):
        shutil.copy(run.path / name, tmp_path / name)
    (path,) = formats.parquet(material, tmp_path)
    assert len(pd.read_parquet(path)) == len(material.loaded.frame)


def test_every_figure_has_its_data_one_click_away(run: RunFolder, material: Material) -> None:
    write(run.path, ["html"])
    page = (run.path / "report.html").read_text()
    links = dict(re.findall(r'download="([\w-]+)\.csv" href="data:text/csv;base64,([^"]+)"', page))
    assert len(links) == page.count("<figure ")
    shown = pd.read_csv(io.BytesIO(base64.b64decode(links["boot-phases"])))
    assert set(shown["quantity"].str.partition(".")[0]) == {"boot"}
    assert len(shown) == int((material.loaded.measured["metric"] == "boot").sum())
    assert (run.path / "plots/boot-phases.csv").read_bytes() == base64.b64decode(links["boot-phases"])


def test_a_pdf_needs_a_browser(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ResultsError, match="none is installed") as caught:
        formats.pdf(material, tmp_path)
    assert "chromium" in caught.value.hint


def test_a_pdf_is_printed_where_there_is_one(run: RunFolder) -> None:
    if not any(shutil.which(name) for name in formats.BROWSERS):
        pytest.skip("no browser is installed")
    written = write(run.path, ["pdf"])
    (path,) = (path for path in written if path.suffix == ".pdf")
    data = path.read_bytes()
    assert data.startswith(b"%PDF-")
    assert len(data) > 50_000
