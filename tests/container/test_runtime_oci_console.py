"""A terminal of the container's own, handed to the caller as runtimes do it; under lab's runtime and under runc."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest
from bundles import RUNTIMES, Bundle, configuration, installed, program
from host_state import assert_unchanged, snapshot
from roots import fill, open_folder

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.hierarchy import Hierarchies, Unused
from lab.runtime.plan import Step

SECONDS = 120


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    with open_folder() as folder:
        (folder / "rootfs").mkdir()
        fill(folder / "rootfs")
        made = Bundle(folder=folder, value=configuration(terminal=True, consoleSize={"height": 33, "width": 101}))
        made.write(f"/lab/test-{uuid.uuid4().hex[:8]}/one")
        yield made
        for tree in (Hierarchies.detect(), Unused.detect()):
            path = made.value["linux"]["cgroupsPath"].strip("/")
            ControlGroup.open(path, hierarchies=tree).prune_parents()


def call(bundle: Bundle, runtime: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program(runtime), "--root", bundle.folder / "state", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env=os.environ | environment,
    )


def received(listener: socket.socket) -> int:
    """The master of the terminal, from whoever connects."""
    listener.settimeout(SECONDS)
    connection, _ = listener.accept()
    with connection:
        _, (descriptor,), _, _ = socket.recv_fds(connection, 4096, 1)
    return descriptor


def read(master: int, last: str = "") -> str:
    """Until ``last``, or until the last process that has the terminal open has ended: EIO then (pts(4))."""
    text = ""
    deadline = time.monotonic() + SECONDS
    while not last or not text.endswith(last):
        assert select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0], text
        try:
            text += os.read(master, 1 << 16).decode().replace("\r\n", "\n")
        except OSError:
            break
    return text


SCRIPT = """
tty; stty size; test -c /dev/console && echo console
ls -n $(tty) | awk '{print $1, $3, $4}'
awk '{print ($6 == $1), ($7 != 0)}' /proc/$$/stat
read word; echo "got $word"; echo through > /dev/console; echo own > /dev/tty
"""
EXPECTED = """/dev/pts/0
33 101
console
crw--w---- 1000 5
1 1
hello
got hello
through
own
"""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_terminal_is_the_containers_own(bundle: Bundle, runtime: str) -> None:
    if not installed(runtime):
        pytest.skip(f"{runtime} is not installed")
    bundle.value["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle.script(SCRIPT)
    bundle.write(bundle.value["linux"]["cgroupsPath"])
    name = f"t{uuid.uuid4().hex[:8]}"
    where = bundle.folder / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen()
        made = call(bundle, runtime, "create", "--bundle", str(bundle.folder), "--console-socket", str(where), name)
        assert made.returncode == 0, made.stderr
        try:
            master = received(listener)
            started = call(bundle, runtime, "start", name)
            assert started.returncode == 0, started.stderr
            said = read(master, "1 1\n")
            os.write(master, b"hello\n")
            assert said + read(master) == EXPECTED
            os.close(master)
        finally:
            call(bundle, runtime, "delete", "--force", name)


@pytest.mark.parametrize("step", [Step.HOOKS, Step.CONSOLE, Step.START_HOOKS])
def test_a_failure_at_a_step_of_bundles_leaves_nothing(bundle: Bundle, step: str) -> None:
    """`test_runtime_failures` does the same at every step that lab's own instances have."""
    hooks = {"createRuntime": [{"path": "/bin/true"}], "startContainer": [{"path": "/bin/true"}]}
    bundle.value["hooks"] = hooks
    bundle.write(bundle.value["linux"]["cgroupsPath"])
    name = f"t{uuid.uuid4().hex[:8]}"
    where = bundle.folder / "console"
    before = snapshot()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen()
        words = ["--bundle", str(bundle.folder), "--console-socket", str(where), name]
        failed = call(bundle, "lab-oci", "create", *words, LAB_OCI_FAIL_AT=step)
        if step == Step.START_HOOKS:
            assert failed.returncode == 0, failed.stderr
            failed = call(bundle, "lab-oci", "start", name)
    assert failed.returncode != 0
    assert f"{step}: injected failure" in failed.stderr
    if step == Step.START_HOOKS:
        assert call(bundle, "lab-oci", "delete", name).returncode == 0, "it has stopped"
    assert not list((bundle.folder / "state").glob("*"))
    assert_unchanged(before)
