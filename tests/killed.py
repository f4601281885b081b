"""lab is killed while an instance runs: nothing of it is left, once the launcher or ``lab clean`` has been there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from host_state import assert_unchanged, snapshot, told_of

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of

SECONDS = 100
FORGETFUL = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import contract
from tiny import tiny_image
from lab.backends.site import Site

site = Site.open()
image = tiny_image(site.store)
site.backend({backend!r}).prepare(image)
site.backend({backend!r}).launch(contract.request(site, image, "lost", "sleep", "600", logs=Path({logs!r})))
print(site.session.id, flush=True)
input()
"""


def check_a_killed_lab_leaves_nothing(backend: str, logs: Path, look: Callable[[str], None]) -> None:
    """``look`` sees the session while the instance runs, and fails when what has to be gone later is not there."""
    before = snapshot()
    with killed_lab(backend, logs) as session:
        look(session)
    assert_unchanged(before)


@contextmanager
def killed_lab(backend: str, logs: Path, preface: str = "") -> Iterator[str]:
    """The session of a lab that runs an instance, and is killed in the end; then it is cleaned up after. ``preface``
    is code that makes the backend known.
    """
    script = preface + FORGETFUL.format(tests=str(Path(__file__).parent), backend=backend, logs=str(logs))
    with cleaned(script) as session:
        yield session


@contextmanager
def cleaned(script: str) -> Iterator[str]:
    """What a lab's ``script`` prints, its session; it is killed in the end, and cleaned up after."""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout
        session = lab.stdout.readline().strip()
        try:
            yield session
        finally:
            lab.send_signal(signal.SIGKILL)
    group = ControlGroup.open(group_of(session))
    deadline = time.monotonic() + SECONDS
    while group.exists() and time.monotonic() < deadline:
        clean = [sys.executable, "-c", "from lab.cli.main import main; main()", "clean"]
        subprocess.run(clean, check=False, capture_output=True)
        time.sleep(0.1)
    assert not group.exists()


def names_in(group: str) -> set[str]:
    """What the processes of a control group are called (proc_pid_comm(5))."""
    return set(told_of(ControlGroup.open(group).processes(), "comm").values())
