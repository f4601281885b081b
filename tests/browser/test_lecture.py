"""A lecture from end to end, as a teacher plays it: race, lesson, reveal, second vote, marks, exercise, hand-ins."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from classes import serving
from exercising import RIGHT, answered, cell, handed_out, key_of, made
from host_state import assert_unchanged, snapshot
from playwright.sync_api import Browser, expect
from test_class_pages import CLASS, LAPTOP, PROJECTOR, Room, guess
from visiting import PATIENCE_MS, SAMPLE

pytestmark = pytest.mark.nightly
LAB = [sys.executable, "-m", "lab.cli.main"]
STUDENTS = [f"student {number}" for number in range(CLASS)]
CHEAT = 6
HOSTILE = {
    "student 3": "import os\nwhile True:\n    os.fork()",
    "student 11": "open('/tmp/full', 'wb').write(bytes(1 << 30))",
    "student 20": "import time\ntime.sleep(600)",
}


def lab(*words: str | Path, home: Path | None = None) -> str:
    environment = os.environ | ({"LAB_HOME": str(home)} if home else {})
    done = subprocess.run([*LAB, *words], capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(1800)
def test_a_lecture_is_played_from_the_race_to_the_marks(browser: Browser, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("hand-ins are executed by root's lab")
    before = snapshot()
    roster = tmp_path / "class.csv"
    people = (f"{name},Name of {name},{number}@example.org,{number}\n" for number, name in enumerate(STUDENTS))
    roster.write_text("nickname,name,email,id\n" + "".join(people))
    a_race_is_seen(browser, tmp_path)
    with serving("speed") as served:
        room = Room(browser, served)
        a_lesson_is_played(room)
        for context in room.contexts:
            context.close()
        assert room.complaints == []
        assert served.stop() == 130
        marks = lab("class", "results", "--csv", "-", "--roster", roster, home=served.home)
    points = {row["nickname"]: row["points"] for row in csv.DictReader(marks.splitlines())}
    assert set(points) == set(STUDENTS)
    assert points["student 1"] != points["student 0"] == points[f"student {CHEAT}"] == "0"

    an_exercise_is_graded(tmp_path)
    assert_unchanged(before)


def a_race_is_seen(browser: Browser, folder: Path) -> None:
    lab("race", "--replay", SAMPLE, "--html", folder / "race.html")
    page = browser.new_page(viewport={"width": PROJECTOR[0], "height": PROJECTOR[1]})
    page.goto((folder / "race.html").as_uri())
    page.keyboard.press(" ")
    expect(page.locator("#podium li")).to_have_count(4, timeout=PATIENCE_MS)
    page.close()


def a_lesson_is_played(room: Room) -> None:
    """Its first question: thirty guess, two drop out and come back, one cheats, some think again."""
    teacher = room.page(f"/teach#{room.served.key}", LAPTOP)
    screen = room.page("/screen", PROJECTOR, teacher.context)
    phones = [room.phone(name) for name in STUDENTS]

    def step(name: str) -> None:
        teacher.locator("#steps").get_by_role("button", name=name).click()

    expect(screen.get_by_role("status")).to_have_text(f"{CLASS} are here", timeout=PATIENCE_MS)
    step("Ask the first question")
    for place, phone in enumerate(phones):
        guess(phone, 45 if place % 4 == 1 else 4000)
    for phone in phones[4:6]:
        phone.goto("about:blank")
    step("Close the vote")
    expect(phones[CHEAT].get_by_text("Talk to your neighbour")).to_be_visible(timeout=PATIENCE_MS)
    tried = """async sent => (await fetch("/guess", {method: "POST", body: JSON.stringify(sent)})).status"""
    assert phones[CHEAT].evaluate(tried, {"question": 0, "vote": 1, "guess": 49.7}) == 409
    step("Second vote")
    for phone in phones[8:12]:
        expect(phone.get_by_text("Second vote")).to_be_visible(timeout=PATIENCE_MS)
        guess(phone, 50)
    for phone in phones[4:6]:
        phone.goto(room.served.address)
        expect(phone.get_by_label(re.compile("Your guess"))).to_be_visible(timeout=PATIENCE_MS)
    step("Reveal")
    expect(screen.locator("svg.numbers line.measured")).to_have_count(1, timeout=PATIENCE_MS)
    expect(screen.locator("svg.numbers rect.second").first).to_be_visible(timeout=PATIENCE_MS)
    step("Show the figure")
    expect(screen.get_by_role("img", name=re.compile("^Every start"))).to_be_visible(timeout=PATIENCE_MS)


def an_exercise_is_graded(folder: Path) -> None:
    """Thirty hand-ins, three of them hostile: these get what they had earned before, all others everything."""
    exercise = made(folder, *STUDENTS)
    handed_in = folder / "in"
    handed_in.mkdir()
    for name in STUDENTS:
        answers = RIGHT | ({"sums": HOSTILE[name]} if name in HOSTILE else {})
        told = answered(handed_out(exercise, name), **answers)
        told["cells"].append(cell("print('done')"))
        (handed_in / f"{name}.ipynb").write_text(json.dumps(told))
    words = ("--timeout", "8s", "--csv", folder / "marks.csv", "--feedback", folder / "pages")
    lab("class", "check", handed_in, "--key", key_of(exercise), *words)
    rows = {row["student"]: row for row in csv.DictReader((folder / "marks.csv").read_text().splitlines())}
    assert set(rows) == set(STUDENTS)
    got = {name: float(row["points"]) for name, row in rows.items()}
    honest = {got[name] for name in STUDENTS if name not in HOSTILE}
    assert len(honest) == 1
    assert all(got[name] < max(honest) for name in HOSTILE)
    assert len(list((folder / "pages").glob("*.html"))) >= CLASS
