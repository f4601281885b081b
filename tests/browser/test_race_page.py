"""The page of a race: it waits, runs at true speed and slower, says who was first, and is read by anybody."""

from __future__ import annotations

import re
import select
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from synthetic import write_run
from visiting import PATIENCE_MS, SAMPLE, is_fetched, violations

from lab.classroom.race.model import Race, Round
from lab.classroom.race.page import live, write
from lab.classroom.race.recorded import recorded
from lab.classroom.race.told import data
from lab.classroom.web.address import listen, url
from lab.commands.race.serving import Page as Showing
from lab.commands.race.serving import served

SIZES = {"projector": (1920, 1080), "laptop": (1366, 768), "phone": (390, 844)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``sample``: the run that comes with lab. ``unlucky``: a made-up one in which something failed."""
    root = tmp_path_factory.mktemp("races")
    unlucky = write_run(root).path
    return {
        "sample": write(recorded(SAMPLE), root / "sample.html", SAMPLE / "report.html", "lab report sample"),
        "unlucky": write(recorded(unlucky), root / "unlucky.html", None, f"lab report {unlucky.name}"),
        "seven": write(crowded(recorded(SAMPLE), 3), root / "seven.html", None, "lab report sample"),
        "twelve": write(crowded(recorded(SAMPLE), 8), root / "twelve.html", None, "lab report sample"),
    }


def crowded(race: Race, more: int) -> Race:
    """``race`` with so many more lanes like the container's, which are as fast and so have a slow second one each."""

    def grown(one: Round) -> Round:
        (like,) = (lane for lane in one.lanes if lane.name == "container")
        return replace(one, lanes=(*one.lanes, *(replace(like, name=f"container-{each}") for each in range(more))))

    return replace(race, rounds=tuple(map(grown, race.rounds)))


@pytest.fixture
def visit(browser: Browser, pages: dict[str, Path]) -> Iterator[Callable[..., Page]]:
    """A race in a page of its own; its clock ``stands`` until the test lets it run, or is real, as axe needs it."""
    contexts, complaints = [], []

    def open_page(name: str, size: str = "laptop", *, stands: bool = True, **options: object) -> Page:
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page, address = context.new_page(), pages[name].as_uri()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if is_fetched(asked.url, address) else None)
        if stands:
            page.clock.install()
        page.goto(address)
        if stands:
            page.clock.pause_at(page.evaluate("Date.now()") + 1000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def whole(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollHeight <= innerHeight + 1"))


def lane(page: Page, index: int) -> list[str]:
    """The standing of each station of a lane, by its class."""
    cells = page.locator("#lanes > li").nth(index).locator(".cell")
    return [str(cell.get_attribute("class")).removeprefix("cell ") for cell in cells.all()]


def test_it_waits_and_then_runs_at_true_speed(visit: Callable[..., Page]) -> None:
    page = visit("sample")
    page.clock.run_for(20_000)
    assert lane(page, 4) == ["ahead"] * 6, "the microvm waits"
    expect(page.locator("#podium li")).to_have_count(0)
    page.keyboard.press(" ")
    page.clock.run_for(1_000)
    names = [each.split("\n")[0] for each in page.locator("#lanes .who").all_inner_texts()]
    assert names == ["● process", "100 × slower", "■ container", "100 × slower", "▲ microvm", "◆ vm"]
    assert lane(page, 0) == ["passed", "none", "passed", "passed", "passed", "passed"]
    assert lane(page, 1) == ["passed", "none", "passed", "passed", "underway", "ahead"], "10 ms of it have passed"
    assert lane(page, 4) == ["passed", "passed", "underway", "ahead", "ahead", "ahead"]
    expect(page.locator("#podium li")).to_have_count(2)
    expect(page.get_by_role("status")).to_contain_text("1st process")
    page.clock.run_for(9_000)
    expect(page.locator("#podium li")).to_have_count(4)
    expect(page.locator("#podium .p1")).to_contain_text("process")
    expect(page.locator("#clock")).to_have_text("8.146 s")


def test_its_keys(visit: Callable[..., Page]) -> None:
    page = visit("sample")
    page.keyboard.press(" ")
    page.clock.run_for(500)
    page.keyboard.press(" ")
    stood = page.locator("#clock").inner_text()
    page.clock.run_for(5_000)
    assert page.locator("#clock").inner_text() == stood
    page.keyboard.press("+")
    expect(page.locator("#told")).to_contain_text("2 × true speed")
    page.keyboard.press(" ")
    page.clock.run_for(5_000)
    expect(page.locator("#podium li")).to_have_count(4)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#told")).to_contain_text("round 2 of 6")
    expect(page.locator("#podium li")).to_have_count(0)
    page.keyboard.press("r")
    page.clock.run_for(100)
    assert float(page.locator("#clock").inner_text().removesuffix(" s")) < 1
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#told")).to_contain_text("round 1 of 6")
    page.get_by_role("button", name="Next round →").click()
    expect(page.locator("#told")).to_contain_text("round 2 of 6")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=() if (one + other) % 2 else pytest.mark.nightly)
        for one, name in enumerate(("sample", "unlucky", "seven", "twelve"))
        for other, size in enumerate(SIZES)
    ],
)  # by day each race at one size or two, each size with two races
def test_it_fits_and_axe_finds_nothing(visit: Callable[..., Page], name: str, size: str) -> None:
    page = visit(name, size, stands=False)
    for keys in ([], [" ", "-", "-"], ["+"] * 8):
        for key in keys:
            page.keyboard.press(key)
        if len(keys) > 3:
            expect(page.locator("#told")).to_contain_text("over")
        assert fits(page)
        assert whole(page) or size == "phone", "nothing is scrolled in a lecture"
        assert violations(page) == []


