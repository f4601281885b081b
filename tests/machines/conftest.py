"""Ordinary machines for the tests: one at a time, the checkout on it. A failure keeps its console and its journal."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from .debian import Root
from .disk import cache
from .machine import Machine, MachineError, start, throwaway_folder

SECONDS = 5400  # for a test: a fixture may have to make a disk and boot, and everything there is emulated
FAILURES_KEPT = 10
TAIL_LINES = 60
JOURNAL = "journalctl --boot --no-pager --output=short-monotonic"

FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest, lab_home: Path) -> Iterator[Machine]:
    """A booted one of the suite that the test module names, with lab's packages and this checkout."""
    with booted(Root(suite=request.param)) as made:
        made.push()
        yield made


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted one of the suite with nothing of lab's, and for one test alone."""
    with booted(Root(suite=request.param, fresh=True)) as made:
        yield made


class booted:  # noqa: N801  # used as a function is
    """A machine that is stopped at the end, and has never been there."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def __enter__(self) -> Machine:
        self._folder = throwaway_folder()
        try:
            self._machine = start(self._root, self._folder)
        except BaseException as error:  # Ctrl-C, too
            if isinstance(error, MachineError):
                keep(self._folder, f"{self._root.name} did not boot")
            self.__exit__()
            raise
        return self._machine

    def __exit__(self, *_: object) -> None:
        if self._folder.exists():
            Machine(self._folder).stop()
        shutil.rmtree(self._folder.parent, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What its machine said belongs to a test that failed."""
    report = yield
    for made in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(made, Machine) and made.folder.exists():
            kept = keep(made.folder, item.name, journal_of(made))
            for name in ("console.log", "journal.log"):
                lines = (kept / name).read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]
                report.sections.append((f"{name}, whole in {kept}", "\n".join(lines)))
    return report


def journal_of(made: Machine) -> str:
    try:
        return made.run(JOURNAL, timeout_seconds=300).stdout
    except MachineError as error:
        return f"the journal can't be read: {error}"


def keep(folder: Path, why: str, journal: str = "") -> Path:
    """Copy what a machine said to where it stays, and forget the oldest."""
    place = cache() / "failed"
    kept = place / f"{time.strftime('%Y%m%dT%H%M%S')}-{re.sub(r'[^A-Za-z0-9]+', '-', why)[:60]}"
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("console.log", "qemu.log"):
        if (folder / name).exists():
            shutil.copy(folder / name, kept)
    (kept / "journal.log").write_text(journal)
    for old in sorted(place.iterdir())[:-FAILURES_KEPT]:
        shutil.rmtree(old)
    return kept
