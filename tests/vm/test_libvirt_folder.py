"""What libvirt's driver leaves outside its process: a folder that lasts as long, and no word on the system's bus."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from host_state import told_of

from lab.host.session import ledger

LAB = Path(sys.executable).with_name("lab")

TWO_SITES = """
import sys
from lab.backends.site import Site
from lab.hypervisor.domains.connection import _driver
with Site.open() as first:
    first.hypervisor
    second = Site.open()
    second.hypervisor
print(_driver.root, flush=True)
sys.stdin.readline()
assert (_driver.root / "etc").is_dir()
second.close()
with Site.open() as third:
    third.hypervisor.version()
    print("again", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def process(lab_home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TWO_SITES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "LAB_HOME": str(lab_home)},
    )  # fmt: skip


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_no_other_command_and_no_session_of_its_own_removes_it(process: subprocess.Popen[str]) -> None:
    with process:
        root = Path(told(process))
        assert root.parent not in ledger.stale_sessions()
        subprocess.run([LAB, "clean"], check=True, stdout=subprocess.DEVNULL)
        assert (root / "etc").is_dir()
        go_on(process)
        assert told(process) == "again"
        go_on(process)
    assert process.returncode == 0
    assert not root.parent.exists()


def test_it_goes_with_a_process_that_is_killed(process: subprocess.Popen[str]) -> None:
    with process:
        root = Path(told(process))
        go_on(process)
        assert told(process) == "again"
        launchers = [pid for pid, words in told_of(children(process.pid), "cmdline").items() if "spawner" in words]
        process.send_signal(signal.SIGKILL)
        process.wait()
        for pid in launchers:  # which clean up
            wait_for_end(pid)
    assert not root.parent.exists()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        import select

        assert select.select([descriptor], [], [], 120)[0], "the launcher lives on"
    finally:
        os.close(descriptor)


ASKS_WHAT_THE_HOST_CAN_DO = """
import os, sys
from lab.backends.site import Site
from lab.hypervisor.domains import connection
if sys.argv[1] == "as libvirt would":
    connection.keep_off_the_bus = lambda: None
with Site.open() as site:  # where systemd is, that is asked at its own bus for a scope
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = sys.argv[2]
    site.hypervisor._connection.getCapabilities()
    del os.environ["DBUS_SYSTEM_BUS_ADDRESS"]
"""


@pytest.mark.parametrize("manner", ["as libvirt would", "as lab does"])
def test_it_is_not_on_the_systems_bus(lab_home: Path, tmp_path: Path, manner: str) -> None:
    """There it would have systemd-machined register each QEMU, for as long as it takes to find no group for it."""
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tmp_path / "bus"))
        bus.listen()
        asking = [sys.executable, "-c", ASKS_WHAT_THE_HOST_CAN_DO, manner, f"unix:path={tmp_path}/bus"]
        with subprocess.Popen(asking, env={**os.environ, "LAB_HOME": str(lab_home)}) as process:
            bus.settimeout(0.1)
            called = False
            while process.poll() is None:
                try:
                    bus.accept()[0].close()
                    called = True
                except TimeoutError:
                    pass
        assert process.returncode == 0
        assert called is (manner == "as libvirt would")


WHERE = """
import os
import libvirt
from lab.backends.site import Site
allowed, opening = os.sched_getaffinity(0), libvirt.open
def seen(uri):
    print(sorted(os.sched_getaffinity(0)) == sorted(allowed)[:1])
    return opening(uri)
libvirt.open = seen
with Site.open() as site:
    site.hypervisor.version()
    print(all(os.sched_getaffinity(int(task)) == allowed for task in os.listdir("/proc/self/task")))
"""


def test_libvirt_asks_the_same_processor_every_time_and_then_may_run_on_all(lab_home: Path) -> None:
    """Else it asks QEMU again what it can, which takes seconds of every command's time."""
    environment = {**os.environ, "LAB_HOME": str(lab_home)}
    done = subprocess.run([sys.executable, "-c", WHERE], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["True", "True"]
