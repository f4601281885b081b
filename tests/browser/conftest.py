"""One Chromium without a window for all tests, a fresh profile and page for each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from factorial import write_factorial
from fleet import Fleet, write_fleet
from playwright.sync_api import Browser, Page, expect, sync_playwright
from studies import density_run, ladder_run, noisy_run, starts_run, surface_run
from synthetic import leave_pictures_empty, write_run
from visiting import PATIENCE_MS, SAMPLE, is_fetched

from lab.reports.figures import charts
from lab.reports.hosts import write
from lab.reports.material import Material
from lab.studies.compare.report.document import html
from lab.studies.registry import COMPARISON
from lab.studies.registry import studies as studies_of_lab

VARIANTS = ("memory=128M", "memory=512M")
MADE_UP = {
    "density": density_run,
    "ladder": ladder_run,
    "noisy": noisy_run,
    "starts": starts_run,
    "surface": surface_run,
}


class Report(NamedTuple):
    page: Path
    material: Material


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        path = shutil.which("chromium")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """``sample``: the run that comes with lab. ``crowded``: a made-up one with failures, timeouts and 12 arms.
    ``factorial``: one with factors.
    """
    root = tmp_path_factory.mktemp("reports")
    found = {}
    folders = {"sample": SAMPLE, "crowded": _crowd(write_run(root).path), "factorial": write_factorial(root).path}
    for name, folder in folders.items():
        material = Material.read(folder)
        found[name] = Report(root / f"{name}.html", material)
        found[name].page.write_text(html(material, list(charts(material))))
    return found


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a made-up run of each study, and of hosts. Pictures are left empty: axe can't look into them."""
    with pytest.MonkeyPatch.context() as patch:
        leave_pictures_empty(patch)
        hosts = tmp_path_factory.mktemp("hosts")
        write_fleet(hosts, Fleet(hosts=8, tau=0.03, deviants={1: 2.0}, kinds={6: "nested", 7: "emulated"}))
        return {"hosts": write([hosts], hosts / "report").files[-1]} | {
            study.kind: study.report().write(MADE_UP[study.kind](tmp_path_factory.mktemp(study.kind)).path)[-1]
            for study in studies_of_lab()
            if study.kind != COMPARISON
        }


@pytest.fixture
def visit(browser: Browser, reports: dict[str, Report], studies: dict[str, Path]) -> Iterator[Callable[..., Page]]:
    """``visit("sample", width=360, java_script_enabled=False, …)``: a report or study in a page of its own.

    Whatever is fetched, refused by the page's policy, or thrown by its script, fails the test.
    """
    contexts, complaints = [], []

    def complain(what: str, words: str) -> None:
        complaints.append(f"{what}: {words[:200]}")

    def open_page(name: str, width: int = 1366, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page, address = context.new_page(), (studies.get(name) or reports[name].page).as_uri()
        page.on("console", lambda message: complain("console", message.text))
        page.on("pageerror", lambda error: complain("error", str(error)))
        page.on("request", lambda request: is_fetched(request.url, address) and complain("fetched", request.url))
        page.goto(address)
        if name in reports and options.get("java_script_enabled", True):
            page.locator("figure.live").last.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _crowd(folder: Path) -> Path:
    """Every arm again in two variants, as a run with a factor has them; A/A twin and warm-ups included."""
    run = json.loads((folder / "run.json").read_text())
    run["arms"] += [
        arm | {"label": _named(arm["label"], variant)} for arm in run["arms"] for variant in VARIANTS
        if not arm["label"].endswith("#aa")
    ]  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    samples = folder / "samples.jsonl"
    raw = [json.loads(line) for line in samples.read_text().splitlines()]
    raw += [
        each | {"arm": _named(each["arm"], variant), "instance": f"{each['instance']}-{variant}"}
        for each in raw for variant in VARIANTS if not each["arm"].endswith("#aa")
    ]  # fmt: skip
    samples.write_text("".join(json.dumps(each) + "\n" for each in raw))
    return folder


def _named(label: str, variant: str) -> str:
    return f"{label} {variant}"
