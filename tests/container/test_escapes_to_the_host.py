"""Ways out of a container that reach for something of the host's: a process, a file, a terminal, a device, a socket.

What is reached for is the test's own, so that the control, where the attempt succeeds, harms nothing.
"""

from __future__ import annotations

import ctypes
import os
import pty
import socket
import stat
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from escaping import (
    FILTER,
    PROCESSES,
    SUCCEEDED,
    TRACING,
    Ask,
    Attempt,
    Layer,
    all_devices,
    capability,
    check,
    namespace,
)
from running import Run, Start

from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Config
from lab.runtime.launcher.launcher import Overlay

MOST_HANDLE_BYTES = 128


@pytest.fixture(params=["lab", "runc"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """The attempt under lab's runtime, and under runc's."""
    found: Ask = request.getfixturevalue("attempt" if request.param == "lab" else "attempt_under_runc")
    return found


@pytest.fixture
def victim() -> Iterator[str]:
    """A process of the host's that is ours to lose: its id."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield str(process.pid)
        process.kill()


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file of the host's that no container is given."""
    (tmp_path / "canary").write_text("alive")
    return tmp_path / "canary"


def test_a_process_of_the_hosts_gets_no_signal(ask: Ask, victim: str) -> None:
    check(ask, Attempt(words=("signal_process", victim), layers=PROCESSES))


def test_a_process_of_the_hosts_is_not_traced(ask: Ask, victim: str) -> None:
    check(ask, Attempt(words=("trace_process", victim), layers=PROCESSES | TRACING))


def test_the_root_of_a_process_of_the_hosts_is_not_entered(ask: Ask, victim: str, canary: Path) -> None:
    check(ask, Attempt(words=("root_of_process", victim, str(canary)), layers=PROCESSES | TRACING))


def test_the_mounts_of_a_process_of_the_hosts_are_not_joined(ask: Ask, victim: str, canary: Path) -> None:
    layers = FILTER | PROCESSES | TRACING
    layers["CAP_SYS_ADMIN"] = capability("CAP_SYS_ADMIN")
    check(ask, Attempt(words=("join_mounts", victim, str(canary)), layers=layers))


def test_a_process_of_its_own_may_be_traced(ask: Ask) -> None:
    """As under Docker since Linux 4.8, when tracers could no longer change calls behind the filter's back."""
    assert ask(Attempt(words=("own_child",), layers={}).config()) == SUCCEEDED


def test_an_abstract_socket_of_the_hosts_is_out_of_reach(ask: Ask) -> None:
    """They have no file, so that only the network namespace parts them (CVE-2020-15257, containerd's)."""
    name = f"lab-test-{uuid.uuid4().hex[:8]}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        check(ask, Attempt(words=("abstract_socket", name), layers={"network namespace": namespace("network")}))


def test_a_device_can_be_named_but_not_opened(ask: Ask) -> None:
    """The kernel's log: reading it takes nothing away from anybody."""
    number = Path("/dev/kmsg").stat().st_rdev
    words = ("device", "c", str(os.major(number)), str(os.minor(number)))
    layers: dict[str, Layer] = {"device rules": all_devices}
    config = Attempt(words=words, layers=layers).config(all_layers=True)
    if ask(config) != SUCCEEDED:  # kernel.dmesg_restrict wants a capability besides
        layers["CAP_SYSLOG"] = capability("CAP_SYSLOG")
    check(ask, Attempt(words=words, layers=layers))


def test_the_disk_can_be_named_but_not_opened(ask: Ask, tmp_path: Path) -> None:
    number = Path("/").stat().st_dev
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, number)
    try:
        os.close(os.open(tmp_path / "disk", os.O_RDONLY))
    except OSError as error:
        pytest.skip(f"the host's root is on no block device that this process may open: {error}")
    words = ("device", "b", str(os.major(number)), str(os.minor(number)))
    check(ask, Attempt(words=words, layers={"device rules": all_devices}))


def test_a_file_is_not_opened_by_its_handle(ask: Ask, canary: Path, tmp_path: Path) -> None:
    """The "shocker" of 2014: a file system that is bound into the container holds the host's other files, too."""
    kind, handle = handle_of(canary)
    (tmp_path / "given").mkdir()
    mount = bundle.bind(tmp_path / "given", "/given", read_only=True)

    def given(config: Config) -> str:
        return ask(replace(config, mounts=(*config.mounts, mount)))

    words = ("by_handle", "/given", str(kind), handle.hex(), canary.read_text())
    check(given, Attempt(words=words, layers=FILTER | {"CAP_DAC_READ_SEARCH": capability("CAP_DAC_READ_SEARCH")}))


def handle_of(path: Path) -> tuple[int, bytes]:
    """name_to_handle_at(2): the type, and the bytes. Skips where the file system has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = (ctypes.c_uint32 * (2 + MOST_HANDLE_BYTES // 4))(MOST_HANDLE_BYTES)
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(mount), 0) < 0:
        pytest.skip(f"no handles for files: {os.strerror(ctypes.get_errno())}")
    content = bytes(handle)
    return int.from_bytes(content[4:8], "little", signed=True), content[8 : 8 + handle[0]]


def test_nothing_is_typed_into_the_hosts_terminal(start: Start, runc_run: Run, escape_root: Path) -> None:
    """TIOCSTI: whoever has a terminal for its standard input types commands for the shell behind it, unless the
    terminal is not its controlling one. lab gives a container none but its own; runc in the foreground gives it a
    pipe, so that there is nothing to type into.
    """
    attempt = Attempt(words=("type_ahead",), layers={"CAP_SYS_ADMIN": capability("CAP_SYS_ADMIN")})
    master, terminal = pty.openpty()
    os.set_blocking(terminal, False)

    def typed(config: Config) -> str:
        container, output = start(config=config, root=Overlay(lower=(escape_root,)), init=False, stdin=terminal)
        assert container.wait(120) == 0
        container.close()
        return output.text().strip()

    try:
        check(typed, attempt)
        assert runc_run(config=attempt.config(), root=escape_root, stdin=terminal).output.startswith("stopped: ")
    finally:
        os.close(master)
        os.close(terminal)
