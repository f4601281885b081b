"""What a container does or doesn't do inside holds up no command outside; by night the same of runc."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import oci
import pytest
from oci import Runtime, until

SECONDS = 30.0


@pytest.fixture(scope="module", params=["lab-oci", pytest.param("runc", marks=pytest.mark.nightly)])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    if request.param != "lab-oci" and shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with oci.opened(request.param) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _clean(runtime: Runtime) -> Iterator[None]:
    yield
    runtime.close()


def _sleeps_in_a_hook(config: dict[str, Any]) -> None:
    script = "echo >/tmp/in-the-hook; sleep 1000"
    config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]}


def test_a_start_that_waits_for_a_hook_does_not_hold_up_its_deletion(runtime: Runtime) -> None:
    name, mark = runtime.new(), runtime.rootfs / "tmp/in-the-hook"
    runtime.ok("create", "--bundle", runtime.bundle("true", edit=_sleeps_in_a_hook), name)
    with subprocess.Popen(runtime.words("start", name), stderr=subprocess.DEVNULL) as starting:
        try:
            until(mark.exists, "the hook")
            began = time.monotonic()
            with subprocess.Popen(runtime.words("delete", "--force", name)) as deleting:
                try:
                    assert deleting.wait(SECONDS) == 0
                finally:
                    deleting.kill()
            assert time.monotonic() - began < SECONDS
            starting.wait(SECONDS)
        finally:
            starting.kill()
            mark.unlink()
    assert runtime.left() == []


def test_one_that_was_paused_before_its_start_goes_on(runtime: Runtime) -> None:
    name = runtime.new()
    runtime.ok("create", "--bundle", runtime.bundle("sleep 1000"), name)
    runtime.ok("pause", name)
    assert runtime.status(name) == "paused"
    if runtime.name == "lab-oci":  # runc's waits until it is resumed
        done = runtime("start", name)
        assert (done.code, "cannot start a paused container" in done.err) == (1, True)
    runtime.ok("resume", name)
    assert runtime.status(name) == "created"
    runtime.ok("start", name)
    assert runtime.status(name) == "running"
    runtime.ok("delete", "--force", name)
    assert runtime.left() == []
