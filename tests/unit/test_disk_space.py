"""A full disk is said before it is met, or as what it is."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from lab.errors import ImageError, ResultsError
from lab.images.debian import mmdebstrap
from lab.studies.compare.report import writer


def test_a_debian_is_not_begun_without_the_space_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=20 << 20))
    with pytest.raises(ImageError, match=r"needs 1 GiB of disk, and .* has 20 MiB") as caught:
        mmdebstrap.mmdebstrap("bookworm", tmp_path / "root", tmp_path, [])
    assert "LAB_HOME" in caught.value.hint


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "copy the run")])
def test_a_report_that_finds_no_space_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(writer.Material, "read", lambda folder: None)
    monkeypatch.setattr(writer, "draw_all", refuse)
    with pytest.raises(ResultsError) as caught:
        writer.write(tmp_path)
    assert remedy in caught.value.hint
