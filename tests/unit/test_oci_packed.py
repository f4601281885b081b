"""All modules of a verb in one file: a changed source counts, a broken file is none, and nothing depends on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lab

PYTHON = getattr(sys, "_base_executable", sys.executable)
IMPORTED_BEFORE = {"lab", "lab.runtime", "lab.runtime.oci", "lab.runtime.oci.packed", "lab.shims"}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of lab that has never run."""
    shutil.copytree(Path(lab.__file__).parent, tmp_path / "lab", ignore=shutil.ignore_patterns("__pycache__"))
    yield tmp_path / "lab"
    assert not list((tmp_path / "lab").rglob("packed.*.[0-9]*")), "unfinished"


def file_of(checkout: Path) -> Path:
    return checkout / "runtime" / "oci" / "__pycache__" / f"packed.{sys.implementation.cache_tag}"


def ask(checkout: Path, *words: str, umask: int = -1) -> tuple[str, set[str]]:
    """What ``lab-oci`` says, and lab's modules that were imported each by itself."""
    program = checkout / "runtime" / "oci" / "lab-oci"
    command = [PYTHON, "-IS", "-v", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, umask=umask)
    found = [line.split("'")[1] for line in done.stderr.splitlines() if line.startswith("import 'lab")]
    alone = [line.split("'")[1] for line in done.stderr.splitlines() if "import 'lab" in line and "Source" in line]
    assert len(found) > len(IMPORTED_BEFORE)
    return done.stdout, set(alone)


def test_the_second_process_finds_all_of_it(checkout: Path) -> None:
    said, alone = ask(checkout, "features")
    assert alone > IMPORTED_BEFORE
    assert ask(checkout, "features") == (said, IMPORTED_BEFORE)


def test_another_verb_adds_what_it_needs(checkout: Path) -> None:
    ask(checkout, "features")
    _, alone = ask(checkout, "spec", "--bundle", str(checkout))
    assert alone > IMPORTED_BEFORE
    (checkout / "config.json").unlink()
    assert ask(checkout, "spec", "--bundle", str(checkout))[1] == IMPORTED_BEFORE
    assert ask(checkout, "features")[1] == IMPORTED_BEFORE


def test_a_source_that_has_changed_counts(checkout: Path) -> None:
    """One of the same size, too."""
    ask(checkout, "features")
    before = file_of(checkout).read_bytes()
    source = checkout / "runtime" / "versions.py"
    source.write_text(source.read_text().replace('"1.', '"9.'))
    os.utime(source, ns=(1, 1))
    said, alone = ask(checkout, "features")
    assert '"9.' in said
    assert alone == IMPORTED_BEFORE | {"lab.runtime.versions"}
    assert ask(checkout, "features") == (said, IMPORTED_BEFORE)
    assert file_of(checkout).read_bytes() != before


def test_a_copy_of_it_all_has_sources_of_its_own(checkout: Path, tmp_path: Path) -> None:
    """What was compiled comes with it, and with the times of what it was compiled from."""
    said, _ = ask(checkout, "features")
    copy = tmp_path / "copy" / "lab"
    shutil.copytree(checkout, copy, symlinks=True)
    assert ask(copy, "features") == (said, IMPORTED_BEFORE), "it counts where nothing has changed"
    source = copy / "runtime" / "versions.py"
    source.write_text(source.read_text().replace('"1.', '"9.'))
    said, alone = ask(copy, "features")
    assert '"9.' in said
    assert alone == IMPORTED_BEFORE | {"lab.runtime.versions"}
    shutil.rmtree(checkout)
    assert ask(copy, "features") == (said, IMPORTED_BEFORE)
    checkout.mkdir()


@pytest.mark.parametrize("damage", ["empty", "cut off", "nonsense", "of another version"])
def test_a_broken_file_is_none(checkout: Path, damage: str) -> None:
    said, _ = ask(checkout, "features")
    whole = file_of(checkout).read_bytes()
    broken = {
        "empty": b"",
        "cut off": whole[: len(whole) // 2],
        "nonsense": bytes(range(256)) * 9,
        "of another version": whole[:30].replace(b"\r\n", b"\r\t") + whole[30:],
    }[damage]
    assert broken != whole
    file_of(checkout).write_bytes(broken)
    said_then, alone = ask(checkout, "features")
    assert said_then == said
    assert alone > IMPORTED_BEFORE
    assert ask(checkout, "features")[1] == IMPORTED_BEFORE, "it was made anew"


def test_nobody_else_can_write_what_is_imported(checkout: Path) -> None:
    """With the caller's umask Python would make folders for compiled files that are everybody's."""
    ask(checkout, "features", umask=0)
    assert not [path for path in checkout.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o002]


def test_one_that_others_can_write_is_not_looked_at(checkout: Path) -> None:
    ask(checkout, "features", umask=0o022)
    assert file_of(checkout).stat().st_mode & 0o777 == 0o644
    file_of(checkout).chmod(0o646)
    assert ask(checkout, "features")[1] > IMPORTED_BEFORE
    assert file_of(checkout).stat().st_mode & 0o777 == 0o644, "made anew"


def test_one_of_somebody_elses_is_not_looked_at(checkout: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files are given to another user")
    ask(checkout, "features")
    os.chown(file_of(checkout), 1000, 1000)
    assert ask(checkout, "features")[1] > IMPORTED_BEFORE
    assert file_of(checkout).stat().st_uid == 0


def test_where_it_can_not_be_written_all_is_as_ever(checkout: Path) -> None:
    said, _ = ask(checkout, "features")
    file_of(checkout).unlink()
    file_of(checkout).mkdir()
    (file_of(checkout) / "in the way").touch()
    said_then, alone = ask(checkout, "features")
    assert said_then == said
    assert alone > IMPORTED_BEFORE
