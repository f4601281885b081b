"""The site of many nights as people use it: from a folder, by pointer and keyboard, on a telephone, without
scripts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nights import write_nights
from playwright.sync_api import Browser, Locator, Page, expect
from visiting import CONTRAST, PATIENCE_MS, violations

from lab.commands.publishing.publish import Wanted, publish

NIGHTS, STEP = 130, 70
HOSTILE = "<b onmouseover=alert(1)>&amp;</script>"
Visit = Callable[..., Page]


def told(night: int, run: dict[str, Any]) -> None:
    run["versions"]["lab"] = "0.2.0" if night >= STEP else "0.1.0"
    run["host"]["kernel_release"] = "6.1.0-41" if night >= STEP else "6.1.0-40"
    if night == 100:
        run |= {"ended_because": "interrupted", "title": HOSTILE}
    if night >= 120:
        run["scenario"] = f"other {HOSTILE}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nights")

    def factor(night: int, arm: str, quantity: str) -> float:
        return 1.2 if night >= STEP and (arm, quantity) == ("container", "boot.total") else 1.0

    write_nights(root / "results", NIGHTS, factor=factor, told=told)
    wanted = Wanted(title="Every night", reports=1)
    publish(root / "site", root / "results", wanted, lambda folder: f"<!DOCTYPE html><title>{folder.name}</title>")
    return root / "site"


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Visit]:
    """``visit("lines", width=360)``: a view in a page of its own. What is refused, thrown, or comes from elsewhere
    than the site's folder, fails the test.
    """
    contexts, complaints = [], []
    home = site.as_uri()

    def requested(url: str) -> None:
        if not url.startswith(f"{home}/"):
            complaints.append(url)

    def open_page(view: str = "", width: int = 1366, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requested(request.url))
        page.goto(f"{home}/index.html{f'#{view}' if view else ''}")
        if options.get("java_script_enabled", True):
            page.locator("html[data-ready]").wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def form(page: Page, view: str) -> Locator:
    return page.locator(f'form[data-for="{view}"]')


def rows(page: Page) -> Locator:
    return page.locator("table.runs tbody tr")


def compared(page: Page) -> Page:
    """Two runs ticked by keyboard, and their comparison."""
    for row in (0, 3):
        rows(page).nth(row).locator("input").focus()
        page.keyboard.press("Space")
    page.locator("#chosen a").focus()
    page.keyboard.press("Enter")
    page.locator("#comparison table").first.wait_for()
    return page


def in_both_schemes(page: Page) -> list[str]:
    """What axe finds on a page in the light, and among its colours in the dark."""
    found = violations(page, least=15)
    page.emulate_media(color_scheme="dark")
    found += [f"dark: {each}" for each in violations(page, only=CONTRAST)]
    page.emulate_media(color_scheme="light")
    return found


def test_axe_finds_nothing_in_any_view(visit: Visit, site: Path) -> None:
    page = visit("changes")
    assert page.locator(".event").count() == 1
    assert in_both_schemes(page) == []
    for view in ("lines", "runs"):
        page.goto(page.url.partition("#")[0] + f"#{view}")
        page.locator("svg.history, table.runs tbody input").locator("visible=true").first.wait_for()
        assert in_both_schemes(page) == [], view
    assert in_both_schemes(compared(page)) == []
    page.locator("#comparison a").first.click()
    page.locator("#told dl").wait_for()
    assert in_both_schemes(page) == []
    page.goto(next((site / "changes").iterdir()).as_uri())
    assert in_both_schemes(page) == []


def test_on_a_telephone_nothing_is_wider_and_axe_finds_nothing(visit: Visit) -> None:
    page = visit("runs", width=360, height=740)
    compared(page)
    for view in ("changes", "lines", "runs", "compare"):
        page.goto(page.url.partition("#")[0] + f"#{view}")
        page.locator(f"#{view}").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 360, view
    page.goto(page.url.partition("#")[0] + "#lines")
    page.locator("svg.history").first.wait_for()
    assert violations(page) == []


def test_without_scripts_changes_and_newest_runs_are_there_and_what_is_not_is_said(visit: Visit) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator(".event").count() == 1
    assert page.locator("table.runs tbody tr").count() == 50
    assert page.locator("noscript p").count() == 3
    assert page.locator("select, input, button").locator("visible=true").count() == 0


def test_runs_are_filtered_searched_and_paged(visit: Visit) -> None:
    page = visit("runs")
    expect(rows(page)).to_have_count(50)
    expect(form(page, "runs").locator(".count")).to_have_text(f"{NIGHTS} runs")
    pager = page.locator('.pager[data-for="runs"]')
    pager.get_by_role("button", name="last").click()
    expect(rows(page)).to_have_count(NIGHTS % 50)
    form(page, "runs").locator("[name=lab]").select_option("0.1.0")
    expect(form(page, "runs").locator(".count")).to_have_text(f"{STEP} of {NIGHTS} runs")
    form(page, "runs").locator("[name=lab]").select_option("")
    form(page, "runs").locator("[name=words]").fill("interrupted NIGHT-001")
    expect(rows(page)).to_have_count(1)
    assert "night-00100" in rows(page).inner_text()
    assert "in no time line" in rows(page).inner_text()
    form(page, "runs").locator("[name=words]").fill("")
    form(page, "runs").locator("[name=changed]").check()
    expect(rows(page)).to_have_count(1)
    form(page, "runs").locator("[name=changed]").uncheck()
    form(page, "runs").locator("[name=scenario]").select_option(f"other {HOSTILE}")
    expect(rows(page)).to_have_count(10)


def test_two_runs_are_compared_by_the_keyboard_alone(visit: Visit) -> None:
    page = compared(visit("runs"))
    place = page.locator("#comparison")
    assert "lab diff night-00126 night-00129" in place.inner_text()
    assert place.locator("table").first.locator("tbody tr").count() == 18
    assert place.locator("svg").first.get_attribute("aria-label")
    ends = [rows(page).nth(each) for each in (0, 3)]
    page.go_back()
    for each in ends:
        assert each.locator("input").is_checked()


def test_runs_that_can_t_be_compared_are_said_to_be(visit: Visit) -> None:
    page = visit("runs")
    rows(page).nth(0).locator("input").check()
    page.locator('.pager[data-for="runs"]').get_by_role("button", name="last").click()
    rows(page).nth(0).locator("input").check()
    page.locator("#chosen a").click()
    expect(page.locator("#comparison .warning").first).to_be_visible()
    differing = page.locator("#comparison table").last.inner_text()
    assert re.search(r"kernel\s+6\.1\.0-40\s+6\.1\.0-41", differing)


def test_a_line_is_drawn_with_its_change_and_read_by_arrow_keys(visit: Visit) -> None:
    page = visit("changes")
    page.locator(".event a.live").first.click()
    figure = page.locator("figure.line")
    expect(figure).to_have_count(1)
    figure.locator("svg.history").wait_for()
    assert figure.locator(".break").count() == 1
    assert figure.locator(".level").count() == 2
    assert figure.locator(".dot").count() == 119
    slider, said = figure.locator("input[type=range]"), figure.locator("output")
    slider.focus()
    page.keyboard.press("Home")
    assert "night-00000" in said.inner_text()
    for _ in range(STEP):
        page.keyboard.press("ArrowRight")
    assert f"night-000{STEP}" in said.inner_text()
    assert "worse from here on" in said.inner_text()
    box = figure.locator("svg.history").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 16, box["y"] + 100)
    assert "night-00119" in said.inner_text()
    first, last = (figure.locator(".dot").nth(each).bounding_box() for each in (0, -1))
    assert first is not None
    assert last is not None
    assert box["x"] <= first["x"] < last["x"] <= box["x"] + box["width"]


def test_lines_are_filtered_down_to_what_changed(visit: Visit) -> None:
    page = visit("lines")
    expect(page.locator("figure.line")).to_have_count(6)
    form(page, "lines").locator("[name=changed]").check()
    expect(page.locator("figure.line")).to_have_count(1)
    page.locator("figure.line svg.history").wait_for()
    form(page, "lines").locator("[name=last]").select_option("30")
    page.locator("figure.line svg.history").wait_for()
    expect(page.locator("figure.line .dot")).to_have_count(30)


def test_what_runs_say_is_shown_as_text(visit: Visit) -> None:
    page = visit("runs")
    form(page, "runs").locator("[name=words]").fill("night-00100")
    expect(rows(page)).to_have_count(1)
    rows(page).locator("a").click()
    page.locator("#told dl").wait_for()
    assert HOSTILE in page.locator("#told p").first.inner_text()
    assert page.locator("[onmouseover]").count() == 0
