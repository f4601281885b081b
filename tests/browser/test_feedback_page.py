"""The page that a student gets of a hand-in: light and dark, laptop and telephone, whatever was handed in."""

from __future__ import annotations

from pathlib import Path

import pytest
from exercising import key_of, made
from playwright.sync_api import Browser
from visiting import CONTRAST, violations

from lab.classroom.exercise import handout
from lab.classroom.exercise.feedback import write
from lab.classroom.exercise.graded import Graded, Mark, Shown
from lab.classroom.exercise.notebook import Role

SIZES = {"laptop": (1366, 768), "phone": (390, 844), "projector": (1920, 1080)}
ATTACK = "<script>document.title = 'changed'</script><img src=x onerror=\"document.title = 'changed'\">"
WIDE = "x" * 500


@pytest.fixture(scope="module")
def page_of_a_hand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feedback")
    exercise = handout.open_key(key_of(made(folder, "ada")))
    marks = (
        Mark(key="all", points=2, got=2.0),
        Mark(key="some", points=3, got=1.5, says=ATTACK),
        Mark(key="none", points=1, got=0.0, says=WIDE),
        Mark(key="words", points=2, got=None, says="marked by hand", is_by_hand=True),
    )
    shown = (
        Shown(role=Role.SOLUTION, key="all", source=f"print({WIDE!r})\n" * 60, is_code=True, output=WIDE + ATTACK),
        Shown(role=Role.FREE, key="", source=ATTACK, is_code=True, error=f"line 1: {WIDE}"),
        Shown(role=Role.BY_HAND, key="words", source=ATTACK + WIDE, is_code=False),
    )
    graded = Graded(name="ada", marks=marks, shown=shown, remark=ATTACK)
    return write(exercise, graded, folder)


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_does_nothing_and_axe_finds_nothing(browser: Browser, page_of_a_hand_in: Path, size: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light")
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_of_a_hand_in.as_uri())
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, only=CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "changed" not in page.title()
    assert asked == [page_of_a_hand_in.as_uri()]
    context.close()
