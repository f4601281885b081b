"""The page of a run that is still measured."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from synthetic import keep_only, write_run

from lab.results.store import RunFolder
from lab.studies.compare import live as growing
from lab.studies.compare.live import Growing, open_page
from lab.studies.compare.report.growing import write_growing


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def doing(self, what: str) -> None:
        """Ignored."""

    def progress(self, done: int, expected: int) -> None:
        """Ignored."""

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is written in this process, which has imported what it takes; others of these tests start one."""

    def write(argv: list[str], **_: object) -> None:
        assert argv[:3] == [sys.executable, "-m", write_growing.__module__]
        write_growing(Path(argv[3]), float(argv[4]))

    monkeypatch.setattr(growing, "run", write)


def small_run(root: Path) -> RunFolder:
    """One whose page is drawn soon."""
    folder = write_run(root, blocks=1)
    keep_only(folder, lambda raw: raw["quantity"] == "boot.total")
    return folder


@pytest.mark.usefixtures("at_once")
def test_a_page_is_written_after_the_first_block_and_shown_once(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    notes, shown = Notes(), []
    with Growing(folder.path, notes, lambda page: bool(shown.append(page) or True)) as grow:
        grow(30.0, 300.0)
        page = folder.path / "report.html"
        assert 'data-again="30"' in page.read_text()
        assert shown == [page]
        grow.took = 0.0
        page.unlink()
        grow(30.0, 300.0)
        assert page.exists()
        page.unlink()
        grow.took = 1000.0  # it would cost more than a tenth of the time
        grow(30.0, 300.0)
        assert not page.exists()
    assert len(shown) == len(notes.notes) == 1


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_after_the_last_block_a_page_is_written_for_who_waits_to_see_one(is_waited_for: bool, tmp_path: Path) -> None:
    folder, shown = small_run(tmp_path), []
    with Growing(
        folder.path, Notes(), (lambda page: bool(shown.append(page) or True)) if is_waited_for else None
    ) as grow:
        grow(30.0, 0.0)
        grow(30.0, 0.0)
    assert len(shown) == is_waited_for == (folder.path / "report.html").exists()


def test_a_page_that_the_report_replaces_shortly_is_not_written(tmp_path: Path) -> None:
    folder, notes = small_run(tmp_path), Notes()
    with Growing(folder.path, notes) as grow:
        grow(2.0, 20.0)
    assert not (folder.path / "report.html").exists()
    assert notes.notes == []


@pytest.mark.usefixtures("at_once")
def test_what_ends_otherwise_no_longer_grows(tmp_path: Path) -> None:
    folder, notes = small_run(tmp_path), Notes()
    page = folder.path / "report.html"

    def interrupted() -> None:
        with Growing(folder.path, notes) as grow:
            grow(30.0, 300.0)
            assert 'class="growing"' in page.read_text()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert 'class="growing"' not in (folder.path / "report.html").read_text()


def test_a_failure_harms_no_run(tmp_path: Path) -> None:
    folder, notes = small_run(tmp_path), Notes()
    (folder.path / "run.json").write_text("{")
    with Growing(folder.path, notes) as grow:
        grow(30.0, 300.0)
        grow(30.0, 300.0)
    assert sum("can't be written" in note for note in notes.notes) == 1


def test_a_finished_report_takes_its_place_and_looks_no_more(tmp_path: Path) -> None:
    from lab.studies.compare.report.writer import write

    folder = small_run(tmp_path)
    assert "still measur" in write_growing(folder.path, 5).read_text().lower()
    write(folder.path, ["html"])
    assert 'class="growing"' not in (folder.path / "report.html").read_text()


@pytest.mark.parametrize("claimed", ["", "0", "no number", "-1", "4294967294"])
def test_root_opens_no_browser_of_its_own(claimed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a browser was started")

    monkeypatch.setattr(growing.subprocess, "Popen", refuse)
    monkeypatch.setattr(growing.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", claimed)
    monkeypatch.setenv("DISPLAY", ":0")
    assert not open_page(tmp_path)
