"""``lab race`` on real instances: lanes that advance while it happens; and after any end nothing is left."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from comparing import LAB, make_scenario
from host_state import assert_unchanged, difference, snapshot
from seated import seat

ON = ("--on", "process,container")
SECONDS = 120.0
SLEEPS = 4
CMD = '["httpd", "-f", "-p", "8000", "-h", "/srv"]'


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenario(tmp_path_factory.mktemp("page"))


def test_rounds_without_a_terminal(scenario: Path) -> None:
    before = snapshot()
    argv = [*LAB, "race", str(scenario), *ON, "--rounds", "2", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert_unchanged(before, within_seconds=10)
    told = json.loads(done.stdout)
    assert [one["number"] for one in told["rounds"]] == [1, 2]
    for one in told["rounds"]:
        assert [lane["name"] for lane in one["lanes"]] == ["process", "container"]
        assert sorted(lane["place"] for lane in one["lanes"]) == [1, 2]
        for lane in one["lanes"]:
            times = [each["at"] for each in lane["course"]]
            assert [each["phase"] for each in lane["course"]] == [
                "isolated", "init", "executed", "listening", "responded",
            ]  # fmt: skip
            assert times == sorted(times)
            assert 0 < times[0] <= times[-1] == lane["finish"] < 60


def test_at_a_terminal_it_is_live_and_can_be_seen_again(scenario: Path) -> None:
    before = snapshot()
    with seat() as place, place.running("race", str(scenario), *ON) as process:
        place.screen.until("space starts it, live")
        place.screen.type(" ")
        place.screen.until("2nd")
        place.screen.until("r again")
        place.screen.type("r")
        place.screen.until("true speed")
        place.screen.type("q")
        place.screen.until("\x1b[?1049l")
        place.screen.until("demonstration")
        assert process.wait(SECONDS) == 0
    assert_unchanged(before, within_seconds=10)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that takes a while until it listens."""
    made = make_scenario(tmp_path_factory.mktemp("slow-page"))
    file = made / "Dockerfile"
    file.write_text(file.read_text().replace(CMD, f'["sh", "-c", "sleep {SLEEPS}; exec httpd -f -p 8000 -h /srv"]'))
    assert "sleep" in file.read_text()
    return made


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
def test_whoever_leaves_it_half_way_leaves_nothing(slow: Path, key: str, code: int) -> None:
    before = snapshot()
    with seat() as place, place.running("race", str(slow), *ON) as process:
        place.screen.until("space starts it, live")
        place.screen.type(" ")
        place.screen.until("▶")
        assert difference(before, snapshot()), "there is something that could be left"
        place.screen.type(key)
        place.screen.until("\x1b[?1049l")
        assert process.wait(SECONDS) == code
    assert_unchanged(before, within_seconds=10)


def test_killed_half_way_it_leaves_nothing_once_clean_was_there(slow: Path) -> None:
    before = snapshot()
    with seat() as place, place.killing("race", str(slow), *ON) as kill:
        place.screen.until("space starts it, live")
        place.screen.type(" ")
        place.screen.until("▶")
        kill()
        place.screen.until("\x1b[?1049l")
    subprocess.run([*LAB, "clean"], capture_output=True, timeout=SECONDS, check=True)
    assert_unchanged(before, within_seconds=10)
