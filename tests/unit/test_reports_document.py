"""The report is complete, self-contained, honest in what it says, and can be rebuilt from the folder alone."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic import PROBES, draw_nothing, keep_only, leave_pictures_empty, write_run

from lab.analysis import Kind, load
from lab.errors import LabError, ResultsError, UsageError
from lab.results.record import Sample
from lab.results.store import RunFolder
from lab.studies.compare.report.writer import write

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """What a browser and a screen reader would rely on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    write(run.path)
    return (run.path / "report.html").read_text()


def test_the_page_is_well_formed_and_fetches_nothing(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    for tag, attributes in parsed.tags:
        for key in ("src", "href", "srcset", "action", "data"):
            target = attributes.get(key) or "#"
            assert target.startswith(("#", "data:text/csv;base64,")), (tag, key, target[:60])
    assert parsed.all("script") == [{"type": "application/json", "id": "data"}, {"type": "module"}]
    assert "http://" not in page
    assert "https://" not in page
    assert set(re.findall(r"url\(.", page)) == {"url(#"}


def test_the_pages_policy_lets_its_own_script_run_and_nothing_else(page: str) -> None:
    (policy,) = (each["content"] for each in Page(page).all("meta") if "http-equiv" in each)
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    wanted = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert policy == wanted
    assert [arm["label"] for arm in json.loads(data)] == ["process", "container", "microvm", "vm"]


def test_the_page_works_for_those_who_listen(page: str) -> None:
    parsed = Page(page)
    assert len(parsed.all("h1")) == 1
    assert parsed.all("html")[0]["lang"] == "en"
    figures, pictures = parsed.all("figure"), parsed.all("svg")
    assert len(figures) == 7
    assert len(pictures) == 4 + 1 + 1 + 1 + 4 + 2 + 1
    assert all(picture["role"] == "img" and len(picture["aria-label"] or "") > 60 for picture in pictures)
    assert all(cell.get("scope") in ("col", "row", "rowgroup") for cell in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    downloads = [link for link in parsed.all("a") if "download" in link]
    assert len(downloads) == len(figures)
    links = {(use["href"] or "").removeprefix("#") for use in parsed.all("use")}
    assert links
    assert links <= set(ids)
    labelled = {each["aria-labelledby"] for each in parsed.all("details") if "aria-labelledby" in each}
    assert labelled <= set(ids)


def test_every_answer_opens_to_its_evidence(page: str) -> None:
    cells = [each for each in Page(page).all("details") if "data-reach" in each]
    assert len(cells) == 4 * len(PROBES)
    assert sum("unexpected" in (cell["class"] or "") for cell in cells) == 1
    assert "&lt;kernel-log&gt;: EPERM" in page  # what an instance said is shown as text, never run as markup
    assert "<kernel-log>" not in page


@pytest.mark.parametrize(
    "words",
    [
        "TCG emulation", "2 of 29 instances failed", "A virtual machine is a computer within a computer",
        "What you may not conclude", "How fast virtual machines are", "NSDI 2020", "CLOCK_MONOTONIC", "seed 7",
        "lab compare web-app --blocks 5 --seed 7", "same, verified inside", "n = 4", "Retpolines", "0123abc",
        "proportional set size", "Cliff", "no difference from that is proven",
    ],
)  # fmt: skip
def test_the_report_says(page: str, run: RunFolder, words: str) -> None:
    plain = page.replace("\u00a0", " ")
    assert words in plain
    if words != "CLOCK_MONOTONIC":
        assert words in (run.path / "report.md").read_text().replace("\u00a0", " ")


def test_the_worst_warning_and_three_sentences_come_before_any_multiple(page: str, run: RunFolder) -> None:
    """Made-up: microvm and vm are emulated, and take about 14 and 80 times as long as process."""
    body = page.partition("<body>")[2]
    first, rest = body.partition('<details class="section"')[::2]
    assert rest.count('<details class="section"') >= 10
    warning = first.index("which emulates every instruction")
    multiples = [match.start() for match in re.finditer(r"\d ×|\d times", first)]
    assert warning < min(multiples)
    (sentences,) = re.findall(r'<ul class="verdict">(.*?)</ul>', first, flags=re.DOTALL)
    told = re.findall(r"<li>(.*?)</li>", sentences)
    assert len(told) == 3
    assert "container" in told[0].partition("no difference")[0]
    assert re.search(r"vm \(emulated\) takes \d+ times as long", told[0])
    text = (run.path / "report.md").read_text()
    assert text.index("which emulates every instruction") < min(
        m.start() for m in re.finditer(r"\d ×|\d times", text)
    )


def test_no_column_says_eleven_times_that_nothing_is_claimed(page: str) -> None:
    table = re.findall(r"<caption>How sure.*?</table>", page, flags=re.DOTALL)[0]
    cells = re.findall(r'<td[^>]*class="is-open"><b>([^<]*)</b><small>([^<]*)', table)
    assert len(cells) > 5
    notes = " ".join(note for _, note in cells)
    words = re.findall(r"[a-z]{4,}", notes)
    assert words == [], "what is the same in each cell stands once, below the table"


def test_the_markdown_links_pictures_that_exist(page: str, run: RunFolder) -> None:
    text = (run.path / "report.md").read_text()
    linked = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(linked) == 7
    assert all((run.path / target).is_file() for target in linked)
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) >= 8
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_it_is_rebuilt_elsewhere_from_the_folder_alone_and_says_the_same(
    page: str, run: RunFolder, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / run.path.name
    elsewhere.mkdir(parents=True)
    for name in ("run.json", "samples.jsonl", "progress.jsonl"):
        shutil.copy(run.path / name, elsewhere / name)
    written = write(elsewhere)
    assert (elsewhere / "report.html").read_text() == page
    assert {path.suffix for path in written} == {".png", ".svg", ".csv", ".html", ".md"}
    assert not list(elsewhere.rglob("*.tmp"))


def test_one_format_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path, blocks=1)
    keep_only(folder, lambda raw: raw["quantity"] == "teardown.total")
    write(folder.path, ["md"])
    assert (folder.path / "report.md").is_file()
    assert not (folder.path / "report.html").exists()


def test_data_for_programs_takes_no_picture(tmp_path: Path) -> None:
    folder = write_run(tmp_path, blocks=1)
    assert {path.name for path in write(folder.path, ["json", "trace"])} == {"report.json", "trace.json"}
    assert not (folder.path / "plots").exists()


def test_an_unknown_format_is_a_usage_error(run: RunFolder) -> None:
    with pytest.raises(UsageError, match="docx") as caught:
        write(run.path, ["docx"])
    assert "html" in caught.value.hint


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ResultsError):
        write(tmp_path)


