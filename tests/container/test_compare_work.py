"""``lab compare`` with a scenario's own client beside the instance, and a job inside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparing import compare, make_scenario, only_run

from lab.analysis import load
from lab.results.store import RunFolder

pytestmark = pytest.mark.usefixtures("same_host")

QUICK = ("--on", "process,container", "--metrics", "boot,work", "--idle", "0.1s", "--blocks", "1", "--seed", "7")
CLIENT = """
[work]
beside = "sh -c 'wget -q -O - http://{address}:{port}/index.html; echo; echo read 7'"
expect = "^hello"
[[work.figures]]
name = "pages"
label = "pages read"
unit = "pages"
pattern = 'read ([0-9]+)'
better = "more"
"""
JOB = """
[work]
inside = "sh -c 'sleep 0.3; echo slept 300; exit {code}'"
[[work.figures]]
name = "slept"
unit = "seconds"
scale = 0.001
pattern = 'slept ([0-9]+)'
"""


def scenario(folder: Path, work: str) -> Path:
    made = make_scenario(folder / "page")
    settings = made / "scenario.toml"
    settings.write_text(settings.read_text().partition("[load]")[0] + work)
    return made


def test_a_client_beside_reads_from_every_backend(tmp_path: Path) -> None:
    done = compare(scenario(tmp_path, CLIENT), *QUICK, "--out", tmp_path / "results", pictures=False)
    assert done.returncode == 0, done.stderr
    frame = load(only_run(tmp_path / "results")).measured.set_index(["arm", "quantity"])["value"]
    for arm in ("process", "container"):
        assert frame[arm, "work.pages"] == 7
        assert 0 < frame[arm, "work.seconds"] < 30
        assert frame[arm, "work.cpu"] >= 0
    assert "pages read" in done.stdout
    report = (only_run(tmp_path / "results") / "report.html").read_text()
    assert "pages read" in report
    assert "wget" in report  # the command is part of how it was measured


def test_a_job_inside_is_timed_by_the_host(tmp_path: Path) -> None:
    words = (*QUICK, "--on", "container")
    done = compare(
        scenario(tmp_path, JOB.replace("{code}", "0")), *words, "--out", tmp_path / "results", pictures=False
    )
    assert done.returncode == 0, done.stderr
    frame = load(only_run(tmp_path / "results")).measured.set_index(["arm", "quantity"])["value"]
    assert frame["container", "work.slept"] == pytest.approx(0.3)
    assert 0.3 <= frame["container", "work.seconds"] < 30


@pytest.mark.nightly
def test_a_job_that_fails_is_a_failed_sample_and_no_fast_one(tmp_path: Path) -> None:
    words = (*QUICK, "--on", "container")
    done = compare(
        scenario(tmp_path, JOB.replace("{code}", "3")), *words, "--out", tmp_path / "results", pictures=False
    )
    assert done.returncode == 0, done.stderr
    loaded = load(only_run(tmp_path / "results"))
    work = loaded.frame[loaded.frame["metric"] == "work"]
    assert len(work) == 2 * 3, "three quantities of the copy and its twin"
    assert set(work["status"]) == {"failed"}
    assert work["value"].isna().all()
    assert "exit code 3" in work["text"].iloc[0]


def test_a_folder_with_nothing_but_a_dockerfile_is_taken_as_it_stands(tmp_path: Path) -> None:
    made = make_scenario(tmp_path / "page")
    (made / "scenario.toml").unlink()
    with (made / "Dockerfile").open("a") as file:
        # only what the check itself does makes the instance ready: it fails the first time
        file.write("HEALTHCHECK CMD test -e /checked || { echo > /checked; exit 1; }\n")
    options = ("--on", "container", "--metrics", "boot,work", "--idle", "0.1s", "--blocks", "1")
    done = compare(made, *options, "--out", tmp_path / "results", pictures=False)
    assert done.returncode == 0, done.stderr
    settings = RunFolder.open(only_run(tmp_path / "results")).run.settings
    assert settings["port"] == 8000
    assert settings["readiness"]["kind"] == "HealthReadiness"
    frame = load(only_run(tmp_path / "results")).measured
    boots = frame[frame["quantity"] == "boot.responded"]["value"]
    assert len(boots) > 0
    assert boots.min() > 0.02  # two tries, 20 ms apart
