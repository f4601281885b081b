"""No convenience lets anybody out. The same attempts, under three runtimes, are a table in docs/security.md."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bundles import ALL_RUNTIMES, Bundle, configuration, installed
from conveniences import ATTEMPTS, HELD, THROUGH, VERSIONS, Attempt, Place
from roots import fill, open_folder

PlaceOf = Callable[[str], Place]
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
WORDS = {HELD: "holds", THROUGH: "**lets through**"}


@pytest.fixture
def place(escape_root: Path, tmp_path: Path) -> Iterator[PlaceOf]:
    """A place for one attempt under the runtime named."""
    with ExitStack() as opened:

        def make(runtime: str) -> Place:
            folder = opened.enter_context(open_folder())
            root = folder / "rootfs"
            root.mkdir()
            fill(root)
            shutil.copy(escape_root / "bin" / "escape", root / "bin" / "escape")
            return Place(runtime=runtime, bundle=Bundle(folder=folder, value=configuration()), folder=tmp_path)

        yield make


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_lab_holds(place: PlaceOf, attempt: Attempt) -> None:
    assert attempt.attempt(place("lab-oci")) == attempt.expected("lab-oci")


CONTROLLED = {name: attempt for name, attempt in ATTEMPTS.items() if attempt.control}


@pytest.mark.parametrize("attempt", CONTROLLED.values(), ids=CONTROLLED)
def test_the_control_gets_through(place: PlaceOf, attempt: Attempt) -> None:
    assert attempt.control is not None
    assert attempt.control(place("lab-oci")) == THROUGH


@pytest.mark.nightly
@pytest.mark.parametrize("runtime", VERSIONS)
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_what_the_references_do(place: PlaceOf, attempt: Attempt, runtime: str) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    found = attempt.attempt(place(runtime))
    if VERSIONS[runtime] in subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True).stdout:
        assert found == attempt.expected(runtime)


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_where_lab_lets_more_through_it_is_a_bug(attempt: Attempt) -> None:
    assert attempt.expected("lab-oci") == HELD or set(attempt.through) == set(ALL_RUNTIMES)


def test_the_page_has_every_attempt_with_what_becomes_of_it() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    expected = [
        (each.asks, each.gets, *(WORDS[each.expected(runtime)] for runtime in ALL_RUNTIMES))
        for each in ATTEMPTS.values()
    ]
    assert [row for row in rows if row[2] in WORDS.values()] == expected
    for runtime, version in VERSIONS.items():
        assert f"{runtime} {version}" in PAGE.read_text()
