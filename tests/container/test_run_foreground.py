"""``lab run`` as a user starts it: output, exit codes, signals, and a host that is as it was, whatever ended it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import preloaded
import pytest
from contract import free_port
from host_state import RUNTIME, assert_unchanged, descendants, snapshot, wait_until
from tiny import GREETING, tiny_image
from told import unhurried

from lab.backends.support.output import DRAIN_SECONDS
from lab.commands.running.wanted import GRACE_SECONDS
from lab.images.store import Store

LAB = [sys.executable, "-m", "lab.cli.main"]
ON_HOST = ["process", "container"]


@pytest.fixture(scope="module", autouse=True)
def image(lab_home: Path) -> str:
    return tiny_image(Store.open(lab_home)).name


@pytest.fixture(autouse=True)
def same_host() -> Iterator[None]:
    """Whatever a test does, and however it ends, nothing may be left."""
    before = snapshot()
    yield
    assert_unchanged(before)


def lab(*words: str, timeout_seconds: float = 60) -> subprocess.CompletedProcess[str]:
    return preloaded.run([*LAB, *words], capture_output=True, text=True, timeout=timeout_seconds, check=False)


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*LAB, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ready(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Returns once the application has said its first line."""
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("backend", ON_HOST)
def test_output_and_exit_code(backend: str) -> None:
    script = "echo $GREETING; echo to stderr >&2; exit 7"
    done = lab("run", "tiny", "--on", backend, "-e", "GREETING=good day", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (7, "good day\n")
    assert unhurried(done.stderr) == "to stderr\n"


def test_an_application_that_a_signal_ends_has_the_exit_code_of_a_shell() -> None:
    assert lab("run", "tiny", "--", "sh", "-c", "kill -SEGV $$").returncode == 139


def test_limits_and_name_are_those_given() -> None:
    words = ("--memory", "64M", "--cpus", "0.5", "--pids", "20", "--name", "web-1", "--rm")
    done = lab("run", "tiny", *words, "--", "sh", "-c", "hostname; cat /sys/fs/cgroup/*/memory.limit_in_bytes || :")
    assert done.returncode == 0
    lines = done.stdout.split()
    assert lines[0] == "web-1"
    assert lines[1:] in ([str(64 << 20)], [])  # cgroup v2 has another file


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["absent"], 1, "no image, scenario or folder is called absent"),
        (["tiny", "--memory", "1x"], 2, "is not a size"),
        (["tiny", "--cpus", "no"], 2, "is not a number of CPUs"),
        (["tiny", "--on", "absent"], 2, "no backend is called absent"),
        (["tiny", "-p", "80"], 0, "is published at http://127.0.0.1:"),
        (["tiny", "-p", "no:no"], 2, "HOST_PORT:PORT"),
        (["tiny", "--name", "../up"], 2, "can't be a name"),
        (["tiny", "--", "/absent"], 127, "No such file"),
        (["tiny", "--", "/etc/passwd"], 126, "Permission denied"),
    ],
)
def test_one_clear_line_and_the_right_exit_code(words: list[str], code: int, message: str) -> None:
    words = words if "--" in words else [*words, "--", "true"]
    done = lab("run", *words)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = lab("run", "tiny", "-p", f"{taken.getsockname()[1]}:8000")
    assert done.returncode == 125
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ON_HOST)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_cleans_up(backend: str, number: int, code: int) -> None:
    script = "trap 'echo asked; exit 0' INT TERM; echo ready; while :; do sleep 0.05; done"
    with ready(start("run", "tiny", "--on", backend, "--", "sh", "-c", script)) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=250)
    assert (process.returncode, out, unhurried(err)) == (code, "asked\n", "")


STREAM_BYTES = 190_000  # lab's pipes hold it, when its application has ended
READER_SECONDS = 1.2 * DRAIN_SECONDS  # longer than lab waits for a process that escaped and holds a stream open


@pytest.mark.parametrize("backend", ["container", pytest.param("process", marks=pytest.mark.nightly)])
def test_a_reader_that_takes_its_time_gets_the_last_byte(backend: str) -> None:
    """As a pager does, in front of which somebody sits."""
    words = (*LAB, "run", "tiny", "--on", backend, "--", "head", "-c", str(STREAM_BYTES), "/dev/zero")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        taken = len(process.stdout.read(1))
        time.sleep(READER_SECONDS)
        taken += len(process.stdout.read())
    assert (process.returncode, taken) == (0, STREAM_BYTES)


@pytest.mark.nightly
@pytest.mark.parametrize("backend", ON_HOST)
def test_a_reader_that_takes_nothing_keeps_no_signal_from_ending_it(backend: str) -> None:
    words = (*LAB, "run", "tiny", "--on", backend, "--", "sh", "-c", "while :; do echo more; done")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(1)
        time.sleep(1)  # until every pipe is full
        process.send_signal(signal.SIGTERM)
        assert process.wait(250) == 143


