"""The verdict on two runs for a pull request: what is named, how it is counted, and what a build ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import write_run
from typer.testing import CliRunner

from lab.analysis.quantities import preferred
from lab.cli.app import app
from lab.errors import UsageError
from lab.results.record import Sample

REGRESSION = 3


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``before``; ``slower`` and ``faster``, whose container boots otherwise; ``again``, the same application."""
    root = tmp_path_factory.mktemp("results")
    for number, (name, factor) in enumerate((("before", 1.0), ("again", 1.0), ("slower", 1.5), ("faster", 0.5))):
        made = write_run(root / "made", blocks=8, seed=11 + number, bad_luck=False).path
        lines = [_scaled(json.loads(line), factor) for line in (made / "samples.jsonl").read_text().splitlines()]
        (made / "samples.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
        made.rename(root / name)
    return root


def _scaled(sample: dict[str, object], factor: float) -> dict[str, object]:
    value = sample["value"]
    if sample["quantity"] == "boot.total" and str(sample["arm"]).startswith("container") and isinstance(value, float):
        sample["value"] = value * factor
    return sample


def diff(results: Path, after: str, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["diff", "before", after, "--results", str(results), *words])
    return done.exit_code, done.output


def test_a_regression_is_named_and_ends_a_build(results: Path) -> None:
    code, text = diff(results, "slower", "--markdown", "-", "--fail-if", "worse")
    assert code == REGRESSION
    (line,) = [line for line in text.splitlines() if line.startswith("- **worse**: container:")]
    assert " → " in line
    assert 1.3 < float(line.split(", ")[-1].split(" ×")[0]) < 1.7
    assert len(text.splitlines()) <= 12


def test_what_got_better_is_a_change_and_no_regression(results: Path) -> None:
    assert diff(results, "faster", "--markdown", "-", "--fail-if", "worse")[0] == 0
    code, text = diff(results, "faster", "--markdown", "-", "--fail-if", "changed")
    assert (code, "- **better**: container:" in text) == (REGRESSION, True)
    assert diff(results, "faster", "--markdown", "-")[0] == 0, "nobody asked for an end"


def test_without_a_change_no_build_ends_and_what_is_the_same_is_told_apart(results: Path) -> None:
    code, text = diff(results, "again", "--markdown", "-", "--fail-if", "changed")
    assert (code, "none is proven" in text, "**" in text.split("\n", 1)[1]) == (0, True, False)
    assert "the same within" in text
    assert "no proof of no change" in text


def test_a_table_is_printed_where_no_file_is_asked_for(results: Path, tmp_path: Path) -> None:
    assert diff(results, "slower", "--fail-if", "worse")[0] == REGRESSION
    files = f"--markdown={tmp_path / 'verdict.md'}", f"--json={tmp_path / 'all.json'}"
    code, _ = diff(results, "slower", *files)
    assert code == 0
    assert (tmp_path / "verdict.md").read_text().startswith("**")
    assert json.loads((tmp_path / "all.json").read_text())["rows"]


def test_names_are_text(results: Path, tmp_path: Path) -> None:
    (tmp_path / "before").symlink_to(results / "before")
    write_run(tmp_path, blocks=8, seed=12).path.rename(tmp_path / "other")
    document = json.loads((tmp_path / "other/run.json").read_text())
    document["name"] = "<script>|*\n# head"
    (tmp_path / "other/run.json").write_text(json.dumps(document))
    _, text = diff(tmp_path, "other", "--markdown", "-")
    assert "<script>" not in text
    assert "\n#" not in text


def test_what_is_no_condition_is_refused(results: Path) -> None:
    with pytest.raises(UsageError):
        CliRunner().invoke(app, ["diff", "before", "again", "--fail-if", "slow"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("unit", "direction"),
    [("seconds", -1), ("bytes", -1), ("seconds/s", -1), ("requests/s", 1), ("hertz", 1), ("1", 0), ("answer", 0)],
)
def test_less_time_and_memory_is_better_and_more_of_a_rate(unit: str, direction: int) -> None:
    assert preferred(unit) == direction
    assert unit in str(Sample.__doc__) or unit == "seconds/s"
