"""How a class goes, without a server: phases, guesses, what each page is told, tries, histograms."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.classroom.questions.lesson import SHIPPED, read
from lab.classroom.questions.material import material
from lab.classroom.session import views
from lab.classroom.session.course import CODE_LETTERS, Course, Phase, Refused, WrongCode, tidy
from lab.classroom.session.grading import is_right
from lab.classroom.session.histogram import Axis, histogram
from lab.classroom.session.store import FILE, LOCK, Store, delete, every, expire, folder_of, is_served, prepare
from lab.classroom.web.guard import WINDOW_SECONDS, WRONG_TRIES, Tries
from lab.errors import ResultsError, UsageError
from lab.host.identity import privilege

SAMPLE = Path(__file__).parents[2] / "results" / "sample"
NUMBER: dict[str, Any] = {
    "choices": [], "unit": "times", "within": 2.0,
    "answer": {"value": 160.0, "low": 144.0, "high": 177.0, "says": "160 ×"},
}  # fmt: skip


@pytest.fixture(scope="module")
def speed() -> dict[str, Any]:
    return material(read(SHIPPED / "speed"), SAMPLE)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def course(home: Path, speed: dict[str, Any]) -> Course:
    return Course.begin(Store(prepare("speed-1", None)), speed, 30)


def step(course: Course, *actions: str) -> None:
    for action in actions:
        course.act(action, course.phase, course.question)


def test_a_class_goes_through_two_votes_a_reveal_and_on(course: Course) -> None:
    assert course.phase is Phase.LOBBY
    step(course, "start", "close", "again", "close", "reveal", "next")
    assert (course.phase, course.question) == (Phase.VOTE, 1)
    for _ in range(len(course.material["questions"]) - 1):
        step(course, "reveal", "next")
    assert course.phase is Phase.OVER
    with pytest.raises(Refused):
        step(course, "next")


def test_a_second_click_skips_nothing(course: Course) -> None:
    step(course, "start")
    course.act("close", "vote", 0)
    with pytest.raises(Refused, match="moved on"):
        course.act("close", "vote", 0)
    with pytest.raises(Refused, match="not possible"):
        step(course, "next")
    assert course.phase is Phase.TALK


def test_it_goes_on_from_its_file_as_it_was(course: Course, speed: dict[str, Any]) -> None:
    student, token = course.join(course.code, "Ada")
    step(course, "start", "close")
    course.store.close()
    again = Course.begin(Store(course.store.folder), speed, 30)
    assert (again.phase, again.question, again.code) == (Phase.TALK, 0, course.code)
    assert again.store.student(token) == student
    with pytest.raises(UsageError, match="about speed"):
        Course.begin(Store(course.store.folder), speed | {"lesson": "isolation"}, 30)


def test_who_joins_has_the_code_and_a_name_of_their_own(course: Course) -> None:
    assert set(course.code) <= set(CODE_LETTERS)
    course.join(course.code.lower(), "  Ada \n Lovelace ")
    assert [each.nickname for each in course.store.students()] == ["Ada Lovelace"]
    with pytest.raises(WrongCode):
        course.join("XXXXXX", "Eve")
    for name, says in (
        ("ada lovelace", "called"),
        ("ＡＤＡ Lovelace", "called"),
        (" \t", "please"),
        ("x" * 25, "at most"),
    ):
        with pytest.raises(Refused, match=says):
            course.join(course.code, name)
    assert tidy("<b>\x1b[31m\u202eeve") == "<b>[31meve"
    step(course, "lock")
    with pytest.raises(Refused, match="any more"):
        course.join(course.code, "Late")


def test_guesses_count_in_their_vote_alone(course: Course) -> None:
    student, _ = course.join(course.code, "Ada")
    with pytest.raises(Refused, match="closed"):
        course.guess(student, 0, 1, 5.0)
    step(course, "start")
    for guess in (math.nan, math.inf, -1.0, 1e300):
        with pytest.raises(Refused, match="number"):
            course.guess(student, 0, 1, guess)
    for question, vote in ((1, 1), (0, 2)):
        with pytest.raises(Refused, match="closed"):
            course.guess(student, question, vote, 5.0)
    course.guess(student, 0, 1, 5.0)
    course.guess(student, 0, 1, 6.0)
    assert course.store.guesses(0, 1) == {student.id: 6.0}
    step(course, "reveal", "next")
    for guess in (-1.0, 0.5, 4.0):
        with pytest.raises(Refused, match="choice"):
            course.guess(student, 1, 1, guess)
    course.guess(student, 1, 1, 3.0)
    course.store.remove(student.id)
    assert course.store.guesses(1, 1) == {}


def test_before_the_reveal_no_page_of_the_room_is_told_what_was_measured(course: Course) -> None:
    student, _ = course.join(course.code, "Ada")
    secret = course.material["questions"][0]["answer"]["says"]
    assert secret == "46.6 ms"
    for actions in (("start",), ("close",), ("show",), ("again",), ("close",), ("show",)):
        step(course, *actions)
        for told in (views.of_student(course, student), views.of_screen(course, "http://x")):
            assert secret not in json.dumps(told)
            assert not {"answer", "explanation", "mechanism", "bind"} & set(told["asked"])
    step(course, "reveal")
    for told in (views.of_student(course, student), views.of_screen(course, "http://x")):
        assert secret in json.dumps(told)


def test_guesses_are_shown_once_the_teacher_shows_them_and_then_by_vote(course: Course) -> None:
    students = [course.join(course.code, name)[0] for name in ("Ada", "Bob", "Cyd")]
    step(course, "start")
    for student, guess in zip(students, (20, 50, 5000), strict=True):
        course.guess(student, 0, 1, guess)
    assert views.of_screen(course, "")["chart"] is None
    step(course, "close")
    assert views.of_screen(course, "")["chart"] is None
    step(course, "show")
    assert views.of_screen(course, "")["chart"]["first"] == 3
    step(course, "again")
    course.guess(students[2], 0, 2, 48)
    step(course, "reveal")
    chart = views.of_screen(course, "")["chart"]
    assert sum(bar["first"] for bar in chart["bars"]) == 3
    assert sum(bar["second"] for bar in chart["bars"]) == 3, "who did not vote again keeps the first"
    told = views.of_student(course, students[2])
    assert told["right"] == {1: False, 2: True}
    assert views.of_teacher(course, "")["students"][0]["nickname"] == "Ada"


@pytest.mark.parametrize(
    ("guess", "right"), [(160, True), (80, True), (79, False), (320, True), (321, False), (0, False)]
)
def test_a_number_is_right_within_its_factor(guess: float, right: bool) -> None:
    assert is_right(NUMBER, guess) is right


def test_of_zero_only_zero_is_right_and_of_no_answer_nothing_is() -> None:
    zero = NUMBER | {"answer": {"value": 0.0, "low": None, "high": None}}
    assert [is_right(zero, guess) for guess in (0.0, 0.1)] == [True, False]
    wide = NUMBER | {"answer": {"value": 10.0, "low": 1.0, "high": 100.0}}
    assert is_right(wide, 99.0), "what the interval leaves open is not wrong"
    assert is_right(NUMBER | {"answer": {"reason": "…"}}, 1.0) is None


@given(st.lists(st.floats(0, 1e15), max_size=40), st.booleans())
def test_every_guess_is_in_one_bar_and_the_measured_value_at_its_place(guesses: list[float], second: bool) -> None:
    drawn = histogram(NUMBER, guesses, guesses[:3] if second else None, revealed=True)
    assert sum(bar["first"] for bar in drawn["bars"]) == len(guesses)
    if second:
        assert sum(bar["second"] for bar in drawn["bars"]) == len(guesses[:3])
    assert 0 <= drawn["low"] <= drawn["value"] <= drawn["high"] <= 1
    assert all(0 <= tick["at"] <= 1 for tick in drawn["ticks"])
    assert len(drawn["ticks"]) <= 8
    json.dumps(drawn, allow_nan=False)


def test_an_axis_is_logarithmic_where_guesses_are_far_apart() -> None:
    near, far = Axis([10, 12, 15]), Axis([1, 10, 100])
    assert (near.logarithmic, far.logarithmic) == (False, True)
    assert far.place(10) == pytest.approx(0.5)
    assert far.place(0) == 0.0
    assert [tick["label"] for tick in Axis([1, 1000]).ticks("ms")] == ["1 ms", "10 ms", "100 ms", "1,000 ms"]


def test_wrong_tries_are_counted_by_address_for_a_while() -> None:
    now = [0.0]
    tries = Tries(lambda: now[0])
    for _ in range(WRONG_TRIES):
        assert not tries.exhausted("a")
        tries.wrong("a")
    assert tries.exhausted("a")
    assert not tries.exhausted("b")
    now[0] = WINDOW_SECONDS + 1
    assert not tries.exhausted("a")


def test_what_is_kept_goes_when_its_time_is_over_or_on_demand(course: Course, home: Path) -> None:
    course.join(course.code, "Ada Lovelace")
    course.store.close()
    ((name, known),) = every()
    assert (name, known["lesson"], known["students"]) == ("speed-1", "speed", 1)
    assert folder_of("speed-1").stat().st_mode & 0o077 == 0
    assert expire(time.time() + 29 * 86400) == []
    assert expire(time.time() + 31 * 86400) == ["speed-1"]
    assert list((home / "class").iterdir()) == []
    for bad in ("speed-1", "..", "a/b"):
        with pytest.raises(UsageError, match="no class"):
            delete(bad)


def test_a_token_is_not_in_the_file(course: Course) -> None:
    _, token = course.join(course.code, "Ada")
    course.store.close()
    data = b"".join(path.read_bytes() for path in course.store.folder.iterdir())
    assert b"Ada" in data
    assert token.encode() not in data
    assert (course.store.folder / FILE).stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root serves as somebody else")
@pytest.mark.parametrize("name", [FILE, LOCK])
def test_root_follows_no_link_of_the_one_that_serves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(prefix="lab-test-") as home:
        Path(home).chmod(0o755)
        monkeypatch.setenv("LAB_HOME", home)
        folder = prepare("speed-1", (privilege.NOBODYS, privilege.NOBODYS))
        roots, own = Path(home, "roots"), folder / "own"
        roots.touch(mode=0o644)
        (folder / name).symlink_to(roots)
        with pytest.raises((ResultsError, PermissionError)):
            is_served(folder) if name == LOCK else Store(folder)
        assert (roots.stat().st_size, roots.stat().st_mode & 0o777) == (0, 0o644)
        (folder / name).unlink()
        own.touch()
        os.chown(own, privilege.NOBODYS, privilege.NOBODYS)
        (folder / name).symlink_to(own)  # the control: it is not the link that is refused
        assert is_served(folder) is False
        Store(folder).close()
        assert os.geteuid() == 0
