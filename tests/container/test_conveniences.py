"""No convenience lets anybody out. The same attempts are a table in docs/security.md."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import Bundle, configuration
from conftest import fill, open_folder
from conveniences import ATTEMPTS, HELD, THROUGH, Attempt, Place, Prepare, judge


@pytest.fixture
def place(escape_root: Path, tmp_path: Path) -> Iterator[Place]:
    with open_folder() as folder:
        root = folder / "rootfs"
        root.mkdir()
        fill(root)
        shutil.copy(escape_root / "bin" / "escape", root / "bin" / "escape")
        yield Place(bundle=Bundle(folder=folder, value=configuration()), folder=tmp_path)


def outcome(place: Place, runtime: str, prepare: Prepare) -> str:
    words = prepare(place)
    return judge(place.bundle.run(runtime, *words, check=False).output)


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_lab_holds(place: Place, attempt: Attempt) -> None:
    assert outcome(place, "lab-oci", attempt.prepare) == HELD


CONTROLLED = {name: attempt for name, attempt in ATTEMPTS.items() if attempt.control}


@pytest.mark.parametrize("attempt", CONTROLLED.values(), ids=CONTROLLED)
def test_the_control_gets_through(place: Place, attempt: Attempt) -> None:
    assert attempt.control is not None
    assert outcome(place, "lab-oci", attempt.control) == THROUGH
