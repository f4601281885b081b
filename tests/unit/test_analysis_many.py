"""Many runs at once: the same figures as run by run, in a bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from crowd import SAMPLES_PER_RUN, write_crowd
from synthetic import write_run
from typer.testing import CliRunner

from lab.analysis.loaded import load
from lab.analysis.many import folders, load_many, trend
from lab.analysis.readiness import until
from lab.cli.results.results import app
from lab.errors import LabError, ResultsError
from lab.results.store import PARQUET, SAMPLES

RUNS, BY_NIGHT = 1_000, 10_000
MOST_MEMORY = 1 << 30

TREND = """
import json, resource, sys, time
from pathlib import Path
began = time.process_time()
from lab.analysis.many import folders, load_many, trend
from lab.reports.trend import write_trend
imported = time.process_time() - began
root, out = Path(sys.argv[1]), Path(sys.argv[2])
table = trend(folders(root), "boot.total")
write_trend(table, "boot.total", out)
used = time.process_time() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
said = {"cpu_seconds": used, "importing_seconds": imported, "peak_bytes": peak}
print(json.dumps(said | {"rows": len(table), "runs": int(table["run"].nunique())}))
"""


def test_it_is_what_the_runs_say_one_by_one(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, blocks=blocks, seed=blocks).path for blocks in (3, 5)]
    frame = load_many(folders(tmp_path))
    for path in runs:
        mine, alone = frame[frame["run"] == path.name], load(path).frame
        assert len(mine) == len(alone)
        assert mine["value"].to_numpy() == pytest.approx(alone["value"].to_numpy(), nan_ok=True)
        assert mine["arm"].tolist() == alone["arm"].tolist()
    for row in trend(runs, "boot.total").to_dict("records"):
        alone = load(next(path for path in runs if path.name == row["run"])).measured
        chosen = alone[(alone["quantity"] == "boot.total") & (alone["arm"] == row["arm"])]["value"]
        assert row["n"] == chosen.count()
        assert row["failed"] == chosen.isna().sum()
        assert row["median"] == pytest.approx(chosen.median())
        assert row["p95"] == pytest.approx(np.nanquantile(chosen, 0.95))


def test_a_run_without_columns_is_read_from_its_lines(tmp_path: Path) -> None:
    path = write_run(tmp_path, blocks=3).path
    with_columns = trend([path], "memory.pss")
    (path / PARQUET).unlink()
    pd.testing.assert_frame_equal(trend([path], "memory.pss"), with_columns)


def test_columns_older_than_the_lines_are_not_believed(tmp_path: Path) -> None:
    path = write_run(tmp_path, blocks=3).path
    lines = (path / SAMPLES).read_text().splitlines(keepends=True)
    (path / SAMPLES).write_text("".join(line for line in lines if '"arm":"vm"' not in line))
    os.utime(path / PARQUET, (0, 0))
    assert set(trend([path], "boot.total")["arm"]) == {"process", "container", "container#aa", "microvm"}


def test_a_broken_run_is_named_or_passed_over(tmp_path: Path) -> None:
    good, bad = (write_run(tmp_path, blocks=2, seed=seed).path for seed in (1, 2))
    (bad / PARQUET).write_bytes(b"PAR1 nonsense")
    with pytest.raises(ResultsError, match="can't be read") as caught:
        load_many([good, bad])
    assert "--format parquet" in caught.value.hint
    heard: list[LabError] = []
    assert set(load_many([good, bad], skipped=heard.append)["run"]) == {good.name}
    assert len(heard) == 1


def test_the_command_draws_and_writes(tmp_path: Path) -> None:
    write_crowd(tmp_path / "results", 20, tmp_path / "scratch")
    words = ["trend", "boot.total", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    written = [Path(line) for line in done.stdout.splitlines()]
    assert [path.suffix for path in written] == [".csv", ".png", ".svg"]
    table = pd.read_csv(written[0])
    assert table["run"].nunique() == 20
    boots = table[table["arm"] == "vm"]["median"]
    assert boots[-5:].mean() > boots[:5].mean(), "they were made 1 % slower from file to file"
    with pytest.raises(ResultsError, match="no run has an observation"):
        CliRunner().invoke(app, ["trend", "boot.none", *words[2:]], catch_exceptions=False)


def test_runs_that_waited_for_different_things_are_not_one_line(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "results", blocks=2, seed=seed) for seed in (1, 2)]
    folders[1].update(settings={**folders[1].run.settings, "until": "port open"})
    words = ["trend", "boot.total", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    words.append("--json=-")
    rows = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert {row["run"]: row["until"] for row in rows} == {
        folders[0].path.name: str(until(folders[0].run)),
        folders[1].path.name: "port open",
    }
    drawn = (tmp_path / "out" / "trend-boot.total.svg").read_text()
    for waited in ("port open", str(until(folders[0].run))):
        assert drawn.count(f"container, until {waited}") == 1


@pytest.mark.parametrize("count", [RUNS, pytest.param(BY_NIGHT, marks=pytest.mark.nightly)])
def test_a_million_samples_in_ten_thousand_runs(tmp_path: Path, count: int) -> None:
    """In processor time per run beside that of a plain reading of a hundred of them; in memory below 1 GiB. By day
    a tenth of that, of which importing would be the larger part, and is left out.
    """
    runs = write_crowd(tmp_path / "results", count, tmp_path / "scratch")
    few = runs[:: count // 100]
    began = time.process_time()
    plain = pd.concat([pd.read_parquet(path / PARQUET).assign(run=path.name) for path in few])
    each = (time.process_time() - began) / len(few)
    assert len(plain) == len(few) * SAMPLES_PER_RUN
    done = subprocess.run(
        [sys.executable, "-c", TREND, tmp_path / "results", tmp_path / "out"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["runs"] == count
    assert said["peak_bytes"] < MOST_MEMORY
    used = said["cpu_seconds"] - (said["importing_seconds"] if count == RUNS else 0.0)
    assert used < each * count, "summarising and drawing included"
