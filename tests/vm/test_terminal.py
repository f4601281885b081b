"""``lab exec -it`` from a real terminal into a detached guest; `test_streams` has the rest."""

from __future__ import annotations

from pathlib import Path

import seated
from host_state import assert_unchanged, snapshot
from tiny import tiny_image

from lab.images.store import Store


def test_exec_in_a_detached_guest(lab_home: Path) -> None:
    image = tiny_image(Store.open(lab_home)).name
    before = snapshot()
    started = seated.lab("run", "-d", "--name", "seated", "--on", "microvm", image, "--", "sleep", "600")
    assert started.returncode == 0, started.stderr
    try:
        seated.check_shell("exec", "-it", "seated", "sh")
        seated.check_piped("seated")
        seated.check_killed("seated")
    finally:
        assert seated.lab("rm", "-f", "seated").returncode == 0
    assert_unchanged(before, within_seconds=20)
