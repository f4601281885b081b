"""A run of schema 1, measured by an earlier lab: read, compared, refused as it should be, and never changed."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import write_run

import lab
from lab.analysis.findings import Kind
from lab.analysis.loaded import Loaded
from lab.analysis.many import load_many, trend
from lab.analysis.questions.difference import difference
from lab.analysis.questions.query import query
from lab.errors import ResultsError
from lab.results.merge import merge
from lab.results.record import SCHEMA
from lab.results.store import RunFolder

OLD = Path(__file__).parents[1] / "golden" / "run-of-schema-1.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD) as archive:
        archive.extractall(folder)
    return folder / "sample"


@pytest.fixture(scope="module")
def loaded(old: Path) -> Loaded:
    found = lab.load(str(old))
    assert isinstance(found, Loaded)
    return found


def test_it_still_says_who_wrote_it_and_its_twin_is_flagged(loaded: Loaded) -> None:
    assert loaded.run.schema == 1 != SCHEMA
    assert not loaded.twin_alike
    kinds = [finding.kind for finding in loaded.findings()]
    assert Kind.NO_TWIN in kinds
    assert Kind.TWIN not in kinds


def test_a_twin_that_did_not_idle_is_no_second_observation(loaded: Loaded) -> None:
    table = loaded.ratios()
    assert set(table.loc[table["arm"] == "container#aa", "quantity"].str.partition(".")[0]) == {"boot", "cpu"}
    boots = loaded.measured[loaded.measured["quantity"] == "boot.total"]
    wide = boots.pivot_table(index="block", columns="arm", values="value")
    expected = float((wide["container"] / wide["process"]).prod() ** (1 / len(wide)))
    row = table[(table["quantity"] == "boot.total") & (table["arm"] == "container")].iloc[0]
    assert row["ratio"] == pytest.approx(expected)
    new = replace(loaded, run=replace(loaded.run, settings={**loaded.run.settings, "twin": ""}))
    pooled = new.ratios()
    assert pooled[(pooled["quantity"] == "boot.total") & (pooled["arm"] == "container")].iloc[0][
        "ratio"
    ] != pytest.approx(expected)


def test_it_is_compared_with_a_new_one_and_drawn_beside_it(old: Path, loaded: Loaded, tmp_path: Path) -> None:
    new = write_run(tmp_path, blocks=3)
    found = difference(loaded, lab.load(str(new.path)), across_hosts=True)
    assert {"boot.total", "memory.pss"} <= set(found.table["quantity"])
    table = trend([old, new.path], "boot.total")
    assert set(table["run"]) == {"sample", new.path.name}


def test_a_computation_with_the_way_in_is_another_quantity_whoever_reads_it(old: Path, loaded: Loaded) -> None:
    """The frame, the columns of many runs, a query."""
    written = [json.loads(line) for line in (old / "samples.jsonl").read_text().splitlines()]
    expected = sorted(row["value"] for row in written if row["quantity"] == "cpu.compute")
    assert len(expected) > 3
    frame, many = loaded.frame, load_many([old])
    for name, values in (("cpu.compute", []), ("cpu.compute.asked", expected)):
        assert sorted(frame[frame["quantity"] == name]["value"]) == values
        assert sorted(many[many["quantity"] == name]["value"]) == values
        asked = query([old], f"select value from samples where quantity = '{name}'")
        assert sorted(value for (value,) in asked.rows) == values


def test_it_is_not_merged_with_a_new_one(old: Path, tmp_path: Path) -> None:
    first, second = RunFolder.open(old), RunFolder.open(old)
    second.path = tmp_path / "another"
    second.run = replace(second.run, schema=SCHEMA)
    with pytest.raises(ResultsError, match="differ in the schema"):
        merge([first, second], tmp_path / "out")


def test_it_is_not_gone_on_with(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.host.survey import facts
    from lab.studies.compare.command import _resume

    folder = RunFolder.open(old)
    monkeypatch.setattr(facts, "provenance", lambda: {"identity": folder.run.host["identity"]})
    monkeypatch.setattr(RunFolder, "open", lambda _: replace_run(folder))
    with pytest.raises(ResultsError, match="earlier lab"):
        _resume(None, str(old), old.parent, [], False, "")  # type: ignore[arg-type]


def replace_run(folder: RunFolder) -> RunFolder:
    """As it would be had it been interrupted."""
    folder.run = replace(folder.run, ended_because="interrupted")
    return folder