TAKEN_BY_ANOTHER_THREAD = """
import os, signal, sys, threading, time

def send():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    for _ in sys.stdin:
        os.kill(os.getpid(), signal.SIGINT)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
threading.Thread(target=send, daemon=True).start()
from lab.cli.main import main
main()
"""


def test_a_signal_is_heard_that_came_just_before_it_began_to_wait() -> None:
    """Nothing wakes it then, as if another thread had got the signal."""
    words = (sys.executable, "-c", TAKEN_BY_ANOTHER_THREAD, "run", "tiny", "--", "sh", "-c", "echo ready; sleep 600")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ready(subprocess.Popen(words, text=True, **pipes)) as process:
        process.communicate("\n", timeout=250)
    assert process.returncode == 130


def test_so_is_a_second_one_before_its_grace() -> None:
    script = "trap 'echo deaf' INT; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    words = (sys.executable, "-c", TAKEN_BY_ANOTHER_THREAD, "run", "tiny", "--", "sh", "-c", script)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ready(subprocess.Popen(words, text=True, bufsize=1, **pipes)) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        assert process.stdout.readline() == "deaf\n"
        began = time.monotonic()
        process.communicate("\n", timeout=250)
        took = time.monotonic() - began
    assert process.returncode == 130
    assert took < GRACE_SECONDS


def test_a_second_signal_is_impatient() -> None:
    """An application that is deaf to both is killed before its ten seconds of grace are over."""
    script = "trap 'echo deaf' INT; trap '' TERM; echo ready; while :; do sleep 0.05; done"
    with ready(start("run", "tiny", "--", "sh", "-c", script)) as process:
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout
        assert process.stdout.readline() == "deaf\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=250)
        took = time.monotonic() - began
    assert process.returncode == 130
    assert took < GRACE_SECONDS


def test_a_published_port_leads_to_it() -> None:
    port = free_port()
    with start("run", "tiny", "-p", f"{port}:8000") as process:
        assert process.stderr
        first = next(line for line in process.stderr if unhurried(line))
        assert f" http://127.0.0.1:{port}\n" in first
        assert wait_until(lambda: fetch(port) == GREETING)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=250)
    assert process.returncode == 143


def fetch(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
            text: str = response.read().decode()
            return text
    except OSError:
        return ""


def session_of(process: subprocess.Popen[str]) -> Path:
    """The folder of a running command's session."""
    for folder in RUNTIME.iterdir():
        with suppress(OSError):  # another's may end just now
            if f'"pid": {process.pid},' in (folder / "owner.json").read_text():
                return folder
    raise AssertionError("it has no session")


def test_after_sigkill_the_launcher_cleans_up_at_once() -> None:
    with ready(start("run", "tiny", "--", "sh", "-c", "echo ready; sleep 600")) as process:
        assert session_of(process).is_dir()
        process.kill()
        process.communicate(timeout=250)
    # `same_host` finds nothing left, though no lab command has run since


@pytest.mark.alone
def test_after_sigkill_of_everything_the_next_command_cleans_up() -> None:
    with ready(start("run", "tiny", "--", "sh", "-c", "echo ready; sleep 600")) as process:
        session = session_of(process)
        family = descendants(process.pid)
        assert len(family) > 1
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: nobody gets the time to clean up
            for pid in family:
                with suppress(ProcessLookupError):  # the kernel has killed it along with another
                    os.kill(pid, number)
        process.communicate(timeout=250)
    assert session.is_dir(), "the test is worth nothing if something has cleaned up already"
    shown = lab("clean", "--dry-run")
    assert f"would remove session {session.name}" in shown.stdout
    assert session.is_dir(), "a dry run changes nothing"
    cleaned = lab("clean")
    assert cleaned.returncode == 0
    assert f"removed session {session.name}" in cleaned.stdout
    assert not session.exists()


def test_clean_leaves_the_living_alone() -> None:
    with ready(start("run", "tiny", "--", "sh", "-c", "echo ready; read line; sleep 600")) as process:
        session = session_of(process)
        assert session.name not in lab("clean").stdout
        assert session.is_dir()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=250)


def test_two_labs_at_once_do_not_collide() -> None:
    script = "hostname -i; echo ready; sleep 600"
    processes = [start("run", "tiny", "-p", "0:8000", "--", "sh", "-c", script) for _ in range(2)]
    addresses = []
    for process in processes:
        assert process.stdout
        addresses.append(process.stdout.readline())
        ready(process)
    assert addresses[0] == addresses[1], "each has a network of its own with the same addresses"
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        with process:
            process.communicate(timeout=250)
        assert process.returncode == 143
