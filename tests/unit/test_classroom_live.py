"""A run that is measured while the class guesses: what the server hears, and when it may reveal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from classes import SAMPLE, Served, serving, unanswered, until
from typer.testing import CliRunner

from lab.classroom.questions.lesson import SHIPPED, create, read
from lab.classroom.questions.material import growing, pending
from lab.classroom.questions.showing import from_data
from lab.classroom.questions.telling import told
from lab.classroom.session import views
from lab.classroom.session.course import Course, Phase, Refused
from lab.classroom.session.store import Store, prepare
from lab.classroom.web.site import Site
from lab.cli.classroom import measuring as apart
from lab.cli.classroom.app import app
from lab.errors import LabError, UsageError

SPEED = SHIPPED / "speed"


@pytest.fixture(scope="module")
def over() -> dict[str, Any]:
    return told(SPEED, SAMPLE, over=True)


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    return Course.begin(Store(prepare("live", None)), pending(read(SPEED)), 30)


def step(course: Course, *actions: str) -> None:
    for action in actions:
        course.act(action, course.phase, course.question)


def cut(root: Path, blocks: int) -> Path:
    """The sample as it was after so many blocks."""
    folder = Path(shutil.copytree(SAMPLE, root / f"after-{blocks}", ignore=shutil.ignore_patterns("*.parquet")))
    lines = (SAMPLE / "samples.jsonl").read_text().splitlines()
    (folder / "samples.jsonl").write_text(
        "".join(f"{line}\n" for line in lines if json.loads(line)["block"] <= blocks)
    )
    return folder


def test_before_anything_is_measured_no_question_is_ready() -> None:
    made = pending(read(SPEED))
    assert [each["ready"] for each in made["questions"]] == [False] * 5
    assert "49.7" not in json.dumps(made)
    assert "{{" not in json.dumps(made)


def test_a_number_is_ready_with_its_interval_and_a_verdict_at_the_end(tmp_path: Path) -> None:
    lesson = read(SPEED)
    ready = {
        blocks: [each["ready"] for each in growing(lesson, cut(tmp_path, blocks), over=False)["questions"]]
        for blocks in (1, 6)
    }
    assert ready[1] == [False] * 5, "one block has no interval"
    assert ready[6] == [True, False, True, False, True], "a verdict may still change, and so may the longest phase"
    assert [each["ready"] for each in growing(lesson, SAMPLE, over=True)["questions"]] == [True] * 5
    facts = growing(read(SHIPPED / "what-they-run"), cut(tmp_path / "facts", 1), over=False)
    assert all(each["ready"] for each in facts["questions"])


def test_a_reveal_waits_and_what_was_revealed_does_not_change(course: Course, over: dict[str, Any]) -> None:
    step(course, "start")
    with pytest.raises(Refused, match="yet"):
        step(course, "reveal")
    material = json.loads(json.dumps(over["material"]))
    material["questions"][1]["ready"] = False
    course.learn(material)
    step(course, "reveal")
    changed = json.loads(json.dumps(material))
    changed["questions"][0]["answer"]["says"] = changed["questions"][1]["answer"]["says"] = "another"
    course.learn(changed)
    assert course.material["questions"][0]["answer"]["says"] == "46.6 ms"
    assert course.material["questions"][1]["answer"]["says"] == "another"
    course.store.close()
    again = Course.begin(Store(course.store.folder), pending(read(SPEED)), 30)
    again.learn(changed)
    assert again.material["questions"][0]["answer"]["says"] == "46.6 ms", "not after a restart either"
    step(again, "next")
    with pytest.raises(Refused):
        step(again, "reveal")
    again.settle()
    step(again, "reveal")
    assert again.phase is Phase.REVEAL


def test_what_another_run_measured_before_a_restart_is_not_called_this_one_s(
    course: Course, over: dict[str, Any]
) -> None:
    step(course, "start")
    course.learn(over["material"])
    step(course, "reveal")
    assert views.of_screen(course, "")["run"] == over["material"]["run"]
    course.learn(over["material"] | {"run": "later", "day": "2027-01-01"})
    told = views.of_screen(course, "")
    assert (told["run"], told["day"]) == (over["material"]["run"], over["material"]["day"])
    shown = from_data(over["showing"])
    site = Site(course=course, address="http://127.0.0.1:1", files={}, showing=shown)
    assert site._shown()["showable"] == [], "race and figure are the later run's"
    step(course, "next", "reveal")
    assert views.of_screen(course, "")["run"] == "later"
    assert "race" in site._shown()["showable"]


def test_once_it_has_ended_nothing_is_said_to_be_measured_still(course: Course, over: dict[str, Any]) -> None:
    assert "being measured" in json.dumps(course.material)
    course.settle()
    told = json.dumps(course.material)
    assert "being measured" not in told
    assert "not been measured yet" not in told
    assert all(each["ready"] and "reason" in each["answer"] for each in course.material["questions"])
    course.learn(over["material"])
    before = json.dumps(course.material["questions"])
    course.settle()
    assert json.dumps(course.material["questions"]) == before, "what was measured stays"


@pytest.fixture
def live() -> Iterator[tuple[Served, int]]:
    reading, writing = os.pipe()
    with serving("speed", light=True, live=reading) as served:
        os.close(reading)
        try:
            yield served, writing
        finally:
            os.close(writing)


def tell(descriptor: int, event: dict[str, Any]) -> None:
    data = memoryview(json.dumps(event).encode() + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]


def test_the_projector_follows_and_the_reveal_opens_when_the_run_answers(
    live: tuple[Served, int], over: dict[str, Any]
) -> None:
    served, writing = live
    teacher, student = served.teacher(), served.join("Ada")
    tell(writing, {"event": "doing", "what": "block 1, vm: booting"})
    tell(writing, {"event": "progress", "done": 3, "expected": 24})
    expected = {"what": "block 1, vm: booting", "done": 3, "expected": 24, "state": "measuring"}
    until(lambda: served.state("/screen/events", teacher)["live"] == expected)
    assert "live" not in served.state("/events", student)
    assert served.step(teacher, "start").status == 200
    assert served.step(teacher, "reveal").status == 409
    assert served.state("/teach/events", teacher)["ready"] is False
    tell(writing, over)
    until(lambda: served.state("/teach/events", teacher)["ready"])
    assert "49.7" not in json.dumps(
        [served.state(path, who) for path, who in (("/events", student), ("/screen/events", teacher))]
    )
    assert served.step(teacher, "reveal").status == 200
    assert served.state("/screen/events", teacher)["showable"] == ["race", "figure"]
    tell(writing, {"event": "over"})
    until(lambda: served.state("/screen/events", teacher)["live"]["state"] == "over")


def test_what_measures_may_be_killed_and_the_class_goes_on() -> None:
    reading, writing = os.pipe()
    with serving("speed", light=True, live=reading) as served:
        os.close(reading)
        teacher = served.teacher()
        served.step(teacher, "start")
        os.write(writing, b'{"event": "prog')
        os.close(writing)
        until(lambda: served.state("/screen/events", teacher)["live"]["state"] == "failed")
        assert served.step(teacher, "reveal").status == 200
        assert "reason" in served.state("/screen/events", teacher)["asked"]["answer"]


def test_what_measures_ends_when_nobody_listens_any_more() -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom lab.commands.telling import Telling\n"
        "told = Telling(int(sys.argv[1]), Path('x'))\ntold.tell('doing', what='x')\ntime.sleep(300)\n"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code, str(writing)], pass_fds=(writing,))
    os.close(writing)
    assert json.loads(os.read(reading, 4096)) == {"event": "doing", "what": "x"}
    assert process.poll() is None
    os.close(reading)
    assert process.wait(60) == -15


def test_another_process_measures_and_only_sends() -> None:
    with apart.measuring(SPEED, ["--version"]) as heard, os.fdopen(os.dup(heard), "rb") as lines:
        events = [json.loads(line) for line in lines]
    assert events[-1] == {"event": "over"}
    with apart.measuring(SPEED, ["compare", "unheard-of"]) as heard, os.fdopen(os.dup(heard), "rb") as lines:
        assert {"event": "over"} not in [json.loads(line) for line in lines]


@pytest.mark.parametrize("words", [["--live", "--run", "sample"], ["--live"]])
def test_what_live_needs_is_said(words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setattr("lab.host.identity.privilege._is_root", lambda: False)
    found = CliRunner().invoke(app, ["serve", "speed", *words, "--port", "0"]).exception
    assert isinstance(found, UsageError if len(words) > 1 else LabError)
    assert "leave" in found.hint if len(words) > 1 else found.hint.startswith("sudo ./bootstrap lab ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--scenario", "database"], "--live"),
        (["--on", "process"], "--live"),
        (["--live", "--scenario", "unheard-of"], "unheard-of"),
    ],
)
def test_what_is_measured_live_is_checked_before_a_class_is_there(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setattr("lab.host.identity.privilege._is_root", lambda: True)
    found = CliRunner().invoke(app, ["serve", "speed", *words, "--port", "0"]).exception
    assert isinstance(found, LabError)
    assert says in f"{found} {found.hint}"
    assert not (tmp_path / "class").exists()


def test_a_lesson_names_what_is_measured_live(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    create(folder)
    file = folder / "lesson.toml"
    text = file.read_text()
    assert read(folder).scenario == read(SPEED).scenario == "web-app"
    file.write_text(f'scenario = "database"\n{text}')
    assert read(folder).scenario == "database"
    (folder / "database").mkdir()
    assert read(folder).scenario == str(folder / "database"), "a folder beside it comes first"
    file.write_text(f"scenario = 7\n{text}")
    with pytest.raises(UsageError, match="scenario"):
        read(folder)


def test_a_class_about_a_recorded_run_does_not_go_on_live() -> None:
    with serving("speed", light=True) as served:
        served.stop()
        (served.home / "material.json").write_text(unanswered("speed"))
        reading, writing = os.pipe()
        done = subprocess.run(
            [sys.executable, *served.command, str(reading), "127.0.0.1", "0"], capture_output=True, text=True,
            timeout=120, check=False, pass_fds=(reading,), env=os.environ | {"LAB_HOME": str(served.home)},
        )  # fmt: skip
        os.close(reading)
        os.close(writing)
        assert done.returncode != 0
        assert "recorded run" in done.stderr
