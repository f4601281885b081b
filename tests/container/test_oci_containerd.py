"""containerd with lab-oci in place of runc, through its shim for runc: ``ctr run --runc-binary``."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import oci
import pytest
from oci import until

from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.group import Group
from lab.host.cgroup.hierarchy import Unused, make_room

pytestmark = pytest.mark.alone  # containerd mounts in the host's own namespace

CONFIGURATION = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/socket"
[ttrpc]
address = "{folder}/ttrpc"
"""

Ctr = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def ctr() -> Iterator[Ctr]:
    """A containerd of the test's own, ended by its pid; ``ctr("run", …)`` starts containers of one root."""
    if shutil.which("containerd") is None or shutil.which("ctr") is None:
        pytest.skip("containerd is not installed")
    group = f"lab/test-ctr-{uuid.uuid4().hex[:8]}"
    make_room(f"{group}/any")
    with oci.opened("lab-oci") as runtime, tempfile.TemporaryDirectory(prefix="lab-ctr-") as folder:
        (Path(folder) / "config.toml").write_text(CONFIGURATION.format(folder=folder))
        with (Path(folder) / "log").open("wb") as log:
            daemon = subprocess.Popen(["containerd", "--config", f"{folder}/config.toml"], stdout=log, stderr=log)

        def call(*words: str) -> subprocess.CompletedProcess[str]:
            given = list(words)
            if given[0] == "run":
                at = given.index("--")
                place = ["--rootfs", "--runtime", "io.containerd.runc.v2", "--runc-binary", str(oci.LAB_OCI)]
                given[at : at + 1] = [*place, "--cgroup", f"/{group}/{uuid.uuid4().hex[:8]}", str(runtime.rootfs)]
            words = ("ctr", "--address", f"{folder}/socket", *given)
            return subprocess.run(words, capture_output=True, text=True, timeout=250, check=False)

        try:
            until(lambda: call("version").returncode == 0, "containerd")
            yield call
        finally:
            daemon.terminate()
            daemon.wait(120)
            everything = Group(group)
            everything.kill()
            everything.remove()
            ControlGroup.open(f"{group}/any", hierarchies=Unused.detect()).prune_parents()


def test_in_the_foreground(ctr: Ctr) -> None:
    done = ctr("run", "--rm", "--", "one", "/bin/echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert ctr("run", "--rm", "--", "two", "/bin/sh", "-c", "exit 7").returncode == 7


def test_a_missing_program(ctr: Ctr) -> None:
    done = ctr("run", "--rm", "--", "missing", "/no-such-program")
    assert done.returncode == 1
    assert "executable file not found in $PATH" in done.stderr  # from the JSON log, where the shim looks


def test_a_life_in_the_background(ctr: Ctr) -> None:
    done = ctr("run", "-d", "--", "life", "/bin/sleep", "1000")
    assert done.returncode == 0, done.stderr
    assert "RUNNING" in ctr("task", "ls").stdout
    assert ctr("task", "exec", "--exec-id", "beside", "life", "/bin/sh", "-c", "exit 3").returncode == 3
    assert ctr("task", "pause", "life").returncode == 0
    assert "PAUSED" in ctr("task", "ls").stdout
    assert ctr("task", "resume", "life").returncode == 0
    assert "memory" in ctr("task", "metrics", "life").stdout
    assert ctr("task", "kill", "--signal", "KILL", "life").returncode == 0
    until(lambda: "STOPPED" in ctr("task", "ls").stdout, "the end")
    ctr("task", "rm", "life")  # its exit code is the task's
    assert ctr("container", "rm", "life").returncode == 0
