"""A lesson with a teacher, a projector and thirty phones, of which two drop out and one cheats."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from classes import Served, serving
from playwright.sync_api import Browser, BrowserContext, Page, expect
from visiting import PATIENCE_MS, violations

PHONE, LAPTOP, PROJECTOR = (390, 844), (1366, 768), (1920, 1080)
CLASS = 30


class Room:
    """A served lesson, and everybody's browser. What a page complains of, or fetches elsewhere, is written down."""

    def __init__(self, browser: Browser, served: Served) -> None:
        self.browser, self.served = browser, served
        self.complaints: list[str] = []
        self.contexts: list[BrowserContext] = []

    def page(
        self, path: str, size: tuple[int, int], context: BrowserContext | None = None, scheme: str = "light"
    ) -> Page:
        if context is None:
            context = self.browser.new_context(
                viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
            )
            self.contexts.append(context)
        page = context.new_page()
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", lambda said: self.complaints.append(said.text) if "Security Policy" in said.text else None)
        page.on("request", lambda asked: self.foreign(asked.url))
        page.goto(self.served.address + path)
        return page

    def foreign(self, url: str) -> None:
        if not url.startswith((self.served.address, "data:")):
            self.complaints.append(f"fetched {url}")

    def phone(self, name: str, scheme: str = "light") -> Page:
        page = self.page(f"/#{self.served.code}", PHONE, scheme=scheme)
        page.get_by_label("A nickname").fill(name)
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("heading", name="You are in.")).to_be_visible(timeout=PATIENCE_MS)
        return page


@pytest.fixture
def room(browser: Browser) -> Iterator[Room]:
    with serving("speed", light=True) as served:
        room = Room(browser, served)
        yield room
        for context in room.contexts:
            context.close()
        assert room.complaints == []


