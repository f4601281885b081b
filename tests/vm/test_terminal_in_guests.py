"""``lab exec -it`` from a real terminal into a detached guest, and ``lab cp``; see `test_streams_in_guests`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import seated
from host_state import assert_unchanged, snapshot
from tiny import tiny_image
from told import unhurried

from lab.backends.site import Site


@pytest.fixture(scope="module")
def image() -> str:
    """Prepared before anything is timed: a guest is built at its first use."""
    with Site.open() as site:
        image = tiny_image(site.store)
        site.backend("microvm").prepare(image)
    return image.name


@pytest.fixture
def same_host(image: str) -> Iterator[None]:
    before = snapshot()
    yield
    assert_unchanged(before)


def test_exec_and_cp_in_a_detached_guest(image: str, same_host: None, tmp_path: Path) -> None:
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


def test_input_through_a_pipe_to_an_application_in_a_guest(image: str, same_host: None) -> None:
    data = os.urandom(1 << 20)
    done = seated.lab("run", "-i", "--on", "microvm", image, "--", "cat", stdin=data)
    assert (done.returncode, done.stdout == data, unhurried(done.stderr.decode())) == (0, True, "")
