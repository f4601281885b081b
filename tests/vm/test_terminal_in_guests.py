"""``lab exec -it`` from a real terminal into a detached guest, and ``lab cp``; see `test_streams_in_guests`."""

from __future__ import annotations

import os
import subprocess
import time
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


STREAM_BYTES = 3_000_000  # more than a port's queue, QEMU's socket and a pipe of the host's hold together
READER_SECONDS = 2.5  # longer than a guest waits for processes that outlive its application


@pytest.mark.parametrize(
    ("backend", "before"),
    [
        ("microvm", "sleep 600 & "),
        pytest.param("microvm", "", marks=pytest.mark.nightly),
        pytest.param("vm", "sleep 600 & ", marks=pytest.mark.nightly),
    ],
)
def test_a_reader_that_takes_its_time_gets_the_last_byte(
    backend: str, before: str, image: str, same_host: None
) -> None:
    """The application ends long before all that it has written is read, and a process that it leaves behind holds its
    output open.
    """
    script = f"{before}head -c {STREAM_BYTES} /dev/zero; echo bye >&2; exit 3"
    words = ("run", "--on", backend, image, "--", "sh", "-c", script)
    with subprocess.Popen([*seated.LAB, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as lab:
        assert lab.stdout is not None
        assert lab.stderr is not None
        taken = len(lab.stdout.read(1))
        time.sleep(READER_SECONDS)
        taken += len(lab.stdout.read())
        said = lab.stderr.read().decode()
    assert (lab.returncode, taken, unhurried(said)) == (3, STREAM_BYTES, "bye\n")
