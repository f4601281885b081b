"""Folders about which nobody says anything: what is measured of each, and that the report says no more than that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import preloaded
import pytest
from applications import make, make_introduction
from comparing import compare, only_run
from told import tells

from lab.analysis import Loaded, load
from lab.model import Milestone
from lab.results.record import Status

pytestmark = pytest.mark.usefixtures("same_host")

QUICK = ("--on", "container", "--blocks", "1", "--idle", "0.2")
ANSWERED = re.compile(r"first (correct )?(answer|response)")


def measured(folder: Path, results: Path, *words: str, code: int = 0) -> tuple[Loaded, str, str]:
    """The run, what was said before it started, and the whole report as text."""
    done = compare(folder, *QUICK, *words, "--out", results, pictures=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    run = only_run(results)
    assert (run / "report.html").stat().st_size > 1000
    return load(run), done.stderr, (run / "report.md").read_text() + done.stdout


def test_the_introduction_of_every_introduction(tmp_path: Path) -> None:
    """FROM python, pip install, no EXPOSE: its port is found, asked, and put under load."""
    loaded, said, report = measured(make_introduction(tmp_path), tmp_path / "runs", "--metrics", "boot,load")
    assert tells(said, "5000", "GET /", "200")
    settings = loaded.run.settings
    assert (settings["port"], settings["until"]) == (5000, Milestone.ANSWER)
    quantities = set(loaded.measured["quantity"])
    assert {"boot.listening", "boot.responded", "load.requests_per_second"} <= quantities
    assert (loaded.measured["status"] == Status.OK).all(), "its answers have no length, and end with their connection"
    assert "time until first answer" in report
    assert "first correct answer" not in report
    assert tells(report, "port 5000")


def test_a_port_is_found_wherever_and_whenever_it_opens(tmp_path: Path) -> None:
    """After two seconds, in which nobody listens, and for IPv6 and IPv4 at once."""
    words = ("--ready", "http:/index.html", "--metrics", "boot,load")
    loaded, said, _ = measured(make(tmp_path, "slow"), tmp_path / "runs", *words)
    assert tells(said, "8000", "GET /index.html", "200")
    assert loaded.run.settings["load"]["path"] == "/index.html"
    boots = loaded.measured[loaded.measured["quantity"] == "boot.total"]["value"]
    assert (boots > 2).all()


def test_an_application_that_crashes_has_no_boot_time(tmp_path: Path) -> None:
    loaded, said, report = measured(make(tmp_path, "crash"), tmp_path / "runs", code=1)
    (failed,) = loaded.frame[(loaded.frame["arm"] != "") & (loaded.frame["status"] != Status.OK)].to_dict("records")
    assert failed["quantity"] == "boot.total"
    assert failed["detail"]["exit_code"] == 3
    assert "flask" in failed["detail"]["tail"]
    values = loaded.frame[(loaded.frame["arm"] != "") & loaded.frame["value"].notna()]
    assert set(values["metric"]) <= {"caches"}, "nothing that was seen of it counts"
    for told in (said, report):
        assert tells(told, "3", "No module named flask")
    assert report.index("Nothing was measured") < report.index("## What")
    assert not ANSWERED.search(report)


def test_of_an_application_that_dies_for_want_of_memory_that_is_told(tmp_path: Path) -> None:
    """Whatever it was killed by, its exit code would be the same."""
    folder = make(tmp_path, "crash")
    recipe = folder / "Dockerfile"
    recipe.write_text(re.sub(r"(?m)^CMD.*$", 'CMD ["sh", "-c", "exec tail /dev/zero"]', recipe.read_text()))
    (folder / "scenario.toml").write_text('title = "Takes all memory"\n[limits]\nmemory = "32M"\n')
    loaded, said, report = measured(folder, tmp_path / "runs", "--metrics", "boot", code=1)
    (failed,) = loaded.frame[(loaded.frame["arm"] != "") & (loaded.frame["status"] != Status.OK)].to_dict("records")
    assert failed["detail"]["exit_code"] == 137
    for told in (failed["text"], said, report):
        assert tells(told, "137", "1 of its processes for memory")


def test_a_batch_job_is_measured_until_it_is_done(tmp_path: Path) -> None:
    loaded, said, report = measured(make(tmp_path, "batch"), tmp_path / "runs")
    assert "a batch job" in said
    assert loaded.run.settings["until"] == Milestone.DONE
    whole, part = (
        loaded.measured[loaded.measured["quantity"] == name]["value"] for name in ("job.total", "job.seconds")
    )
    assert len(whole) == len(part) == 2  # the twin's too
    assert (whole >= 1).all()
    assert (part.to_numpy() < whole.to_numpy()).all()
    assert (part > 0.5).all(), "a busy host sees the execve late"
    answers = loaded.answers
    assert len(answers) > 90
    assert (answers["status"] == Status.OK).mean() > 0.5, "a copy that waits was asked"
    assert "time until done" in report
    assert not ANSWERED.search(report)


def asked(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "lab.cli.main", "isolation", "--on", "container", "--scenario", folder, "--json"]
    return preloaded.run(argv, capture_output=True, text=True, timeout=250, check=False)


def test_the_questions_of_a_batch_job_are_asked_of_a_copy_that_waits(tmp_path: Path) -> None:
    done = asked(make(tmp_path, "brief"))
    assert done.returncode == 0, done.stderr
    assert "a copy of its image that waits" in done.stderr
    answers = [each["answer"] for each in json.loads(done.stdout)]
    assert len(answers) > 90
    assert answers.count("inconclusive") < len(answers) / 2


def test_nothing_is_told_of_an_application_that_fails_meanwhile(tmp_path: Path) -> None:
    done = asked(make(tmp_path, "broken"))
    assert done.returncode == 1
    assert tells(done.stderr, "3", "No module named flask")
    assert done.stdout == ""


def test_what_only_runs_is_called_started(tmp_path: Path) -> None:
    words = ("--ready", "started", "--metrics", "boot")
    loaded, _, report = measured(make(tmp_path, "quiet"), tmp_path / "runs", *words)
    assert loaded.run.settings["until"] == Milestone.STARTED
    assert "boot.responded" not in set(loaded.measured["quantity"])
    assert "time until started" in report
    assert not ANSWERED.search(report)


@pytest.mark.parametrize(
    ("name", "words", "code", "says"),
    [
        ("several", (), 2, "--port 8000 or --port 8001"),
        ("loopback", (), 2, "127.0.0.1:8000"),
    ],
)
def test_what_is_not_clear_is_asked_back(
    name: str, words: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    done = compare(make(tmp_path, name), *QUICK, *words, "--out", tmp_path / "runs")
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_command_line_says_what_nobody_else_does(tmp_path: Path) -> None:
    """A port, a limit, a build argument and a secret, and a resumed run knows them still."""
    folder = make(tmp_path, "several")
    (folder / "Dockerfile").write_text(
        (folder / "Dockerfile").read_text()
        + "ARG PAGE\nRUN --mount=type=secret,id=word test -s /run/secrets/word && echo $PAGE > /srv/page.html\n"
    )
    (tmp_path / "word").write_text("hidden")
    words = (
        "--port", "8001", "--ready", "http:/page.html", "--pids", "32", "--metrics", "boot",
        "--build-arg", "PAGE=one", "--secret", f"id=word,src={tmp_path / 'word'}",
    )  # fmt: skip
    loaded, _, report = measured(folder, tmp_path / "runs", *words)
    assert loaded.run.settings["port"] == 8001
    assert loaded.run.limits["pids"] == 32
    assert {seen["limits"]["pids"] for seen in loaded.run.parity.values()} == {32}
    assert tells(report, "GET /page.html", "200")
    raw = json.loads((loaded.path / "run.json").read_text())
    raw["ended_because"] = "interrupted"
    raw["blocks_planned"] = 2
    (loaded.path / "run.json").write_text(json.dumps(raw))
    done = compare("--resume", loaded.path, pictures=False)
    assert done.returncode == 0, done.stderr
    assert "looking" not in done.stderr
    again = load(loaded.path)
    assert again.run.settings["port"] == 8001
    assert set(again.measured[again.measured["quantity"] == "boot.total"]["block"]) == {1, 2}
