"""``lab compare --metrics boot,debt``: who is slow for its first ten requests is shown to owe, who is not is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparing import compare, make_scenario, only_run

import lab
from lab.analysis.debt import owed

pytestmark = pytest.mark.usefixtures("same_host")

ANSWER = """\
#!/bin/sh
echo . >>/tmp/answered
[ "$SLOW" = yes ] && [ "$(wc -l </tmp/answered)" -le 10 ] && sleep 0.5
printf 'Content-Type: text/plain\\n\\nhello\\n'
"""
"""Each answer is a process of its own: its page faults are in no other's count but the group's."""

DEBT = ("--metrics", "boot,debt", "--idle", "0.2s", "--seed", "7")


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_scenario(tmp_path_factory.mktemp("owing"))
    program = folder / "root" / "srv" / "cgi-bin" / "answer"
    program.parent.mkdir()
    program.write_text(ANSWER)
    program.chmod(0o755)
    description = folder / "scenario.toml"
    description.write_text(description.read_text().replace("/index.html", "/cgi-bin/answer"))
    return folder


@pytest.mark.nightly
def test_who_sleeps_for_its_first_ten_requests_owes_on_every_backend(scenario: Path, tmp_path: Path) -> None:
    words = ("--on", "process,container", "--factor", "env.SLOW=no,yes", "--blocks", "4", *DEBT)
    done = compare(scenario, *words, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = lab.load(only_run(tmp_path))
    found = {row["arm"]: row for row in owed(loaded).to_dict("records")}
    assert set(found) == {"process", "container", "process[env.SLOW=yes]", "container[env.SLOW=yes]"}
    seconds = loaded.measured[loaded.measured["quantity"] == "debt.owed"].groupby("arm")["value"].median()
    for name in ("process", "container"):
        assert seconds[f"{name}[env.SLOW=yes]"] > 9 * 0.5 * 0.8, "nine, for the first is the readiness's"
        assert abs(seconds[name]) < 9 * 0.5 / 2
        assert found[f"{name}[env.SLOW=yes]"]["claim"], found[f"{name}[env.SLOW=yes]"]["why"]
        assert found[name]["ratio"] < found[f"{name}[env.SLOW=yes]"]["low"]
    text = (only_run(tmp_path) / "report.md").read_text()
    assert "plots/debt.png" in text
    assert "env.SLOW=yes" in text


def test_faults_of_processes_that_have_ended_are_counted(scenario: Path, tmp_path: Path) -> None:
    """A hundred shells that nobody waits for, each with some dozens of pages at the least."""
    done = compare(scenario, "--on", "container", "--blocks", "1", *DEBT, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    measured = lab.load(only_run(tmp_path)).measured
    faults = measured[measured["quantity"] == "debt.faults.minor"]
    assert len(faults) == 2 * 2, "two states of the arm and its twin"
    assert (faults["value"] > 100 * 24).all(), faults[["arm", "state", "value"]].to_string()


def test_what_gives_no_answer_is_refused_before_anything_runs(scenario: Path, tmp_path: Path) -> None:
    done = compare(scenario, "--on", "process", "--ready", "started", "--blocks", "1", *DEBT, "--out", tmp_path / "r")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("lab:") or "--ready http" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").iterdir())