def test_what_failed_says_so(visit: Callable[..., Page]) -> None:
    page = visit("unlucky")
    page.keyboard.press("ArrowRight")
    page.clock.run_for(60_000)
    expect(page.locator(".failed .course")).to_contain_text("did not finish")
    expect(page.locator("#podium li")).to_have_count(3)


def test_without_motion_numbers_change_twice_a_second(visit: Callable[..., Page]) -> None:
    page = visit("sample", reduced_motion="reduce")
    page.keyboard.press(" ")
    seen = set()
    for _ in range(20):
        page.clock.run_for(50)
        seen.add(page.locator("#clock").inner_text())
    assert len(seen) <= 3
    moving = "getComputedStyle(document.querySelector('.underway'), '::before').animationName"
    assert page.evaluate(moving) == "none"


def test_without_scripts_the_times_are_there(browser: Browser, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["sample"].as_uri())
    page.locator("summary").click()
    expect(page.locator("tbody tr")).to_have_count(24)
    link = str(page.get_by_role("link", name="the report").get_attribute("href"))
    assert (pages["sample"].parent / link).resolve() == SAMPLE / "report.html"
    context.close()


LEGIBLE_PIXELS = 18
"""Of a letter on a projector's page that is 1080 high: 1/60, as slides have it at the least."""


def test_many_lanes_are_read_from_the_last_row(visit: Callable[..., Page]) -> None:
    page = visit("seven", "projector", stands=False)
    expect(page.locator("#heads")).to_contain_text("first correct answer")
    for part in ("#heads .long", ".who b", ".took", ".watch", "#lanes .who small"):
        for each in page.locator(part).all():
            if each.is_visible():
                size = each.evaluate("one => parseFloat(getComputedStyle(one).fontSize)")
                assert size >= LEGIBLE_PIXELS, (part, size)


@pytest.fixture
def showing() -> Iterator[Showing]:
    with listen("127.0.0.1", 0) as at, served(at, live("An application", "lab compare x"), url(at)) as page:
        yield page


def is_started(showing: Showing) -> bool:
    return bool(select.select([showing._starts], [], [], 120)[0])


