"""What a class sees measured is really measured: told as it goes, and gone when nobody listens any more."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from comparing import make_scenario
from host_state import assert_unchanged, snapshot

from lab.classroom.questions.lesson import SHIPPED
from lab.cli.classroom.measuring import measuring

SPEED = SHIPPED / "speed"


def words(root: Path) -> Sequence[str]:
    scenario = make_scenario(root / "page")
    how = ("--on", "process,container", "--metrics", "boot", "--idle", "0.2", "--blocks", "3")
    return ["--quiet", "compare", str(scenario), *how, "--out", str(root / "results")]


def test_a_run_tells_what_it_does_and_what_it_answers_by_now(tmp_path: Path) -> None:
    before = snapshot()
    with measuring(SPEED, words(tmp_path)) as heard, os.fdopen(os.dup(heard), "rb") as lines:
        events = [json.loads(line) for line in lines]
    assert events[-1] == {"event": "over"}
    assert any("container: booting" in each["what"] for each in events if each["event"] == "doing")
    progress = [each for each in events if each["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["expected"]
    answers = [each for each in events if each["event"] == "answers"]
    first = [each["material"]["questions"][0] for each in answers]
    assert [each["ready"] for each in first] == [False, False, True], "an interval takes three blocks"
    assert first[-1]["answer"]["value"] > 0
    assert [sorted(each) for each in answers[:2]] == [["event", "material"]] * 2
    assert "who is first?" in answers[-1]["showing"]["race"]
    assert_unchanged(before)


def test_nothing_of_it_is_left_when_the_server_is_gone(tmp_path: Path) -> None:
    before = snapshot()
    with measuring(SPEED, words(tmp_path)) as heard, os.fdopen(os.dup(heard), "rb") as lines:
        assert any(b"booting" in line for line in lines)
    assert_unchanged(before)
    (run,) = (tmp_path / "results").iterdir()
    assert json.loads((run / "run.json").read_text())["ended_because"] == "interrupted"
