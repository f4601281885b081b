"""A build that is ended in the middle of a step leaves nothing, or what the next command removes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import preloaded
import pytest
from host_state import assert_unchanged, snapshot, wait_until

LAB = preloaded.LAB
DOCKERFILE = """
FROM scratch
COPY busybox /bin/
RUN ["/bin/busybox", "sh", "-c", "echo begun; exec /bin/busybox sleep 600"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    busybox = shutil.which("busybox")
    assert busybox, "apt-get install busybox-static"
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(busybox, context)
    (context / "Dockerfile").write_text(DOCKERFILE)
    return context


def start(context: Path, output: Path) -> subprocess.Popen[bytes]:
    """``lab build``, in the middle of its RUN."""
    with output.open("wb") as writer:
        child = subprocess.Popen(
            [*LAB, "build", str(context), "-t", "interrupted"],
            stdout=writer, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    assert wait_until(lambda: b"\nbegun\n" in output.read_bytes()), output.read_text()
    return child


def test_ctrl_c_leaves_nothing(context: Path, tmp_path: Path, lab_home: Path) -> None:
    before = snapshot(lab_home)
    child = start(context, tmp_path / "output")
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(120) == 130
    assert "Traceback" not in (tmp_path / "output").read_text()
    assert_unchanged(before, home=lab_home)


def test_the_next_command_removes_what_a_kill_left(context: Path, tmp_path: Path, lab_home: Path) -> None:
    before = snapshot(lab_home)
    child = start(context, tmp_path / "output")
    child.kill()
    child.wait(120)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY busybox /bin/\n")
    preloaded.run([*LAB, "build", str(context), "-t", "next"], check=True, timeout=250)
    assert_unchanged(before, home=lab_home)


def test_builds_at_once_of_which_one_is_killed_leave_a_store_that_is_proven(context: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "LAB_HOME": str(home)}
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/\n" + "".join(f"COPY busybox /copy-{number}\n" for number in range(12))
    )
    completed = 0
    for number in range(3):
        children = [
            subprocess.Popen(
                [*LAB, "build", str(context), "-t", f"round-{number}-{each}"],
                env=environment, stderr=subprocess.DEVNULL,
            )
            for each in range(2)
        ]  # fmt: skip
        time.sleep(0.4 + 0.2 * number)  # from before the first layer to among the last
        children[0].kill()
        completed += sum(child.wait(120) == 0 for child in children)
        verdict = preloaded.run(
            [*LAB, "image", "verify"], env=environment, capture_output=True, text=True, check=False
        )
        assert verdict.returncode == 0, verdict.stdout
    assert completed >= 3
    preloaded.run([*LAB, "image", "prune", "--cache"], env=environment, check=True)
    assert not list((home / "tmp").iterdir())
    preloaded.run([*LAB, "image", "verify"], env=environment, check=True)
