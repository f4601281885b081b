"""What a container does or doesn't do inside holds up no command outside; by night the same of runc."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oci
import pytest
from oci import BASE_INTERPRETER, Runtime, until

import lab

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


def _with_terminal(config: dict[str, Any]) -> None:
    config["process"]["terminal"] = True


def _only_of_lab_oci(runtime: Runtime) -> None:
    if runtime.name != "lab-oci":
        pytest.skip("runc wants a terminal of its caller's, and leaves its container when that goes")


def _words(runtime: Runtime, script: str) -> list[str]:
    return runtime.words("run", "--bundle", runtime.bundle(script, edit=_with_terminal), runtime.new())


def _ended(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(SECONDS)
    finally:
        process.kill()


def test_keys_that_nobody_reads_do_not_outlive_the_application(runtime: Runtime) -> None:
    _only_of_lab_oci(runtime)
    with tempfile.TemporaryFile() as keys:
        keys.write(b"key\n" * (1 << 20))
        keys.seek(0)
        words = _words(runtime, "stty raw; sleep 1; exit 5")
        with subprocess.Popen(words, stdin=keys, stdout=subprocess.DEVNULL) as process:
            assert _ended(process) == 5
    assert runtime.left() == []


def test_output_is_shown_to_its_end_however_slowly_it_is_read(runtime: Runtime) -> None:
    _only_of_lab_oci(runtime)
    words = _words(runtime, "seq 20000")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = b""
        while data := os.read(process.stdout.fileno(), 5000):
            time.sleep(0.005)
            said += data
        assert _ended(process) == 0
    assert said.split() == [b"%d" % number for number in range(1, 20001)]


def test_keys_go_in_while_nobody_reads_the_output(runtime: Runtime) -> None:
    """The application has written more than a pipe and a terminal hold when it waits for a word."""
    _only_of_lab_oci(runtime)
    script = "(while :; do echo much; done) & read word; echo $word >/tmp/typed; kill $!; exit 6"
    typed = runtime.rootfs / "tmp/typed"
    with subprocess.Popen(_words(runtime, script), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        time.sleep(0.5)
        os.write(process.stdin.fileno(), b"typed\n")
        until(typed.exists, "what was typed")
        while os.read(process.stdout.fileno(), 1 << 16):
            pass
        assert _ended(process) == 6
    typed.unlink()
    assert runtime.left() == []


@pytest.mark.parametrize("seen", ["a pipe", "a terminal"])
def test_where_nobody_sees_the_output_any_more_the_terminal_hangs_up(runtime: Runtime, seen: str) -> None:
    _only_of_lab_oci(runtime)
    read, write = pty.openpty() if seen == "a terminal" else os.pipe()
    words = _words(runtime, "trap 'exit 7' HUP; while :; do echo much; done 2>/dev/null")
    stdin = write if seen == "a terminal" else subprocess.DEVNULL
    with subprocess.Popen(words, stdin=stdin, stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        assert os.read(read, 100)
        os.close(read)
        assert _ended(process) == 7
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert runtime.left() == []


def test_a_run_that_fails_while_it_waits_leaves_no_container(runtime: Runtime) -> None:
    _only_of_lab_oci(runtime)
    code = (
        f"import sys; sys.path.append({str(Path(lab.__file__).parent.parent)!r})\n"
        "from lab.runtime.oci.waiting import foreground\n"
        "def broken(*_given): raise OSError(5, 'injected')\n"
        "foreground.until_ended = broken\n"
        "from lab.runtime.oci.main import main\n"
        "main()\n"
    )
    words = runtime.words("run", "--bundle", runtime.bundle("sleep 1000"), runtime.new())[3:]
    done = subprocess.run(
        [BASE_INTERPRETER, "-IS", "-c", code, *words], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert (done.returncode, "injected" in done.stderr) == (1, True)
    assert runtime.left() == []