def test_a_round_that_was_over_at_once_is_seen_all_the_same(browser: Browser, showing: Showing) -> None:
    found = recorded(SAMPLE, ["process", "container"], rounds=2)
    first, second = (data(replace(found, rounds=found.rounds[: count + 1])) for count in range(2))
    showing.tell(race=first, place=0, rounds=2, state="ready", at=-1.0)
    page = browser.new_context().new_page()
    page.goto(showing.link)
    expect(page.locator("#told")).to_contain_text("ready")
    showing.tell(race=second, place=1, rounds=2, state="ready", at=-1.0)
    expect(page.locator("#told")).to_contain_text("running · live · round 1 of 2")
    expect(page.locator("#podium li")).to_have_count(2)
    page.context.close()


@pytest.mark.nightly
def test_a_race_that_happens_is_started_by_its_link_and_seen_by_everybody(browser: Browser, showing: Showing) -> None:
    complaints: list[str] = []
    found = recorded(SAMPLE, rounds=2)
    first, second = found.rounds

    def begun(one: Round, marks: int) -> Round:
        """Nobody has come further than to so many stations."""
        return replace(one, lanes=tuple(replace(lane, marks=lane.marks[:marks]) for lane in one.lanes))

    def tell(state: str, rounds: tuple[Round, ...], place: int, at: float = -1.0) -> None:
        showing.tell(race=data(replace(found, rounds=rounds)), place=place, rounds=2, state=state, at=at)

    def open_page(address: str, size: str) -> Page:
        width, height = SIZES[size]
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    tell("ready", (begun(first, 0),), 0)
    address = showing.link.partition("#")[0]
    mine, phone = open_page(showing.link, "projector"), open_page(address, "phone")
    for page in (mine, phone):
        expect(page.locator("#told")).to_contain_text("ready · live · round 1 of 2")
        assert violations(page) == []
        assert fits(page)
    assert mine.url == address, "the key has left the address"
    expect(phone.locator("#go")).to_be_hidden()
    phone.keyboard.press(" ")
    mine.keyboard.press(" ")
    assert is_started(showing)
    showing.wait()
    tell("running", (begun(first, 2),), 0, 0.5)
    for page in (mine, phone):
        expect(page.locator("#told")).to_contain_text("running · live")
        standings = ["passed", "none", "passed", "underway", "ahead", "ahead"]
        cells = page.locator("#lanes > li").nth(0).locator(".cell")
        expect(cells).to_have_class([f"cell {standing}" for standing in standings])
        expect(page.locator("#podium li")).to_have_count(0)
    stood = mine.locator("#clock").inner_text()
    expect(mine.locator("#clock")).not_to_have_text(stood)
    assert violations(mine) == []
    assert whole(mine)
    mine.keyboard.press("-")
    expect(mine.locator("#told")).to_contain_text("live")
    tell("stopping", (first,), 0, 8.6)
    tell("ready", (first, begun(second, 0)), 1)
    for page in (mine, phone):
        expect(page.locator("#podium li")).to_have_count(4)
        expect(page.locator("#told")).to_contain_text("round 1 of 2")
    expect(mine.get_by_role("button", name="Next round")).to_be_enabled(timeout=15_000)
    mine.keyboard.press(" ")
    expect(mine.locator("#told")).to_contain_text("ready · live · round 2 of 2")
    mine.reload()
    mine.get_by_role("button", name="Start").click()
    assert is_started(showing)
    tell("running", (first, begun(second, 1)), 1, 0.2)
    expect(phone.locator("#told")).to_contain_text("round 2 of 2")
    tell("done", (first, second), 1)
    for page in (mine, phone):
        expect(page.locator("#told")).to_contain_text("over · true speed · round 2 of 2")
        expect(page.locator("#wins")).to_contain_text("First in 2 rounds")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#told")).to_contain_text(re.compile("running .* round 1 of 2"))
        assert violations(page) == []
        page.context.close()
    assert complaints == []
