"""No convenience lets anybody out. The same attempts are a table in docs/security.md."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bundles import Bundle, configuration
from conftest import fill, open_folder
from conveniences import ATTEMPTS, HELD, THROUGH, Attempt, Place

PlaceOf = Callable[[str], Place]


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
    assert attempt.attempt(place("lab-oci")) == HELD


CONTROLLED = {name: attempt for name, attempt in ATTEMPTS.items() if attempt.control}


@pytest.mark.parametrize("attempt", CONTROLLED.values(), ids=CONTROLLED)
def test_the_control_gets_through(place: PlaceOf, attempt: Attempt) -> None:
    assert attempt.control is not None
    assert attempt.control(place("lab-oci")) == THROUGH
