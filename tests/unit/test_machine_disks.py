"""A disk is made once; a half-made or damaged one is noticed, and made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines.disk import DISK, UNFINISHED, kept


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("LAB_MACHINES", str(tmp_path))
    return []


def make_into(made: list[Path], tmp_path: Path) -> Path:
    def make(work: Path) -> dict[str, str]:
        made.append(work)
        with (work / DISK).open("wb") as disk:
            disk.write(b"begin")
            disk.seek(8 << 20)
            disk.write(b"end")
        return {}

    return kept(tmp_path / "disks/some-1", make).path


def test_it_is_made_once(made: list[Path], tmp_path: Path) -> None:
    assert make_into(made, tmp_path) == make_into(made, tmp_path)
    assert len(made) == 1


@pytest.mark.parametrize("at", [2, 4 << 20, 8 << 20])
def test_a_damaged_one_is_made_anew(made: list[Path], tmp_path: Path, at: int) -> None:
    disk = make_into(made, tmp_path)
    disk.chmod(0o600)
    with disk.open("rb+") as opened:
        opened.seek(at)
        opened.write(b"x")
    make_into(made, tmp_path)
    assert len(made) == 2
    assert disk.read_bytes().startswith(b"begin")


def test_zeros_in_place_of_a_hole_are_no_damage(made: list[Path], tmp_path: Path) -> None:
    """The kernel may tell one for the other until everything is written back."""
    disk = make_into(made, tmp_path)
    disk.chmod(0o600)
    with disk.open("rb+") as opened:
        opened.seek(3 << 20)
        opened.write(bytes(5 << 20))
    make_into(made, tmp_path)
    assert len(made) == 1


def test_a_shortened_one_is_made_anew(made: list[Path], tmp_path: Path) -> None:
    disk = make_into(made, tmp_path)
    disk.chmod(0o600)
    with disk.open("rb+") as opened:
        opened.truncate(1 << 20)
    make_into(made, tmp_path)
    assert len(made) == 2


def test_a_half_made_one_is_never_used(made: list[Path], tmp_path: Path) -> None:
    half = tmp_path / f"disks/some-1{UNFINISHED}"
    half.mkdir(parents=True)
    (half / DISK).write_bytes(b"begin")
    disk = make_into(made, tmp_path)
    assert made
    assert disk.stat().st_size > 5
    assert not half.exists()
