"""``lab exec -it`` from a real terminal into a detached guest, and ``lab cp``; `test_streams` has the rest."""

from __future__ import annotations

import os
from pathlib import Path

import seated
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.images.store import Store


def test_exec_and_cp_in_a_detached_guest(lab_home: Path, tmp_path: Path) -> None:
    image = tiny_image(Store.open(lab_home)).name
    before = snapshot()
    started = seated.lab("run", "-d", "--name", "seated", "--on", "microvm", image, "--", "sleep", "600")
    assert started.returncode == 0, started.stderr
    try:
        seated.check_shell("exec", "-it", "seated", "sh")
        seated.check_piped("seated")
        seated.check_killed("seated")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/file").write_bytes(os.urandom(5 << 20))
        assert seated.lab("cp", str(tmp_path / "folder"), "seated:/tmp").returncode == 0
        assert seated.lab("cp", "seated:/tmp/folder/file", str(tmp_path)).returncode == 0
        assert (tmp_path / "file").read_bytes() == (tmp_path / "folder/file").read_bytes()
    finally:
        assert seated.lab("rm", "-f", "seated").returncode == 0
    assert_unchanged(before, within_seconds=20)


def test_input_through_a_pipe_to_an_application_in_a_guest(lab_home: Path) -> None:
    image = tiny_image(Store.open(lab_home)).name
    before = snapshot()
    data = os.urandom(1 << 20)
    done = seated.lab("run", "-i", "--on", "microvm", image, "--", "cat", stdin=data)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")
    assert_unchanged(before, within_seconds=20)
