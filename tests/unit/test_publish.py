"""A site of many nights: what it shows, what it leaves alone, and that it never stands there half."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from nights import write_nights
from synthetic import keep_only, write_run
from typer.testing import CliRunner

from lab.analysis.history.facts import about, changed
from lab.cli.app import app
from lab.commands.publishing import publish as publishing
from lab.commands.publishing.folder import owned
from lab.commands.publishing.publish import Published, Wanted, publish
from lab.errors import ResultsError
from lab.reports.site.content import slug
from lab.results.store import RunFolder

ATOM = "{http://www.w3.org/2005/Atom}"
NIGHTS = 120
PLANTED = {30: ("container", "boot.total"), 60: ("microvm", "memory.pss"), 90: ("process", "load.latency.p50")}
WANTED = Wanted(title="Nights", reports=0)


def no_report(folder: Path) -> str:
    return f"<!DOCTYPE html><title>{os.fsencode(folder.name).hex()}</title>"


def planted(night: int, arm: str, quantity: str) -> float:
    return 1.15 if any(night >= at and (arm, quantity) == what for at, what in PLANTED.items()) else 1.0


def told(night: int, run: dict[str, Any]) -> None:
    run["host"]["kernel_release"] = "6.1.0-41-amd64" if night >= 30 else "6.1.0-40-amd64"
    run["versions"]["qemu"] = "7.2.18" if night >= 61 else "7.2.17"
    if night == 10:
        run["ended_because"] = "interrupted"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nights")
    write_nights(root, NIGHTS, factor=planted, told=told)
    return root


@pytest.fixture(scope="module")
def first(results: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Published]:
    """The site as it was published first, and what that did. Tests that publish again have a copy of it."""
    site = tmp_path_factory.mktemp("site") / "site"
    return site, publish(site, results, WANTED, no_report)


def embedded(site: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', (site / "index.html").read_text())
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def taken(site: Path, name: str) -> Any:
    """The value that a data file hands over."""
    return json.loads("[" + (site / name).read_text().removeprefix("take(").removesuffix(");\n") + "]")[1]


def needed(site: Path) -> set[str]:
    """Every file that the page leads to."""
    about = embedded(site)
    links = set(re.findall(r'href="((?:runs|changes)/[^"#]+)"', (site / "index.html").read_text()))
    return {about["lines"], about["runs"], *about["chunks"], *links} | {
        line["file"] for line in taken(site, about["lines"])
    }


def files(site: Path) -> dict[str, bytes]:
    folders = ("data", "runs", "changes")
    return {f"{name}/{path.name}": path.read_bytes() for name in folders for path in (site / name).iterdir()}


def when_written(site: Path) -> dict[str, tuple[int, int]]:
    """Which file each is, and since when: one that was written again as it was differs, too."""
    found = {name: (site / name).stat() for name in files(site)}
    return {name: (each.st_ino, each.st_mtime_ns) for name, each in found.items()}


def is_whole(site: Path) -> bool:
    return all((site / name).is_file() for name in needed(site))


# What changed


def test_the_site_shows_the_planted_changes_and_no_other(first: tuple[Path, Published]) -> None:
    site, done = first
    assert (done.runs, done.changes, done.unreadable) == (NIGHTS, len(PLANTED), 0)
    runs = taken(site, embedded(site)["runs"])
    found = {}
    for line in taken(site, embedded(site)["lines"]):
        for change in line["changes"]:
            night = int(runs["name"][change["run"]].removeprefix("night-"))
            at = min(PLANTED, key=lambda planted: abs(planted - night))
            assert abs(at - night) <= 2
            found[at] = line["arm"], line["quantity"]
            assert change["direction"] == "worse"
            assert change["low"] < 1.15 < change["high"]
    assert found == PLANTED


def test_what_else_changed_there_is_told_with_how_far_away(first: tuple[Path, Published]) -> None:
    site, _ = first
    by_day = {
        re.search(r"<time>([\d-]+)", article)[1]: article  # type: ignore[index]
        for article in re.findall(
            r'<article class="event".*?</article>', (site / "index.html").read_text(), re.DOTALL
        )
    }
    oldest, middle, newest = (by_day[day] for day in sorted(by_day))
    assert "kernel: 6.1.0-40-amd64 → 6.1.0-41-amd64" in oldest
    assert "qemu: 7.2.17 → 7.2.18" in middle
    assert "6.1.0" not in middle + newest
    assert "7.2.1" not in oldest + newest


def test_a_change_s_page_has_the_answer_of_lab_diff_and_its_command(first: tuple[Path, Published]) -> None:
    site, _ = first
    pages = list((site / "changes").iterdir())
    assert len(pages) == len(PLANTED)
    for page in pages:
        assert re.search(r"<code>lab diff night-\d+ night-\d+</code>", page.read_text())


def test_what_did_not_end_by_plan_is_listed_and_in_no_line(first: tuple[Path, Published]) -> None:
    site, _ = first
    runs, lines = (taken(site, embedded(site)[name]) for name in ("runs", "lines"))
    place = runs["name"].index("night-00010")
    assert [run for run, complete in enumerate(runs["complete"]) if not complete] == [place]
    for line in lines:
        points = taken(site, line["file"])
        assert place not in points["run"]
        assert len(points["run"]) == NIGHTS - 1


def test_only_what_can_be_compared_shares_a_line(tmp_path: Path) -> None:
    def differing(night: int, run: dict[str, Any]) -> None:
        if night == 1:
            run["host"]["identity"] = "ffffffffffff"
        if night == 2:
            run["limits"]["memory_bytes"] *= 2
        if night == 3:
            run["arms"][2]["accelerator"] = "kvm"
        if night == 4:
            run["settings"]["load"]["connections"] = 8

    write_nights(tmp_path / "results", 6, told=differing)
    publish(tmp_path / "site", tmp_path / "results", WANTED, no_report)
    lengths: dict[str, list[int]] = {}
    for line in taken(tmp_path / "site", embedded(tmp_path / "site")["lines"]):
        if line["quantity"] == "boot.total":
            lengths.setdefault(line["arm"], []).append(line["n"])
    assert {arm: sorted(each) for arm, each in lengths.items()} == {
        "process": [1, 1, 1, 3], "container": [1, 1, 1, 3], "microvm": [1, 1, 1, 1, 2],
    }  # fmt: skip


def test_a_fact_that_was_not_recorded_has_not_changed(tmp_path: Path) -> None:
    runs = [about(write_run(tmp_path, blocks=1, seed=seed)) for seed in (1, 2)]
    del runs[1].facts["qemu"]
    runs[1].facts["kernel"] = "other"
    assert changed(runs[0], runs[1]) == [("kernel", runs[0].facts["kernel"], "other")]


# Again


def test_published_again_only_what_is_new_is_read_and_written(
    results: Path, first: tuple[Path, Published], tmp_path: Path
) -> None:
    root, site = tmp_path / "results", tmp_path / "site"
    shutil.copytree(results, root)
    shutil.copytree(first[0], site)
    before, written = files(site), when_written(site)
    again = publish(site, root, WANTED, no_report)
    assert (again.read, again.new_changes) == (0, 0)
    assert files(site) == before
    assert when_written(site) == written
    write_nights(root, 1, first=NIGHTS, factor=planted, told=told)
    more = publish(site, root, WANTED, no_report)
    assert (more.read, more.runs, more.new_changes) == (1, NIGHTS + 1, 0)
    for gone in sorted(root.glob("night-*"))[:10]:
        shutil.rmtree(gone)
    less = publish(site, root, WANTED, no_report)
    assert (less.read, less.runs) == (0, NIGHTS - 9)
    assert is_whole(site)
    assert set(files(site)) == needed(site)
    assert b"night-00009" not in b"".join(files(site).values())


@pytest.mark.parametrize("survived", [0, 3, 22])
def test_interrupted_the_old_site_still_stands(
    results: Path, first: tuple[Path, Published], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    root, site, written = tmp_path / "results", tmp_path / "site", []
    shutil.copytree(results, root)
    shutil.copytree(first[0], site)
    old = (site / "index.html").read_bytes()
    write_nights(root, 1, first=NIGHTS, factor=planted)
    real = publishing.put

    def put(root: Path, name: str, data: bytes) -> None:
        if len(written) == survived:
            raise KeyboardInterrupt
        written.append(name)
        real(root, name, data)

    monkeypatch.setattr(publishing, "put", put)
    with pytest.raises(KeyboardInterrupt):
        publish(site, root, WANTED, no_report)
    assert len(written) == survived
    assert (site / "index.html").read_bytes() == old
    assert is_whole(site)
    monkeypatch.undo()
    assert publish(site, root, WANTED, no_report).runs == NIGHTS + 1
    assert set(files(site)) == needed(site)


def test_a_folder_of_others_is_left_alone_and_one_publishes_at_a_time(tmp_path: Path) -> None:
    write_nights(tmp_path / "results", 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    with pytest.raises(ResultsError):
        publish(tmp_path / "mine", tmp_path / "results", WANTED, no_report)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter"]
    with owned(tmp_path / "site"), pytest.raises(ResultsError):
        publish(tmp_path / "site", tmp_path / "results", WANTED, no_report)
    publish(tmp_path / "site", tmp_path / "results", WANTED, no_report)
    (tmp_path / "site" / "data" / "My notes.txt").write_text("stay")
    publish(tmp_path / "site", tmp_path / "results", WANTED, no_report)
    assert (tmp_path / "site" / "data" / "My notes.txt").exists()


# The feed


def entries(site: Path) -> dict[str, ET.Element]:
    """By id, once it is sure that the feed is one (RFC 4287, sections 4.1.1 and 4.1.2)."""
    feed = ET.parse(site / "feed.xml").getroot()
    assert feed.tag == f"{ATOM}feed"
    assert feed.find(f"{ATOM}author/{ATOM}name") is not None
    found = {}
    for element in (feed, *feed.findall(f"{ATOM}entry")):
        for name in ("id", "title", "updated"):
            (one,) = element.findall(f"{ATOM}{name}")
            assert one.text
        assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", element.findtext(f"{ATOM}id") or "")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", element.findtext(f"{ATOM}updated") or "")
        assert element.find(f"{ATOM}link[@rel='alternate']") is not None
        found[element.findtext(f"{ATOM}id") or ""] = element
    assert len(found) == 1 + len(feed.findall(f"{ATOM}entry"))
    return {key: element for key, element in found.items() if element is not feed}


def test_the_feed_has_an_entry_for_each_change_and_links_to_pages(first: tuple[Path, Published]) -> None:
    site, _ = first
    links = [entry.find(f"{ATOM}link") for entry in entries(site).values()]
    assert len(links) == len(PLANTED)
    for link in links:
        assert link is not None
        assert (site / link.get("href", "")).is_file()


def test_an_entry_keeps_its_id_when_a_night_more_moves_the_change(
    results: Path, first: tuple[Path, Published], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    shutil.copytree(first[0], site)
    before = entries(site)
    real = publishing.change_points
    monkeypatch.setattr(
        publishing, "change_points", lambda values, level: tuple(at + 2 for at in real(values, level))
    )
    monkeypatch.setattr(publishing.Memory, "places", lambda *_: None)
    moved = publish(site, results, Wanted(title="Nights", reports=0, url="https://example.org/lab"), no_report)
    after = entries(site)
    assert moved.new_changes == 0
    assert set(after) == set(before)
    hrefs = {key: entry.find(f"{ATOM}link").get("href", "") for key, entry in after.items()}  # type: ignore[union-attr]
    assert all(each.startswith("https://example.org/lab/changes/") for each in hrefs.values())
    assert all(before[key].find(f"{ATOM}link").get("href") not in href for key, href in hrefs.items())  # type: ignore[union-attr]


# What others wrote

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\x1b[31m&amp;"


def test_names_and_texts_of_runs_are_text_everywhere(tmp_path: Path) -> None:
    def hostile(night: int, run: dict[str, Any]) -> None:
        slower = night >= 12
        run |= {"scenario": HOSTILE, "title": HOSTILE}
        run["host"] |= {"identity": HOSTILE, "distribution": HOSTILE, "kernel_release": f"{HOSTILE}{slower}"}
        run["versions"] |= {"lab": HOSTILE, HOSTILE: str(slower)}

    root, site = tmp_path / "results", tmp_path / "site"
    made = write_nights(root, 30, told=hostile, factor=lambda night, arm, _: 2.0 if night >= 15 else 1.0)
    names = ['"><img src=x onerror=alert(1)>', "-rf ..%2f", "new\nline", os.fsdecode(b"\xff\xfe")]
    for path, name in zip(made[14:], names, strict=False):
        path.rename(root / name)
    (root / "broken<b>").mkdir()
    (root / "broken<b>" / "run.json").write_text("{}")
    done = publish(site, root, Wanted(title=HOSTILE, reports=30), no_report)
    assert (done.changes, done.unreadable) == (1, 1)
    written = [site / "index.html", site / "feed.xml", *(site / "changes").iterdir()]
    for page in written:
        text = page.read_text()
        assert "<img" not in text
        assert "\u202e" not in text
        assert "\x1b" not in text
        assert str(root) not in text
        assert len(re.findall("<script", text)) == (2 if page.name == "index.html" else 0)
    entries(site)
    assert all(re.fullmatch(r"(data|runs|changes)/[a-z0-9-]+\.(js|html)", name) for name in files(site))
    for name in (root / name for name in names):
        assert (site / "runs" / f"{slug(name.name)}.html").is_file()
    assert is_whole(site)


def test_no_two_names_share_a_file() -> None:
    names = ["a b", "a_b", "A-b", "a-b", "", "..", "/", "ü", "u", "x" * 200, "x" * 201]
    assert len({slug(name) for name in names}) == len(names)


# The command


def test_the_command_writes_reports_tells_what_it_did_and_refuses_what_it_can_t(tmp_path: Path) -> None:
    root, site = tmp_path / "results", tmp_path / "site"

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["publish", str(site), "--results", str(root), *words])

    assert isinstance(run().exception, ResultsError)
    folder = write_run(root, blocks=3, bad_luck=False)
    keep_only(folder, lambda sample: sample["quantity"] in ("boot.total", "memory.pss"))
    (folder.path / "samples.parquet").unlink()
    before = sorted(path.name for path in folder.path.iterdir())
    told = json.loads(run("--json", "--all").stdout)
    assert (told["runs"], told["reports_written"]) == (1, 1)
    page = site / "runs" / f"{slug(folder.path.name)}.html"
    assert RunFolder.open(folder.path).run.title in page.read_text()
    assert sorted(path.name for path in folder.path.iterdir()) == before, "nothing is written there"
    assert json.loads(run("--json", "--all").stdout)["reports_written"] == 0
    assert run("--url", "javascript:alert(1)").exit_code != 0
