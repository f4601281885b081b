"""``lab watch``: what a plan may say, when it is time, what is dropped, and the units it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.commands import polite
from lab.commands.watching import causes, plan, units
from lab.commands.watching.state import State
from lab.errors import ResultsError, UsageError
from lab.host.survey import quiet

LAB = [sys.executable, "-m", "lab.cli.main"]
WHOLE = """
scenario = "app"
options = ["--on", "process,container"]
results = "kept"
[when]
kernel = true
files = true
packages = ["runc"]
every = "24h"
at = ["03:30", "15:00"]
[keep]
disk = "1M"
[polite]
busy = 0.5
"""
NOON = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def written(folder: Path, text: str, name: str = "nightly.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> plan.Plan:
    return plan.read(written(folder, text))


def test_a_plan_says_what_when_and_how_much(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").touch()
    found = read(tmp_path, WHOLE)
    assert found.scenario == str(tmp_path / "app"), "beside the plan"
    assert found.results == tmp_path / "kept"
    assert (found.every_seconds, found.keep_bytes, found.busy) == (24 * 3600, 1 << 20, 0.5)
    assert [str(each) for each in found.at] == ["03:30:00", "15:00:00"]
    assert read(tmp_path, 'scenario = "web-app"\n[when]\nlab = true').scenario == "web-app"


@pytest.mark.parametrize(
    "text",
    [
        "scenario = ", "[when]\nkernel = true", "scenario = 'a'", "scenario = 'a'\n[when]\nkernel = false",
        "scenario = 'a'\n[when]\nkernl = true", "scenario = 'a'\n[when]\nkernel = 'yes'",
        "scenario = 'a'\nwhen = 3", "scenario = 'a'\n[when]\nat = ['25:00']", "scenario = 'a'\n[when]\nat = '03:30'",
        "scenario = 'a'\n[when]\nevery = 3", "scenario = 'a'\n[when]\nevery = 'daily'",
        "scenario = 'a'\n[when]\nlab = true\n[keep]\ndisk = 7",
        "scenario = 'a'\n[when]\nlab = true\n[polite]\nbusy = 0",
        "scenario = 'a'\noptions = ['--out=/etc']\n[when]\nlab = true",
        "scenario = 'a'\noptions = ['--resume', 'x']\n[when]\nlab = true",
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused_with_its_file_and_a_remedy(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.hint
    assert str(tmp_path) in str(caught.value) or "duration" in str(caught.value)


def test_a_wrong_plan_is_one_line_and_a_remedy(tmp_path: Path) -> None:
    path = written(tmp_path, "scenario = 'a'")
    done = subprocess.run([*LAB, "watch", path, "--once"], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["nightly.toml"]


def test_a_plan_needs_a_name_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        plan.read(written(tmp_path, WHOLE, "two words.toml"))
    with pytest.raises(UsageError):
        plan.read(tmp_path / "none.toml")


def why(wanted: plan.Plan, seen: Mapping[str, str], began: datetime | None, found: Mapping[str, str]) -> list[str]:
    return causes.reasons(wanted, seen, began, found, NOON)


def test_it_is_time_when_what_is_named_has_changed_or_a_time_has_passed(tmp_path: Path) -> None:
    wanted, same = read(tmp_path, WHOLE), {"kernel": "6.1", "package runc": "1.1"}
    assert why(wanted, {}, None, same)
    early = NOON - timedelta(hours=1)
    assert why(wanted, same, early, same) == []
    (changed,) = why(wanted, same, early, same | {"kernel": "6.12"})
    assert "6.1 → 6.12" in changed
    (new,) = why(wanted, {"kernel": "6.1"}, early, same)
    assert "runc" in new
    (clock,) = why(wanted, same, NOON - timedelta(hours=9), same)
    assert "03:30" in clock
    assert len(why(wanted, same, NOON - timedelta(hours=25), same)) == 2, "a day, and the time of day"


MINUTES = st.times().map(lambda each: each.replace(second=0, microsecond=0))


@given(st.lists(MINUTES, min_size=1, max_size=4), st.datetimes(datetime(2026, 1, 2), datetime(2027, 1, 1)))
def test_the_last_time_of_day_is_at_most_a_day_old_and_none_lies_between(times: list[time], now: datetime) -> None:
    wanted = plan.Plan(path=Path("/p.toml"), scenario="a", results=Path("/r"), at=tuple(times))
    found = causes.last_clock(wanted, now)
    assert found is not None
    assert timedelta(0) <= now - found < timedelta(days=1)
    assert found.time() in times
    for each in wanted.at:
        today = datetime.combine(now.date(), each)
        assert not found < today <= now


@pytest.mark.parametrize(("busy", "is_quiet", "looks"), [(0.5, False, 2), (1.5, True, 2), (2.0, True, 0)])
def test_a_host_is_looked_at_unless_it_may_be_as_busy_as_it_can_be(
    busy: float, is_quiet: bool, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two processors one is busy."""
    seen: list[quiet.Reading] = []

    def read() -> quiet.Reading:
        at = float(len(seen))
        cpu = quiet.CpuTimes(busy_seconds=at, idle_seconds=at, stolen_seconds=0.0)
        seen.append(quiet.Reading(at=at, cpu=cpu, pressure={}, load_average=None, frequency_hertz=None))
        return seen[-1]

    monkeypatch.setattr(polite.quiet, "read", read)
    monkeypatch.setattr(polite, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(polite.os, "cpu_count", lambda: 2)
    assert polite.becomes_quiet(busy, patience_seconds=0.0) == is_quiet
    assert len(seen) == looks


def test_names_contents_and_modes_of_files_count_and_times_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    file = folder / "a"
    file.write_text("x")
    link = folder / "l"
    link.symlink_to("a")
    before = causes.tree_digest(folder)
    file.touch()
    assert causes.tree_digest(folder) == before
    seen = {before}
    for change in (
        lambda: file.write_text("y"), lambda: file.chmod(0o755), lambda: file.rename(folder / "b"),
        lambda: (link.unlink(), link.symlink_to("b")),
    ):  # fmt: skip
        change()
        assert causes.tree_digest(folder) not in seen
        seen.add(causes.tree_digest(folder))


def test_what_is_named_is_read_and_what_is_absent_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", tmp_path]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "one"], check=True)
    text = "scenario = 'a'\n[when]\nkernel = true\nlab = true\npackages = ['bash', 'nonesuch']\nimages = ['none']\n"
    wanted = read(tmp_path, text + "commits = ['.']")
    found = causes.causes(wanted)
    assert found["package nonesuch"] == found["image none"] == causes.ABSENT != found["package bash"]
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "two"], check=True)
    assert {name for name, state in causes.causes(wanted).items() if found[name] != state} == {"commit of ."}
    with pytest.raises(UsageError):
        causes.causes(read(tmp_path, "scenario = 'a'\n[when]\ncommits = ['/']"))