def fits(page: Page) -> bool:
    """Nothing has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def whole(page: Page) -> bool:
    """Nothing has to be scrolled at all: nobody does at a projector."""
    return bool(page.evaluate("document.documentElement.scrollHeight <= innerHeight + 1"))


def guess(page: Page, number: float) -> None:
    page.get_by_label(re.compile("Your guess")).fill(str(number))
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status")).to_contain_text("Sent:", timeout=PATIENCE_MS)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_lesson_plays_with_thirty_phones(room: Room) -> None:
    teacher = room.page(f"/teach#{room.served.key}", LAPTOP)
    expect(teacher.get_by_role("button", name="Ask the first question")).to_be_visible(timeout=PATIENCE_MS)
    assert "#" not in teacher.url, "the key does not stay in the address"
    stranger = room.page("/screen", LAPTOP)
    expect(stranger.get_by_role("alert")).to_contain_text("the teacher's", timeout=PATIENCE_MS)
    stranger.close()
    screen = room.page("/screen", PROJECTOR, teacher.context)
    expect(screen.get_by_text(room.served.code)).to_be_visible(timeout=PATIENCE_MS)
    assert violations(screen) == []
    phones = [room.phone(f"student {number}") for number in range(CLASS)]
    expect(screen.get_by_role("status")).to_have_text(f"{CLASS} are here", timeout=PATIENCE_MS)
    assert violations(phones[0]) == []

    def step(name: str) -> None:
        teacher.locator("#steps").get_by_role("button", name=name).click()

    step("Ask the first question")
    for place, phone in enumerate(phones):
        guess(phone, [10, 45, 400, 2000][place % 4])
    expect(screen.get_by_role("status")).to_contain_text(f"{CLASS} of {CLASS}", timeout=PATIENCE_MS)
    assert "49.7" not in screen.content() + phones[0].content() + teacher.locator("main svg").inner_html()
    for page in (phones[0], teacher, screen):
        assert violations(page) == []
        assert fits(page)

    lost, cheat = phones[4:6], phones[6]
    for phone in lost:
        phone.goto("about:blank")
    expect(teacher.get_by_text(f"{CLASS - 2} connected")).to_be_visible(timeout=PATIENCE_MS)
    step("Close the vote")
    expect(cheat.get_by_text("Talk to your neighbour")).to_be_visible(timeout=PATIENCE_MS)
    tried = """async sent => (await fetch(sent.path, {method: "POST", body: JSON.stringify(sent.body)})).status"""
    late = {"question": 0, "vote": 1, "guess": 49.7}
    act = {"action": "reveal", "phase": "talk", "question": 0}
    assert cheat.evaluate(tried, {"path": "/guess", "body": late}) == 409
    assert cheat.evaluate(tried, {"path": "/guess", "body": late | {"vote": 2}}) == 409
    assert cheat.evaluate(tried, {"path": "/teach/act", "body": act}) == 403

    step("Show guesses on the projector")
    expect(screen.locator("svg.numbers rect.first")).to_have_count(4, timeout=PATIENCE_MS)
    for size in (LAPTOP, PROJECTOR):
        screen.set_viewport_size({"width": size[0], "height": size[1]})
        assert whole(screen)
    step("Second vote")
    for phone in phones[:4]:
        expect(phone.get_by_text("Second vote")).to_be_visible(timeout=PATIENCE_MS)
        guess(phone, 50)
    for phone in lost:
        phone.goto(room.served.address)
        expect(phone.get_by_label(re.compile("Your guess"))).to_be_visible(timeout=PATIENCE_MS)
    step("Reveal")
    expect(screen.get_by_text("49.7 ms", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    expect(screen.locator("svg.numbers line.measured")).to_have_count(1)
    expect(screen.locator("svg.numbers rect.second").first).to_be_visible()
    expect(lost[0].get_by_text("Your guess: 10 ms")).to_be_visible(timeout=PATIENCE_MS)
    expect(cheat.get_by_text("✗ Your guess: 400 ms")).to_be_visible(timeout=PATIENCE_MS)
    expect(phones[2].get_by_text("✓ Your second guess: 50 ms")).to_be_visible(timeout=PATIENCE_MS)
    for page in (phones[2], teacher, screen):
        assert violations(page) == []
        assert fits(page)
    assert whole(screen)

    step("Show the figure")
    expect(screen.get_by_role("img", name=re.compile("^Every start"))).to_be_visible(timeout=PATIENCE_MS)
    assert screen.locator("figure img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 900
    step("Show the race")
    race = screen.frame_locator("iframe")
    expect(race.get_by_role("button", name="Stop")).to_be_visible(timeout=PATIENCE_MS)
    frame = screen.locator("iframe").element_handle()
    room.served.join("late")  # somebody who joins does not begin the race again
    expect(screen.get_by_text(f"{CLASS + 1} here")).to_be_visible(timeout=PATIENCE_MS)
    assert frame.evaluate("frame => frame.isConnected")
    for view, seen in (("race", race.get_by_role("button", name="Again")), ("figure", screen.locator("figcaption"))):
        if view == "figure":
            step("Show the figure")
        expect(seen).to_be_visible(timeout=PATIENCE_MS)
        for size in (PROJECTOR, LAPTOP):
            screen.set_viewport_size({"width": size[0], "height": size[1]})
            assert violations(screen) == []
            assert whole(screen)
            assert fits(screen)
    assert phones[2].locator("iframe, figure").count() == 0
    screen.set_viewport_size({"width": PROJECTOR[0], "height": PROJECTOR[1]})
    step("Show the answer again")
    expect(screen.locator("svg.numbers line.measured")).to_have_count(1, timeout=PATIENCE_MS)

    expect(teacher.locator("details")).to_have_attribute("open", "")
    step("Next question")
    expect(teacher.get_by_text("Question 2 of 5: vote")).to_be_visible(timeout=PATIENCE_MS)
    expect(teacher.locator("details")).not_to_have_attribute("open", "")
    room.served.join("later")  # which draws the page again
    expect(teacher.get_by_text("later (away)")).to_be_visible(timeout=PATIENCE_MS)
    expect(teacher.locator("details")).not_to_have_attribute("open", "")
    for place, phone in enumerate(phones[:8]):
        phone.locator(".pick button").nth(place % 4).click()
        expect(phone.get_by_role("status")).to_contain_text("Sent:", timeout=PATIENCE_MS)
    assert violations(phones[0]) == []
    step("Reveal")
    expect(screen.locator("li.right")).to_contain_text("neither is proven", timeout=PATIENCE_MS)
    assert violations(screen) == []
    assert whole(screen)


def test_pages_in_the_dark_and_for_whoever_has_no_right(room: Room) -> None:
    phone = room.phone("Ada", "dark")
    assert violations(phone) == []
    stranger = room.page("/teach", LAPTOP)
    expect(stranger.get_by_role("status")).to_contain_text("the teacher", timeout=PATIENCE_MS)
    expect(stranger.get_by_role("button")).to_have_count(0)
    joining = room.page("/", PHONE, scheme="dark")
    joining.get_by_label("The code on the screen").fill("AAAAAA")
    joining.get_by_label("A nickname").fill("<b>x</b>")
    joining.get_by_role("button", name="Join").click()
    expect(joining.get_by_role("status")).to_contain_text("not the code", timeout=PATIENCE_MS)
    assert violations(joining) == []


def test_what_is_being_measured_is_followed_and_keeps_the_reveal_waiting(browser: Browser) -> None:
    reading, writing = os.pipe()
    with serving("speed", light=True, live=reading) as served:
        os.close(reading)
        room = Room(browser, served)
        teacher = room.page(f"/teach#{served.key}", LAPTOP)
        screen = room.page("/screen", PROJECTOR, teacher.context)
        os.write(writing, b'{"event": "progress", "done": 3, "expected": 24}\n')
        os.write(writing, b'{"event": "doing", "what": "block 1, vm: booting"}\n')
        for page in (teacher, screen):
            expect(page.get_by_text("block 1, vm: booting")).to_be_visible(timeout=PATIENCE_MS)
            expect(page.get_by_role("progressbar", name="Measured so far")).to_have_attribute("value", "3")
            assert violations(page) == []
        teacher.get_by_role("button", name="Ask the first question").click()
        waits = teacher.get_by_role("button", name="Reveal: waits for the run")
        expect(waits).to_be_disabled(timeout=PATIENCE_MS)
        assert violations(teacher) == []
        for size in (PROJECTOR, LAPTOP):
            screen.set_viewport_size({"width": size[0], "height": size[1]})
            assert violations(screen) == []
            assert whole(screen)
        os.close(writing)
        expect(teacher.get_by_role("button", name="Reveal", exact=True)).to_be_enabled(timeout=PATIENCE_MS)
        expect(screen.get_by_text("has ended early")).to_be_visible(timeout=PATIENCE_MS)
        assert violations(screen) == []
        for context in room.contexts:
            context.close()
        assert room.complaints == []
