"""What gVisor is to go on from is what the same program has saved, and has not been touched since."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.backends.sentry.saved import SentryCheckpoint
from lab.backends.support.programs.binary import look_at
from lab.backends.support.programs.ociprogram import Runtime
from lab.errors import LabError, LaunchError


def program(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_by_whom_and_what_it_was_saved(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir(mode=0o700)
    (images / "pages.img").write_bytes(b"memory")
    runtime = Runtime(binary=look_at(program(tmp_path / "runsc", "one")), options=("--platform=systrap",))
    saved = SentryCheckpoint.of(images, tmp_path / "upper", runtime)
    saved.require_safe(runtime)
    other = replace(runtime, binary=look_at(program(tmp_path / "other", "two")))
    same = replace(runtime, binary=look_at(program(tmp_path / "same", "one")))
    saved.require_safe(same)
    for another in (other, replace(runtime, options=("--platform=ptrace",))):
        with pytest.raises(LaunchError, match="another than the one that saved it"):
            saved.require_safe(another)
    (images / "more.img").touch()
    with pytest.raises(LaunchError, match="changed since"):
        saved.require_safe(runtime)
    (images / "more.img").unlink()
    saved.require_safe(runtime)
    images.rename(tmp_path / "moved")
    images.symlink_to(tmp_path / "moved")
    with pytest.raises(LaunchError, match="others than its owner"):
        saved.require_safe(runtime)
    program(tmp_path / "runsc", "three")
    with pytest.raises(LabError, match="was changed"):
        saved.require_safe(runtime)