@pytest.mark.parametrize(
    "keep",
    [
        lambda raw: raw["metric"] == "boot",
        lambda raw: raw["metric"] == "isolation",
        lambda raw: raw["metric"] == "load" and raw["backend"] != "process",
        lambda raw: raw["arm"] == "vm",
        lambda raw: raw["metric"] == "boot" and raw["block"] == 1,
        lambda raw: raw["status"] != "ok",
        lambda raw: raw["quantity"] == "memory.pss",
    ],
    ids=["boot", "isolation", "load without baseline", "one arm", "one block", "failures", "one quantity"],
)
def test_whatever_is_missing_the_rest_is_reported(
    tmp_path: Path, keep: Callable[[dict[str, Any]], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_pictures_empty(monkeypatch, all_but_words=True)
    folder = write_run(tmp_path)
    keep_only(folder, keep)
    assert write(folder.path)
    assert Page((folder.path / "report.html").read_text()).open == []


def test_a_report_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    folder = write_run(tmp_path, blocks=1)
    keep_only(folder, lambda raw: raw["quantity"] == "teardown.total")
    (folder.path / "plots").write_text("in the way")
    with pytest.raises(LabError) as caught:
        write(folder.path)
    assert caught.value.hint


def test_one_backend_is_compared_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    folder = write_run(tmp_path)
    run = json.loads((folder.path / "run.json").read_text())
    run["arms"] = [arm for arm in run["arms"] if arm["backend"] == "microvm"]
    (folder.path / "run.json").write_text(json.dumps(run))
    keep_only(folder, lambda raw: raw["backend"] == "microvm")
    write(folder.path)
    for name in ("report.html", "report.md"):
        text = (folder.path / name).read_text()
        assert "behind one boundary: microvm" in text
        assert "quantity, and its noise" not in text


BROKEN_OUT = Sample(
    metric="breakout", quantity="breakout.it", value=None, unit="answer", backend="", arm="", block=0, position=0,
    instance="", warmup=True, text="yes",
    detail={
        "group": "files", "question": "Can it read <it>?", "evidence": "open it: succeeded", "expected": "no",
        "as_expected": False, "reason": "the file is root's", "reach": "open", "surprise": "its mode is wider",
        "root": {"answer": "yes", "reach": "open", "evidence": "open it: succeeded"},
    },
)  # fmt: skip


def test_who_breaks_out_is_shown_apart_from_the_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked twice, since a run was resumed, once; what was not expected as a finding."""
    draw_nothing(monkeypatch)
    run = write_run(tmp_path, blocks=1)
    before = len(load(run.path).answers)
    run.append(BROKEN_OUT, BROKEN_OUT)
    write(run.path)
    for name in ("report.html", "report.md"):
        text = (run.path / name).read_text()
        (row,) = [each for each in re.split(r"<tr|\n", text) if "root's" in html.unescape(each) and "read" in each]
        assert row.count("✗ yes") == 2
        assert "its mode is wider" in row
        assert "an escaped process – Can it read" in text
    assert len(load(run.path).answers) == before


def test_what_is_of_no_instance_is_not_counted_as_one(tmp_path: Path) -> None:
    def failures() -> list[str]:
        return [finding.sentence for finding in load(run.path).findings() if finding.kind is Kind.FAILED]

    run = write_run(tmp_path)
    failed = failures()
    assert failed
    run.append(BROKEN_OUT)
    assert failures() == failed
