"""``lab run -it`` and ``lab exec -it`` from a real terminal, on the backends of the host's kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import seated
from host_state import assert_unchanged, snapshot
from tiny import tiny_image
from told import unhurried

from lab.images.store import Store

ON_HOST = ["process", "container"]


@pytest.fixture(scope="module", autouse=True)
def image(lab_home: Path) -> str:
    return tiny_image(Store.open(lab_home)).name


@pytest.fixture(scope="module", params=ON_HOST)
def detached(request: pytest.FixtureRequest) -> Iterator[str]:
    before = snapshot()
    name = f"seated-{request.param}"
    started = seated.lab("run", "-d", "--name", name, "--on", request.param, "tiny", "--", "sleep", "600")
    assert started.returncode == 0, started.stderr
    yield name
    assert seated.lab("rm", "-f", name).returncode == 0
    assert_unchanged(before)


@pytest.mark.parametrize("backend", [*ON_HOST, "runc"])
def test_run_at_a_terminal(backend: str) -> None:
    before = snapshot()
    seated.check_shell("run", "-it", "--on", backend, "tiny", "--", "sh")
    assert_unchanged(before)


def test_exec_at_a_terminal(detached: str) -> None:
    seated.check_shell("exec", "-it", detached, "sh")


def test_exec_through_pipes(detached: str) -> None:
    seated.check_piped(detached)


def test_a_killed_client_leaves_nothing_running_and_the_terminal_right(detached: str) -> None:
    seated.check_killed(detached)


def test_an_interrupted_client_leaves_nothing_running(detached: str) -> None:
    seated.check_interrupted(detached)


def test_input_through_a_pipe_to_an_application() -> None:
    data = bytes(range(256)) * 4096
    done = seated.lab("run", "-i", "tiny", "--", "cat", stdin=data)
    assert (done.returncode, done.stdout == data, unhurried(done.stderr.decode())) == (0, True, "")
