"""Marks of a class: who was right when, columns for platforms, cells that stay text, a page without names."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lab.classroom import believed
from lab.classroom.marks import FORMULAS, Layout, as_csv, harmless, marks, roster
from lab.classroom.questions.lesson import SHIPPED, read
from lab.classroom.questions.material import material
from lab.classroom.session.course import Course
from lab.classroom.session.store import Store, prepare
from lab.cli.classroom.app import app
from lab.errors import UsageError

SAMPLE = Path(__file__).parents[2] / "results" / "sample"
EVIL = "=HYPERLINK(1)"


@pytest.fixture(scope="module")
def noisy() -> dict[str, Any]:
    return material(read(SHIPPED / "noisy-neighbours"), SAMPLE)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noisy: dict[str, Any]) -> Store:
    """Ada went from wrong to right, Bob the other way, one with a name like a formula guessed once, Cyd never."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    course = Course.begin(Store(prepare("noisy-1", None)), noisy, 30)
    ada, bob, evil, _ = (course.join(course.code, name)[0] for name in ("Ada", "Bob", EVIL, "Cyd"))

    def step(*actions: str) -> None:
        for action in actions:
            course.act(action, course.phase, course.question)

    step("start")
    for student, guess in ((ada, 0), (bob, 2), (evil, 2)):
        course.guess(student, 0, 1, guess)
    step("close", "again")
    course.guess(ada, 0, 2, 2)
    course.guess(bob, 0, 2, 1)
    step("reveal", "next")
    course.guess(ada, 1, 1, 50)
    step("reveal", "next", "reveal", "next", "reveal", "next")
    course.guess(ada, 4, 1, 0)
    return course.store


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_a_point_is_for_the_last_guess_and_none_for_what_a_run_can_not_answer(store: Store) -> None:
    ada, bob, evil, cyd = marks(store, {})
    assert [each.points for each in (ada, bob, evil, cyd)] == [2, 0, 1, 0]
    assert (ada.right_first[0], ada.right[0]) == (False, True)
    assert (bob.right_first[0], bob.right[0]) == (True, False)
    assert ada.right[4] is None
    assert [each.guessed for each in (ada, bob, evil, cyd)] == [3, 1, 1, 0]
    assert ada.last[1] == "50 %"


def test_a_roster_ties_nicknames_to_people(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "roster.csv"
    file.write_text("﻿Nickname,Name,Email,ID\nada,Ada Lovelace,ada@example.org,7\nbob,Bob,bob@example.org,8\n")
    found = marks(store, roster(file))
    moodle = rows(as_csv(store, found, Layout.MOODLE))
    assert moodle[0][:4] == ["Nickname", "Full name", "Email address", "ID number"]
    assert moodle[1] == ["Ada", "Ada Lovelace", "ada@example.org", "7", "2"]
    canvas = rows(as_csv(store, found, Layout.CANVAS))
    assert canvas[0][:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert canvas[1][0].strip() == "Points Possible"
    assert canvas[1][5] == "4", "one of five questions has no answer in this run"
    assert canvas[2] == ["Ada Lovelace", "", "7", "", "", "2"]
    assert {len(row) for row in canvas} == {6}
    file.write_text("name,login\nCyd Charisse,cyd\n")
    assert marks(store, roster(file))[3].person["name"] == "Cyd Charisse", "who joins by a login is found by it"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "none of the columns"),
        ("grade,colour\n1,red\n", "none of the columns"),
        ("nickname,name\nada,Ada\nADA,Ida\n", "two people"),
        ('nickname\n"ada', "can't be read"),
    ],
)
def test_what_is_no_roster_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "roster.csv").write_text(text)
    with pytest.raises(UsageError, match=says):
        roster(tmp_path / "roster.csv")


@given(st.text(max_size=20), st.text(alphabet=FORMULAS + " ", max_size=3))
def test_no_cell_is_a_formula(text: str, before: str) -> None:
    cell = harmless(before + text)
    assert cell.lstrip(" ")[:1] not in tuple("=+-@\t\r\n")
    assert cell.endswith(before + text)


def test_a_name_like_a_formula_stays_text_in_every_layout(store: Store) -> None:
    for layout in Layout:
        cells = [cell for row in rows(as_csv(store, marks(store, {}), layout)) for cell in row]
        assert f"'{EVIL}" in cells
        assert EVIL not in cells


def test_the_page_tells_what_was_believed_and_names_nobody(store: Store) -> None:
    page = believed.page(store, marks(store, {}))
    for name in ("Ada", "Bob", "HYPERLINK"):
        assert name not in page
    assert "1 of 3 agreed" not in page
    assert "2 of 3 agreed with that before the discussion and 2 after it: 1 changed to it, 1 away from it" in page
    assert "This run can’t tell" in page
    assert "Nobody guessed" in page
    assert "://" not in page
    assert "<p>The bare process was measured twice" in page


def test_the_command(store: Store, tmp_path: Path) -> None:
    runner = CliRunner()
    store.close()
    told = runner.invoke(app, ["results"])
    assert "2 of 4" in told.stdout, "without a name it is the last class"
    found = json.loads(runner.invoke(app, ["results", "noisy-1", "--json=-"]).stdout)
    assert [each["points"] for each in found["students"]] == [2, 0, 1, 0]
    assert found["questions"][0]["to_right"] == 1
    done = runner.invoke(
        app, ["results", "--csv", str(tmp_path / "m.csv"), "--for", "canvas", "--page", str(tmp_path / "p.html")]
    )
    assert done.exit_code == 0, done.output
    assert b"\r\n" in (tmp_path / "m.csv").read_bytes()
    assert "believed" in (tmp_path / "p.html").read_text()
    listed = json.loads(runner.invoke(app, ["ls", "--json=-"]).stdout)
    assert [(each["name"], each["students"]) for each in listed] == [("noisy-1", 4)]
    assert runner.invoke(app, ["rm", "noisy-1"]).stdout == "noisy-1\n"
    assert json.loads(runner.invoke(app, ["ls", "--json=-"]).stdout) == []
    assert isinstance(runner.invoke(app, ["results"]).exception, UsageError)
