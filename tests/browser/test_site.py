"""The documents as a site, in a browser: light and dark, narrow and wide, and without a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from visiting import PATIENCE_MS, violations

ROOT = Path(__file__).parents[2]
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    subprocess.run(words, cwd=ROOT, check=True, timeout=250)
    return folder


@pytest.fixture
def look(browser: Browser, site: Path) -> Iterator[Open]:
    """``look("docs/images.html", width=400)``. What is fetched from outside the site, or fails, fails the test."""
    contexts, complaints = [], []

    def watched(url: str) -> None:
        if not url.startswith((site.as_uri(), "data:")):
            complaints.append(f"fetched: {url}")

    def open_page(place: str, width: int = 1366, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: watched(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{site.as_uri()}/{place}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.nightly)])
def test_pages_fetch_nothing_from_elsewhere_and_fit_a_telephone(look: Open, site: Path, every: int) -> None:
    """By day each fourth document; by night all, and the sources that they link to."""
    page = look("index.html", width=400)
    which = "docs/*.html" if every > 1 else "**/*.html"
    places = sorted(each for each in site.glob(which) if "search.js" in each.read_text())
    assert len(places) > 40
    wide = []
    for place in places[::every]:
        page.goto(place.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > 400:
            wide.append(str(place.relative_to(site)))
    assert wide == []


@pytest.mark.parametrize(
    ("place", "scheme"), [("index.html", "dark"), ("docs/api.html", "light"), ("docs/architecture.html", "dark")]
)
def test_it_can_be_read_by_everybody(look: Open, place: str, scheme: str) -> None:
    page = look(place, color_scheme=scheme)
    assert violations(page, preload=False, least=20) == []  # it would fetch the style sheets again


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_of_the_rooms_can_be_read_in_its_page(look: Open, site: Path, scheme: str) -> None:
    page = look("docs/architecture.html", color_scheme=scheme)
    shown = page.locator("img[src$='rooms.svg']").bounding_box()
    page.goto(f"{site.as_uri()}/docs/rooms.svg")
    found = page.evaluate("""() => [...document.querySelectorAll('.room')].flatMap(room => {
        const box = room.querySelector('rect').getBBox();
        return [...room.querySelectorAll('text')].map(text => {
            const each = text.getBBox();
            const [right, bottom] = [each.x + each.width, each.y + each.height];
            const fits = box.x <= each.x && right <= box.x + box.width && bottom <= box.y + box.height;
            return [fits, each.height, text.textContent];
        });
    })""")
    assert len(found) > 40
    assert [words for fits, _, words in found if not fits] == []
    assert shown is not None
    drawn = page.evaluate("document.documentElement.viewBox.baseVal.width")
    assert min(height for _, height, _ in found) * shown["width"] / drawn >= 10, "letters as they are seen, in pixels"


def test_a_search_leads_to_the_section(look: Open) -> None:
    page = look("docs/images.html")
    page.keyboard.press("/")
    page.keyboard.type("hostile layers")
    page.locator("#found").get_by_role("link", name="Layers are hostile input").click()
    expect(page.get_by_role("heading", name="Layers are hostile input")).to_be_in_viewport()
    page.fill("#search", "qzxqzx")
    expect(page.locator("#found")).to_have_text("Nothing found.")


def test_the_site_can_be_read_without_scripts(look: Open) -> None:
    page = look("index.html", java_script_enabled=False)
    page.get_by_role("link", name="Architecture", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Architecture")
