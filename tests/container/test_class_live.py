"""What a class sees measured is really measured: told as it goes, and gone when nobody listens any more."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from comparing import make_scenario
from host_state import assert_unchanged, snapshot, wait_until

from lab.classroom.questions.lesson import SHIPPED
from lab.cli.classroom.measuring import measuring

SPEED = SHIPPED / "speed"


def words(root: Path) -> Sequence[str]:
    scenario = make_scenario(root / "page")
    how = ("--on", "process,container", "--metrics", "boot", "--idle", "0.2", "--blocks", "3")
    return ["--quiet", "compare", str(scenario), *how, "--out", str(root / "results")]


def is_run(*words: str) -> bool:
    """Whether some process of this host has exactly these words."""
    wanted = "".join(f"{word}\0" for word in words).encode()
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if each.read_bytes() == wanted:
                return True
    return False


@pytest.mark.nightly
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


def test_a_build_ends_when_the_server_is_gone(tmp_path: Path) -> None:
    before = snapshot()
    asked = words(tmp_path)
    file = tmp_path / "page" / "Dockerfile"
    file.write_text(f"{file.read_text()}RUN sleep 617\n")
    begun = time.monotonic()
    with measuring(SPEED, asked) as heard, os.fdopen(os.dup(heard), "rb") as lines:
        assert any(b"building" in line for line in lines)
        assert wait_until(lambda: is_run("sleep", "617"), 60)
    assert time.monotonic() - begun < 100, "neither its own time nor the patience with it was waited for"
    assert_unchanged(before, within_seconds=10)
    assert not (tmp_path / "results").exists()


def test_nothing_of_it_is_left_when_the_server_is_gone(tmp_path: Path) -> None:
    before = snapshot()
    with measuring(SPEED, words(tmp_path)) as heard, os.fdopen(os.dup(heard), "rb") as lines:
        assert any(b"booting" in line for line in lines)
    assert_unchanged(before)
    (run,) = (tmp_path / "results").iterdir()
    assert json.loads((run / "run.json").read_text())["ended_because"] == "interrupted"
