"""A report as people use it: with the eyes, with a pointer, with the keyboard, with a screen reader, on paper."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from lab.analysis.quantities import format_interval, format_value
from lab.reports.material import stamp

Visit = Callable[..., Page]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ARMS = ("process", "container", "microvm", "vm")


def violations(page: Page, *, only: Sequence[str] = RULES, without: Sequence[str] = ()) -> list[str]:
    options = {"runOnly": only, "rules": {rule: {"enabled": False} for rule in without}}
    found = Axe().run(page, options=options | {"resultTypes": ["violations"]}).response
    assert len(found["passes"]) >= (1 if only != RULES else 20), "axe has looked at the page"
    return [f"{each['id']}: {node['html'][:120]}" for each in found["violations"] for node in each["nodes"]]


def visible(page: Page, selector: str) -> list[bool]:
    """For each element, whether it is shown: asked in one go."""
    shown: list[bool] = page.evaluate(
        "selector => [...document.querySelectorAll(selector)].map(each => each.checkVisibility())", selector
    )
    assert shown
    return shown


def says(page: Page) -> str:
    tip = page.locator("#tip")
    return tip.inner_text() if tip.is_visible() else ""


def figure(page: Page, name: str) -> Locator:
    return page.locator(f'figure[data-chart="{name}"]')


def toggle(page: Page, arm: str) -> Locator:
    return page.locator(f'.bar button[data-for="{arm}"]')


def test_axe_finds_no_violation(visit: Visit) -> None:
    page = visit("sample")
    page.locator("table.matrix details").first.locator("summary").click()
    toggle(page, "process").click()
    figure(page, "overview").locator(".mark").first.focus()
    assert says(page)
    assert violations(page) == []


def test_axe_finds_enough_contrast_in_the_dark(visit: Visit) -> None:
    page = visit("sample", color_scheme="dark")
    toggle(page, "process").click()
    assert violations(page, only=["color-contrast"]) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_none_in_the_figures_of_factors(visit: Visit, scheme: str) -> None:
    page = visit("factorial", color_scheme=scheme)
    figure(page, "interactions").locator(".mark").first.focus()
    assert says(page)
    assert violations(page) == []


def test_axe_finds_none_among_many_backends_on_a_telephone(visit: Visit) -> None:
    page = visit("crowded", width=360, height=740)
    assert violations(page, without=["color-contrast"]) == []  # its colours are the other's


@pytest.mark.parametrize("name", ["density", "ladder", "noisy", "surface"])
def test_a_study_s_page_is_for_everybody_too(visit: Visit, name: str) -> None:
    """On a telephone, all that can be opened open; then its colours in the dark."""
    page = visit(name, width=360, height=740)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.emulate_media(color_scheme="dark")
    assert violations(page, only=["color-contrast"]) == []


def test_axe_can_find_one(visit: Visit) -> None:
    page = visit("sample")
    page.evaluate("document.querySelector('main').innerHTML = '<button></button>'")
    page.evaluate("document.querySelector('.lead').style.color = '#bbbbbb'")
    assert {each.partition(":")[0] for each in violations(page)} == {"button-name", "color-contrast"}


@pytest.mark.parametrize("name", ["sample", "crowded", "factorial"])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_nothing_is_wider_than_a_telephone(visit: Visit, name: str, scripts: bool) -> None:
    page = visit(name, width=360, height=740, java_script_enabled=scripts)
    wide = "document.documentElement.scrollWidth"
    assert (page.evaluate(wide) if scripts else page.locator("html").evaluate("each => each.scrollWidth")) == 360


def test_without_scripts_everything_is_there_only_still(visit: Visit) -> None:
    page, live = visit("sample", java_script_enabled=False), visit("sample")
    assert page.locator("button, select, input, .mark").count() == 0
    assert page.locator("figure").count() == live.locator("figure.live").count() == 6
    assert all(picture.bounding_box()["width"] > 1000 for picture in page.locator("figure img").all())
    read, shown = (each.locator("main").inner_text() for each in (page, live))
    missing = [text for text in map(str.strip, re.split(r"[\n\t]", read)) if text not in shown]
    assert missing == []
    answer = page.locator("table.matrix details").first
    answer.locator("summary").click()
    assert answer.locator("dl").is_visible()


def test_a_mark_tells_value_unit_interval_n_and_accelerator(visit: Visit, reports: dict[str, Any]) -> None:
    page, material = visit("sample"), reports["sample"].material
    marks = figure(page, "overview").locator(".panel").first.locator(".mark").all()
    assert len(marks) == len(material.arms)
    for each, arm in zip(marks, material.arms, strict=True):
        value = material.value("boot.total", arm.label)
        assert value is not None
        box = each.locator(".shape").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for words in (arm.label, stamp(arm), format_value(value.median, value.unit), f"n = {value.n}",
                      format_interval(value.low, value.high, value.unit)):  # fmt: skip
            assert words in says(page)
        assert each.get_attribute("aria-label") == ". ".join(says(page).splitlines())
    page.mouse.move(3, 300)
    assert says(page) == ""


def test_bars_are_as_long_as_their_values_and_failures_are_told(visit: Visit, reports: dict[str, Any]) -> None:
    page, material = visit("crowded"), reports["crowded"].material
    marks = figure(page, "cpu").locator(".panel").first.locator(".mark").all()
    lengths = [float(each.locator("rect.shape").get_attribute("width") or 0) for each in marks]
    values = [material.value("cpu.boot", arm.label) for arm in material.arms]
    ratios = [length / value.median for length, value in zip(lengths, values, strict=True) if value is not None]
    assert len(ratios) == 12
    assert ratios == pytest.approx([ratios[0]] * 12, rel=1e-6)
    totals = figure(page, "overview").locator(".panel").first
    assert "1 timed out" in (totals.get_by_label(re.compile(r"^microvm · TCG")).get_attribute("aria-label") or "")


def test_an_effect_tells_how_large_and_how_sure_it_is_and_on_what_it_depends(
    visit: Visit, reports: dict[str, Any]
) -> None:
    page, table = visit("factorial"), reports["factorial"].material.effects
    mains = table[(table["other"] == "") & (table["level"] != "*") & (table["quantity"] != "teardown.total")]
    marks = figure(page, "factors").locator(".mark")
    assert marks.count() == len(mains)
    boots = figure(page, "factors").locator(".panel").filter(has_text="firmware on boot")
    ovmf = boots.get_by_label(re.compile("firmware ovmf ÷ direct"))
    ovmf.locator(".shape").hover()
    row = mains[(mains["quantity"] == "boot.total") & (mains["level"] == "ovmf")].iloc[0]
    for words in (f"{row['ratio']:.2f} ×", f"{row['low']:.2f}–{row['high']:.2f} ×", "n = 8 blocks", "claimed",
                  "depends on cpus", "all levels together: p < 0.001"):  # fmt: skip
        assert words in says(page)
    ticks = {text.text_content(): text.bounding_box() for text in boots.locator("text.tick").all()[:3]}
    one, two = (ticks[name]["x"] + ticks[name]["width"] / 2 for name in ("1", "2"))
    box = ovmf.locator(".shape").bounding_box()
    assert (box["x"] + box["width"] / 2 - one) / (two - one) == pytest.approx(math.log2(row["ratio"]), abs=0.02)
    hollow = boots.get_by_label(re.compile("firmware seabios ÷ direct")).locator(".shape")
    assert (hollow.get_attribute("fill"), ovmf.locator(".shape").get_attribute("fill")) == ("var(--card)", "#e69f00")


def test_lines_that_are_not_parallel_tell_each_combination_and_go_with_their_backend(visit: Visit) -> None:
    page = visit("factorial")
    crossing = figure(page, "interactions")
    assert crossing.locator("polyline").count() == 2
    last = crossing.get_by_label(re.compile(r"cpus=1, firmware=ovmf: 2\.\d+ s"))
    last.locator(".shape").hover()
    assert says(page).startswith("microvm · TCG emulation")
    ticks = crossing.locator("text.tick").all_text_contents()
    crossing.get_by_role("button", name="logarithmic axis").click()
    assert "0" in crossing.locator("text.tick").all_text_contents() != ticks
    of_both = figure(page, "factors").locator(".mark").count()
    toggle(page, "microvm").click()
    assert crossing.locator(".mark").count() == 0
    assert figure(page, "factors").locator(".mark").count() == 4 < of_both


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit("sample")
    focus = "document.activeElement.dataset.for ?? document.activeElement.getAttribute('aria-label') ?? ''"
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(str(page.evaluate(focus)))
    assert reached[:4] == list(ARMS)
    first = next(index for index, words in enumerate(reached) if words.startswith("process · native"))
    assert says(page) == "" or first == 7
    for _ in range(7 - first):
        page.keyboard.press("Shift+Tab")
    assert "n = 6" in says(page)
    page.keyboard.press("ArrowRight")
    assert says(page).startswith("container · native")
    page.keyboard.press("Escape")
    assert says(page) == ""
    page.keyboard.press("End")
    assert "vm · TCG emulation" in says(page)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")  # nothing is before the first
    assert says(page).startswith("process · native")


def test_backends_are_left_out_everywhere_and_come_back(visit: Visit) -> None:
    page = visit("sample")
    total = page.locator(".mark").count()
    of_vm = page.locator('.mark[data-of="vm"]').count()
    assert of_vm > 20
    toggle(page, "vm").focus()
    page.keyboard.press("Enter")
    assert toggle(page, "vm").get_attribute("aria-pressed") == "false"
    assert page.locator(".bar [role=status]").first.inner_text() == "3 of 4 shown"
    assert page.locator(".mark").count() == total - of_vm
    assert len(visible(page, '[data-arm="vm"]')) > 50
    assert not any(visible(page, '[data-arm="vm"]'))
    assert page.locator('th[data-arm="microvm"]').first.is_visible()
    page.keyboard.press("Enter")
    assert page.locator(".mark").count() == total
    for arm in ARMS:
        toggle(page, arm).click()
    assert [toggle(page, arm).get_attribute("aria-pressed") for arm in ARMS] == ["false", "false", "false", "true"]
    page.get_by_role("button", name="show all").click()
    assert page.locator(".mark").count() == total
    assert page.evaluate("document.activeElement.dataset.for") == "process"  # not lost with its button


def test_an_axis_becomes_logarithmic_and_linear_again(visit: Visit) -> None:
    page = visit("sample", width=700)  # one panel in each row, wide enough for a mark between decades
    panel = figure(page, "overview").locator(".panel").first
    button = panel.get_by_role("button", name="logarithmic axis")
    ticks = panel.locator("text.tick").all_text_contents()
    assert ticks[0] == "0"
    assert panel.locator("rect.shape").count() == 4
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert panel.locator("rect.shape").count() == 1  # the container's marker is a square; no bar is left
    assert "0" not in panel.locator("text.tick").all_text_contents()
    button.click()
    assert panel.locator("text.tick").all_text_contents() == ticks
    wide = figure(page, "boot-distribution").locator("text.tick").all()  # starts logarithmic
    places = {text.text_content(): text.bounding_box()["x"] + text.bounding_box()["width"] / 2 for text in wide}
    decade, triple = places["1 s"] - places["100 ms"], places["300 ms"] - places["100 ms"]
    assert triple / decade == pytest.approx(math.log10(3), abs=0.01)


def test_the_matrix_is_filtered_by_words_group_and_answer(visit: Visit) -> None:
    page = visit("sample")
    bar, rows = page.locator(".filter"), page.locator("table.matrix tr[id]")

    def shown() -> list[Locator]:
        seen = visible(page, "table.matrix tr[id]")
        return [rows.nth(index) for index, is_seen in enumerate(seen) if is_seen]

    total = rows.count()
    assert len(shown()) == total > 20
    bar.get_by_label("Group").select_option("privilege")
    of_group = shown()
    assert 0 < len(of_group) < total
    assert bar.get_by_role("status").inner_text() == f"{len(of_group)} of {total} questions"
    bar.get_by_label("Answer").select_option("reaches the host")
    assert all(row.locator(".cell.open").count() for row in shown())
    toggle(page, "process").click()  # an answer counts as long as its column is shown
    assert len(shown()) < len(of_group)
    bar.get_by_label("Answer").select_option("any answer")
    bar.get_by_label("Words").fill("set-clock")
    (row,) = shown()
    bar.get_by_role("button", name="open all").click()
    cell = row.locator("td[data-arm=container] dl")
    assert [cell.locator("dt").nth(index).inner_text() for index in range(4)] == [
        "Expected", "Mechanism", "Evidence", "Asked",
    ]  # fmt: skip
    assert "EPERM" in cell.inner_text()
    bar.get_by_label("Words").fill("no such words")
    assert shown() == []
    assert not page.locator("table.matrix tr.group").first.is_visible()


def test_charts_are_as_dark_as_the_page_and_paper_is_light(visit: Visit) -> None:
    page = visit("factorial", color_scheme="dark")
    look = """name => {
        const style = getComputedStyle(document.querySelector(name));
        return [style.backgroundColor, style.fill];
    }"""

    def looks(selector: str) -> list[str]:
        found: list[str] = page.evaluate(look, selector)
        return found

    card, bar = looks("figure.live")[0], looks('.mark[data-of="container"] rect.shape')[1]
    assert (card, looks("figure.live .panel svg")[1]) == ("rgb(31, 36, 40)", "rgb(236, 236, 236)")
    assert bar == "rgb(63, 159, 220)"
    page.emulate_media(media="print", color_scheme="dark")
    assert looks("body")[0] == looks("figure.live")[0] == "rgb(255, 255, 255)"
    page.emulate_media(media="screen", color_scheme="light")
    assert looks('.mark[data-of="container"] rect.shape')[1] == "rgb(0, 114, 178)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_is_sorted_from_the_keyboard_and_goes_back(visit: Visit, scheme: str) -> None:
    page = visit("factorial", color_scheme=scheme)
    table = page.get_by_role("table", name="Main effects")
    heading = table.get_by_role("columnheader", name="container")

    def numbers() -> list[float | None]:
        texts = table.locator("tbody td:nth-child(2) b").all_text_contents()
        return [None if text == "–" else float(re.sub(r"[^\d.]", "", text)) for text in texts]

    before = numbers()
    known = sorted(number for number in before if number is not None)
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert numbers() == [*known, *[None] * (len(before) - len(known))]
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"
    assert numbers() == [*known[::-1], *[None] * (len(before) - len(known))]
    assert violations(page) == []
    names = table.get_by_role("columnheader", name="factor, and what it acts on")
    names.get_by_role("button").click()
    assert (heading.get_attribute("aria-sort"), names.get_attribute("aria-sort")) == (None, "ascending")
    said = table.locator("tbody th").evaluate_all("all => all.map(each => each.firstChild.textContent)")
    assert said == sorted(said) != said[::-1]
    names.get_by_role("button").click()
    names.get_by_role("button").click()
    assert numbers() == before
    assert table.locator("[aria-sort]").count() == 0


def test_sorting_knows_units(visit: Visit, reports: dict[str, Any]) -> None:
    page, material = visit("sample"), reports["sample"].material
    table = page.locator("table.headline")
    for _ in range(2):
        table.get_by_role("button", name="time to first answer").click()
    boots = {arm.label: material.value("boot.total", arm.label).median for arm in material.arms}
    backends = [
        text.partition("native")[0].partition("TCG")[0] for text in table.locator("tbody th").all_text_contents()
    ]
    assert backends == sorted(boots, key=lambda name: boots[name], reverse=True)


def test_paper_gets_the_pictures_and_every_backend(visit: Visit) -> None:
    page = visit("sample")
    toggle(page, "vm").click()
    page.emulate_media(media="print")
    assert all(picture.bounding_box()["width"] > 600 for picture in page.locator("figure img").all())
    for gone in (".bar", ".panels", "nav", "#tip", "figcaption"):
        assert not any(visible(page, gone)), gone
    assert all(visible(page, '[data-arm="vm"]'))


def test_motion_is_left_out_where_it_is_not_wanted(visit: Visit) -> None:
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert visit("sample", reduced_motion="reduce").evaluate(behaviour) == "auto"
    assert visit("sample", reduced_motion="no-preference").evaluate(behaviour) == "smooth"


def test_a_resized_window_gets_other_pictures(visit: Visit) -> None:
    page = visit("sample")
    svg = figure(page, "overview").locator(".panel svg").first
    before = svg.get_attribute("width") or ""
    page.set_viewport_size({"width": 500, "height": 900})
    expect(svg).not_to_have_attribute("width", before)
    assert float(svg.get_attribute("width") or 0) < 500
