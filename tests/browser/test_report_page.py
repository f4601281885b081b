"""A report as people use it: with the eyes, with a pointer, with the keyboard, with a screen reader, on paper."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from visiting import CONTRAST, thin_out
from visiting import violations as found_by_axe

from lab.analysis.quantities import format_interval, format_value
from lab.reports.material import stamp

Visit = Callable[..., Page]
ARMS = ("process", "container", "microvm", "vm")
LOOKS = [*CONTRAST, "target-size"]
violations = partial(found_by_axe, least=20)


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


def open_all(page: Page) -> None:
    """Every section, as one who wants to see all of it."""
    page.evaluate("document.querySelectorAll('details.section').forEach(each => each.open = true)")


def shown(page: Page, selector: str = ".mark") -> int:
    """How many of them are not left out."""
    return int(page.evaluate(
        "selector => [...document.querySelectorAll(selector)].filter(each => each.style.display !== 'none').length",
        selector,
    ))  # fmt: skip


def figure(page: Page, name: str) -> Locator:
    return page.locator(f'figure[data-chart="{name}"]')


def toggle(page: Page, arm: str) -> Locator:
    return page.locator(f'.bar button[data-for="{arm}"]')


def test_axe_finds_no_violation(visit: Visit) -> None:
    """Each element is asked whether it is built well. Of table rows that look alike, one is asked how it looks."""
    page = visit("sample")
    assert violations(page, without=LOOKS) == []
    open_all(page)
    page.locator("table.matrix details").first.locator("summary").click()
    page.locator(".mind summary").click()
    toggle(page, "process").click()
    figure(page, "cpu").locator(".mark:visible").first.focus()
    page.keyboard.press("ArrowRight")
    assert says(page)
    assert violations(page, without=LOOKS) == []
    thin_out(page)
    figure(page, "cpu").locator(".mark:visible").first.focus()
    page.keyboard.press("ArrowRight")  # a mark that a key went to keeps its tip, whatever moves below the pointer
    assert says(page)
    assert violations(page, only=LOOKS) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, only=CONTRAST) == []
    page.emulate_media(color_scheme="light")
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = false)")
    assert violations(page, only=LOOKS) == []


def test_axe_finds_none_in_the_figures_of_factors(visit: Visit) -> None:
    page = visit("factorial")
    open_all(page)
    figure(page, "interactions").locator(".mark").first.focus()
    assert says(page)
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, only=CONTRAST) == []


def test_axe_finds_none_among_many_backends_on_a_telephone(visit: Visit) -> None:
    page = visit("crowded", width=360, height=740)
    assert violations(page, without=CONTRAST) == []  # its colours are the other's


@pytest.mark.parametrize("name", ["density", "hosts", "ladder", "noisy", "starts", "surface"])
def test_a_study_s_page_is_for_everybody_too(visit: Visit, name: str) -> None:
    """On a telephone, all that can be opened open; then its colours in the dark."""
    page = visit(name, width=360, height=740)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.emulate_media(color_scheme="dark")
    assert violations(page, only=CONTRAST) == []


@pytest.mark.parametrize("name", ["density", "ladder", "noisy", "starts", "surface"])
def test_a_study_s_first_screen_is_as_that_of_a_comparison(visit: Visit, name: str) -> None:
    page = visit(name, height=768)
    for selector in (".mind", ".verdict li:first-child", "table.headline tbody tr:first-child"):
        box = page.locator(selector).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 768, selector
    picture = page.locator(".glance figure img").bounding_box()
    assert picture is not None
    assert picture["y"] < 500, "its most part is on the first screen"
    first = page.locator(".mind").bounding_box()
    verdict = page.locator(".verdict").bounding_box()
    assert first is not None
    assert verdict is not None
    assert first["y"] < verdict["y"], "what weighs most comes before any multiple"
    assert page.evaluate("document.documentElement.scrollHeight") < 3 * 768
    assert not any(visible(page, "details.section > :not(summary)"))


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


def test_the_first_screen_holds_verdict_table_and_picture_and_all_is_below_ten(visit: Visit) -> None:
    page = visit("sample", height=768)
    for selector in (
        ".mind",
        ".verdict li:last-child",
        "table.headline tbody tr:last-child",
        "figure .panel:last-child svg",
    ):
        box = page.locator(selector).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 768, selector
    assert page.evaluate("document.documentElement.scrollHeight") < 10 * 768
    closed = visible(page, "details.section > :not(summary)")
    assert not any(closed)
    page.get_by_role("button", name="open all sections").click()
    assert all(visible(page, "details.section > :not(summary)"))


def test_a_heading_opens_by_the_keyboard_and_a_link_opens_what_it_leads_to(visit: Visit) -> None:
    page = visit("sample")
    boot = page.locator("details.section:has(#boot)")
    boot.locator(":scope > summary").focus()
    page.keyboard.press("Enter")
    assert boot.get_attribute("open") is not None
    assert not page.locator("#probe-mount").is_visible()
    page.evaluate("location.hash = 'probe-mount'")
    expect(page.locator("#probe-mount")).to_be_visible()


def test_without_scripts_everything_is_there_only_still(visit: Visit) -> None:
    page, live = visit("sample", java_script_enabled=False), visit("sample")
    assert page.locator("button, select, input, [tabindex='-1']").count() == 0
    assert page.locator("figure").count() == live.locator("figure.live").count() == 7
    assert page.locator("svg.chart[role=img][aria-label]").count() == page.locator("svg.chart").count() > 10
    boot = page.locator("details.section:has(#boot)")
    boot.locator(":scope > summary").click()
    assert boot.locator("svg.chart").first.is_visible()
    assert "n = 6" in (boot.locator(".mark title").first.text_content() or "")
    told = {title.replace("\n", ". ") for title in page.locator(".mark title").all_text_contents()}
    assert told == set(live.locator(".mark").evaluate_all("all => all.map(each => each.ariaLabel)"))
    for selector in ("table:not(.sortable)", ".verdict", ".mind", "details.section > p"):
        assert page.locator(selector).all_text_contents() == live.locator(selector).all_text_contents()


def test_a_mark_tells_value_unit_interval_n_and_accelerator(visit: Visit, reports: dict[str, Any]) -> None:
    page, material = visit("sample"), reports["sample"].material
    marks = figure(page, "overview").locator(".panel").first.locator(".mark").all()
    assert len(marks) == len(material.arms)
    for each, arm in zip(marks, material.arms, strict=True):
        value = material.value("boot.total", arm.label)
        assert value is not None
        box = each.locator(".stem").last.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for words in (arm.label, stamp(arm), format_value(value.median, value.unit), f"n = {value.n}",
                      format_interval(value.low, value.high, value.unit)):  # fmt: skip
            assert words in says(page)
        assert each.get_attribute("aria-label") == ". ".join(says(page).splitlines())
    page.mouse.move(3, 20)
    assert says(page) == ""


def lengths(panel: Locator) -> list[float]:
    """Of the bars that are shown, from their paths."""
    paths = panel.locator(".mark .length:visible path").evaluate_all("all => all.map(each => each.getAttribute('d'))")
    numbers = [[float(number) for number in re.findall(r"-?[\d.]+", path)] for path in paths]
    return [max(each[0::2]) - min(each[0::2]) for each in numbers]


def test_bars_are_as_long_as_their_values_and_failures_are_told(visit: Visit, reports: dict[str, Any]) -> None:
    page, material = visit("crowded"), reports["crowded"].material
    open_all(page)
    panel = figure(page, "cpu").locator(".panel").first
    if "log" in (panel.locator("svg.chart").get_attribute("class") or ""):
        panel.get_by_role("button", name="logarithmic axis").click()
    values = [material.value("cpu.boot", arm.label) for arm in material.arms]
    ratios = [
        length / value.median for length, value in zip(lengths(panel), values, strict=True) if value is not None
    ]
    assert len(ratios) == 12
    assert ratios == pytest.approx([ratios[-1]] * 12, rel=0.03)  # places are written to a hundredth of a pixel
    totals = figure(page, "overview").locator(".panel").first
    assert "1 timed out" in (totals.get_by_label(re.compile(r"^microvm · TCG")).get_attribute("aria-label") or "")


def test_an_effect_tells_how_large_and_how_sure_it_is_and_on_what_it_depends(
    visit: Visit, reports: dict[str, Any]
) -> None:
    page, table = visit("factorial"), reports["factorial"].material.effects
    open_all(page)
    mains = table[(table["other"] == "") & (table["level"] != "*") & (table["quantity"] != "teardown.total")]
    assert figure(page, "factors").locator(".mark").count() == len(mains)
    boots = figure(page, "factors").locator(".panel").filter(has_text="firmware on time until")
    ovmf = boots.get_by_label(re.compile("firmware ovmf ÷ direct"))
    ovmf.locator(".shape").hover()
    row = mains[(mains["quantity"] == "boot.total") & (mains["level"] == "ovmf")].iloc[0]
    for words in (f"{row['ratio']:.2f} ×", f"{row['low']:.2f}–{row['high']:.2f} ×", "n = 8 blocks", "claimed",
                  "depends on cpus", "all levels together: p < 0.001"):  # fmt: skip
        assert words in says(page)
    places = {text.text_content(): text.bounding_box() for text in boots.locator(".tick text").all()}
    one, two = (places[name]["x"] + places[name]["width"] / 2 for name in ("1", "2"))
    box = ovmf.locator(".shape").bounding_box()
    assert (box["x"] + box["width"] / 2 - one) / (two - one) == pytest.approx(math.log2(row["ratio"]), abs=0.03)
    unsure = mains[~mains["claim"].astype(bool)].iloc[0]
    name = re.compile(rf"^{unsure['backend']} .*{unsure['factor']} {unsure['level']} ÷")
    hollow = figure(page, "factors").get_by_label(name).locator(".shape use").first
    assert "var(--card)" in (hollow.get_attribute("style") or "")
    assert "var(--card)" not in (ovmf.locator(".shape use").get_attribute("style") or "")


def test_lines_that_are_not_parallel_tell_each_combination_and_go_with_their_backend(visit: Visit) -> None:
    page = visit("factorial")
    open_all(page)
    crossing = figure(page, "interactions")
    last = crossing.get_by_label(re.compile(r"cpus=1, firmware=ovmf: 2\.\d+ s"))
    last.locator(".shape").hover()
    assert says(page).startswith("microvm · TCG emulation")
    of_both = figure(page, "factors").locator(".mark:visible").count()
    toggle(page, "microvm").click()
    assert crossing.locator(".mark:visible").count() == 0
    assert figure(page, "factors").locator(".mark:visible").count() == 4 < of_both


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit("sample")
    page.evaluate("document.querySelectorAll('.sort, .scroll').forEach(each => each.tabIndex = -1)")
    focus = "document.activeElement.dataset.for ?? document.activeElement.getAttribute('aria-label') ?? ''"
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(str(page.evaluate(focus)))
    assert [words for words in reached if words in ARMS] == list(ARMS)
    first = figure(page, "overview").locator(".mark[tabindex='0']")
    assert any(words.startswith("process · native") for words in reached)
    first.focus()
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
    total, of_vm = shown(page), page.locator('.mark[data-of="vm"]').count()
    assert of_vm > 20
    toggle(page, "vm").focus()
    page.keyboard.press("Enter")
    assert toggle(page, "vm").get_attribute("aria-pressed") == "false"
    assert page.locator(".bar [role=status]").first.inner_text() == "3 of 4 shown"
    assert shown(page) == total - of_vm
    open_all(page)
    assert len(visible(page, '[data-arm="vm"]')) > 50
    assert not any(visible(page, '[data-arm="vm"]'))
    assert page.locator('th[data-arm="microvm"]').first.is_visible()
    page.keyboard.press("Enter")
    assert shown(page) == total
    for arm in ARMS:
        toggle(page, arm).click()
    assert [toggle(page, arm).get_attribute("aria-pressed") for arm in ARMS] == ["false", "false", "false", "true"]
    page.get_by_role("button", name="show all").click()
    assert shown(page) == total
    assert page.evaluate("document.activeElement.dataset.for") == "process"  # not lost with its button


def test_what_is_left_out_leaves_no_gap_and_the_axis_ends_where_the_rest_does(visit: Visit) -> None:
    page = visit("sample")
    memory = figure(page, "overview").locator(".panel").nth(1)
    before, tall = lengths(memory), memory.locator("svg.chart").bounding_box()["height"]
    assert before[0] < 0.1 * before[3]
    for arm in ("microvm", "vm"):
        toggle(page, arm).click()
    after = lengths(memory)
    assert len(after) == 2
    assert after[0] > 0.9 * before[3]
    assert after[1] / after[0] == pytest.approx(before[1] / before[0], rel=0.05)
    assert memory.locator("svg.chart").bounding_box()["height"] < 0.75 * tall
    rows = [each.bounding_box()["y"] for each in memory.locator(".mark:visible").all()]
    assert rows[0] >= memory.locator("svg.chart").bounding_box()["y"]
    assert "200 MiB" not in memory.locator(".tick text").all_text_contents()
    for arm in ("microvm", "vm"):
        toggle(page, arm).click()
    assert lengths(memory) == pytest.approx(before, abs=0.1)


def test_a_bar_of_counts_opens_into_its_questions(visit: Visit) -> None:
    page = visit("sample")
    part = figure(page, "overview").locator('.mark[data-of="container"][data-opens="open"]')
    count = int(re.search(r"reaches the host: (\d+)", part.get_attribute("aria-label") or "")[1])
    assert part.get_attribute("role") == "button"
    part.focus()
    page.keyboard.press("Enter")
    assert sum(visible(page, "table.matrix tr[id]")) == count
    assert page.locator("table.matrix tr[id]:visible td[data-arm=container] .cell.open").count() == count
    group = figure(page, "isolation").locator('.mark[data-of="process"][data-group="devices"]').first
    group.locator(".shape").click()
    assert sum(visible(page, "table.matrix tr.group")) == 1


def test_an_axis_becomes_logarithmic_and_linear_again(visit: Visit) -> None:
    page = visit("sample")
    open_all(page)
    panel = figure(page, "overview").locator(".panel").first
    button = panel.get_by_role("button", name="logarithmic axis")
    assert button.get_attribute("aria-pressed") == "true", "it spans more than fifty times"
    ticks = panel.locator(".tick text").all_text_contents()
    assert "0" not in ticks
    assert lengths(panel) == [], "lengths mean nothing there"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert panel.locator(".tick text").all_text_contents()[0] == "0"
    assert len(lengths(panel)) == 4
    button.click()
    assert lengths(panel) == []
    memory = figure(page, "overview").locator(".panel").nth(1)
    assert memory.get_by_role("button").get_attribute("aria-pressed") == "false"
    wide = figure(page, "boot-distribution").locator(".tick text").all()
    places = {text.text_content(): text.bounding_box()["x"] + text.bounding_box()["width"] / 2 for text in wide}
    decade, half = places["1 s"] - places["100 ms"], places["500 ms"] - places["100 ms"]
    assert half / decade == pytest.approx(math.log10(5), abs=0.01)


def test_the_matrix_is_filtered_by_words_group_and_answer(visit: Visit) -> None:
    page = visit("sample")
    open_all(page)
    bar, rows = page.locator(".filter"), page.locator("table.matrix tr[id]")

    def found() -> list[Locator]:
        seen = visible(page, "table.matrix tr[id]")
        return [rows.nth(index) for index, is_seen in enumerate(seen) if is_seen]

    total = rows.count()
    assert len(found()) == total > 20
    bar.get_by_label("Group").select_option("privilege")
    of_group = found()
    assert 0 < len(of_group) < total
    assert bar.get_by_role("status").inner_text() == f"{len(of_group)} of {total} questions"
    bar.get_by_label("Answer").select_option("reaches the host")
    assert all(row.locator(".cell.open").count() for row in found())
    toggle(page, "process").click()  # an answer counts as long as its column is shown
    assert len(found()) < len(of_group)
    bar.get_by_label("Answer").select_option("any answer")
    bar.get_by_label("Words").fill("set-clock")
    (row,) = found()
    bar.get_by_role("button", name="open all").click()
    cell = row.locator("td[data-arm=container] dl")
    assert [cell.locator("dt").nth(index).inner_text() for index in range(4)] == [
        "Expected", "Mechanism", "Evidence", "Asked",
    ]  # fmt: skip
    assert "EPERM" in cell.inner_text()
    bar.get_by_label("Words").fill("no such words")
    assert found() == []
    assert not page.locator("table.matrix tr.group").first.is_visible()


def test_charts_are_as_dark_as_the_page_and_paper_is_light(visit: Visit) -> None:
    page = visit("sample", color_scheme="dark")
    look = """name => {
        const style = getComputedStyle(document.querySelector(name));
        return [style.backgroundColor, style.fill];
    }"""

    def looks(selector: str) -> list[str]:
        found: list[str] = page.evaluate(look, selector)
        return found

    bar = '.mark[data-of="container"] .length path'
    assert (looks("figure.live")[0], looks("svg.chart")[1]) == ("rgb(31, 36, 40)", "rgb(236, 236, 236)")
    assert looks(bar)[1] == "rgb(63, 159, 220)"
    page.emulate_media(media="print", color_scheme="dark")
    assert looks("body")[0] == looks("figure.live")[0] == "rgb(255, 255, 255)"
    page.emulate_media(media="screen", color_scheme="light")
    assert looks(bar)[1] == "rgb(0, 114, 178)"


def test_a_table_is_sorted_from_the_keyboard_and_goes_back(visit: Visit) -> None:
    page = visit("factorial")
    open_all(page)
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
    assert violations(page, within="table:has([aria-sort])") == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, only=CONTRAST, within="table:has([aria-sort])") == []
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
        table.get_by_role("button", name="until first correct answer").click()
    boots = {arm.label: material.value("boot.total", arm.label).median for arm in material.arms}
    backends = [re.split("host's|own", text)[0] for text in table.locator("tbody th").all_text_contents()]
    assert backends == sorted(boots, key=lambda name: boots[name], reverse=True)


def test_paper_gets_everything_open_and_every_backend_without_controls(visit: Visit) -> None:
    page = visit("sample")
    page.emulate_media(media="print")
    assert all(visible(page, "details.section > :not(summary, .bar)"))
    assert all(picture.bounding_box()["width"] > 200 for picture in page.locator("svg.chart").all())
    for gone in (".bar", ".head button", "#tip", "figcaption"):
        assert not any(visible(page, gone)), gone
    assert all(visible(page, 'th[data-arm="vm"]'))


def test_motion_is_left_out_where_it_is_not_wanted(visit: Visit) -> None:
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert visit("sample", reduced_motion="reduce").evaluate(behaviour) == "auto"
    assert visit("sample", reduced_motion="no-preference").evaluate(behaviour) == "smooth"