def run_of(folder: Path, name: str, size_bytes: int) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "run.json").write_text("{}")
    (folder / name / "samples").write_bytes(b"x" * size_bytes)


def test_the_oldest_of_its_own_runs_are_dropped_and_nothing_else(tmp_path: Path) -> None:
    wanted = read(tmp_path, WHOLE)
    for name in ("one", "two", "three", "four", "another's"):
        run_of(wanted.results, name, 400 << 10)
    outside = tmp_path / "outside"
    run_of(tmp_path, "outside", 400 << 10)
    (wanted.results / "link").symlink_to(outside)
    state = State.of(wanted)
    state.runs = ["../outside", "link", "gone", "one", "two", "three", "four"]
    assert len(list(state.drop(1 << 20))) == 2
    assert state.runs == ["three", "four"]
    assert {path.name for path in wanted.results.iterdir()} == {"three", "four", "another's", "link"}
    assert (outside / "run.json").exists()
    assert list(state.drop(1)) == [], "two are left whatever they take"


def test_the_state_comes_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    wanted = read(tmp_path, WHOLE)
    state = State.of(wanted)
    state.seen, state.began, state.runs = {"kernel": "6.1"}, NOON, ["one"]
    state.write()
    again = State.of(wanted)
    assert (again.seen, again.began, again.runs) == ({"kernel": "6.1"}, NOON, ["one"])
    assert [path.name for path in wanted.results.iterdir()] == [state.path.name]
    for text in ("{", "{}", "[]", json.dumps({"seen": {}, "began": "yesterday", "runs": []})):
        state.path.write_text(text)
        with pytest.raises(ResultsError):
            State.of(wanted)


def test_units_call_the_plan_by_its_whole_name(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" 100% $c'
    folder.mkdir()
    path = written(folder, WHOLE)
    done = subprocess.run([*LAB, "watch", path, "--units", tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{tmp_path}/lab-watch-nightly.{kind}" for kind in ("service", "timer")]
    service = (tmp_path / "lab-watch-nightly.service").read_text()
    assert '\\"b\\" 100%% $$c/nightly.toml" --once' in service
    timer = (tmp_path / "lab-watch-nightly.timer").read_text()
    assert [line for line in timer.splitlines() if line.startswith("OnCalendar")] == [
        "OnCalendar=*-*-* 03:30:00", "OnCalendar=*-*-* 15:00:00", f"OnCalendar={units.LOOKS}",
    ]  # fmt: skip
