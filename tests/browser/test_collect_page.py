"""The page of many students' runs: it fetches nothing, fits, and axe finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from collected import a_class
from playwright.sync_api import Browser
from visiting import CONTRAST, violations

from lab.classroom.collect.agreement import collected
from lab.classroom.collect.intake import hand_ins, runs_in
from lab.classroom.collect.page import html
from lab.classroom.collect.told import told


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collected")
    runs = [
        (each.name, told(name, files)) for each in hand_ins([a_class(root)]) for name, files in runs_in(each.path)
    ]
    file = root / "collected.html"
    file.write_text(html(collected(runs, [("<mallory>", "it holds no run")])))
    return file


@pytest.mark.parametrize("width", [390, 1366, 1920])
def test_it_fits_and_axe_finds_nothing(browser: Browser, page_file: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme="light")
    page, fetched = context.new_page(), []
    page.on("request", lambda asked: fetched.append(asked.url))
    page.goto(page_file.as_uri())
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, only=CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.locator(".picture img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 900
    assert [url for url in fetched if not url.startswith(("data:", page_file.as_uri()))] == []
    context.close()
