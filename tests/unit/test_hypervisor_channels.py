"""The host's ends of a machine's ports, with this test in QEMU's place."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host.clock import Timeline, now
from lab.hypervisor.channels.ports import Channels
from lab.model import Phase

NAMES = ("console", "marks", "orders", "output", "errors")
SECONDS = 120.0


class FakeMachine:
    """Connects to every socket, as QEMU does when it starts."""

    def __init__(self, directory: Path) -> None:
        self.ends = {name: socket.socket(socket.AF_UNIX) for name in NAMES}
        for name, end in self.ends.items():
            end.connect(str(directory / name))

    def close(self) -> None:
        for end in self.ends.values():
            end.close()


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


@pytest.fixture
def channels(tmp_path: Path, timeline: Timeline) -> Iterator[Channels]:
    (tmp_path / "m").mkdir()
    opened = Channels(tmp_path / "m", timeline, tmp_path, stdout=None, stderr=None)
    yield opened
    opened.close()


@pytest.fixture
def machine(channels: Channels, tmp_path: Path) -> Iterator[FakeMachine]:
    fake = FakeMachine(tmp_path / "m")
    yield fake
    fake.close()


def test_phases_are_stamped_on_receipt(channels: Channels, machine: FakeMachine, timeline: Timeline) -> None:
    before = now()
    machine.ends["console"].sendall(b"Probing EDD\r\n")
    assert timeline.wait(Phase.KERNEL, SECONDS)
    assert timeline.at(Phase.INIT) is None
    machine.ends["console"].sendall(b"lab: in")
    machine.ends["console"].sendall(b"it\r\n")
    assert timeline.wait(Phase.INIT, SECONDS)
    machine.ends["marks"].sendall(b"execu")
    machine.ends["marks"].sendall(b"ted\nexited 7\n")
    assert channels.wait(lambda: channels.exit_code == 7, SECONDS)
    stamps = timeline.stamps()
    phases = (Phase.ISOLATED, Phase.KERNEL, Phase.INIT, Phase.EXECUTED)
    order = [before, *(stamps[phase] for phase in phases), now()]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("sign", "said", "phases"),
    [
        (b"lab: kernel", b"BdsDxe: loading Boot0001\r\n", set()),
        (b"lab: kernel", b"Welcome to GRUB!\n\rlab: kernel\n\rlab: init\r\n", {Phase.KERNEL, Phase.INIT}),
        (None, b"lab: init\r\n", {Phase.INIT}),
    ],
)
def test_a_kernels_start_is_what_its_sign_says(
    tmp_path: Path, sign: bytes | None, said: bytes, phases: set[Phase]
) -> None:
    """Firmware may write to the console first, and a kernel may be silent."""
    (tmp_path / "m").mkdir()
    timeline = Timeline()
    channels = Channels(tmp_path / "m", timeline, tmp_path, kernel_sign=sign)
    machine = FakeMachine(tmp_path / "m")
    machine.ends["console"].sendall(said)
    machine.close()
    assert channels.wait(lambda: channels.ended, SECONDS)
    assert timeline.stamps().keys() - {Phase.ISOLATED} == phases
    channels.close()


def test_what_a_restored_guest_prints_is_no_phase(tmp_path: Path, timeline: Timeline) -> None:
    """Its kernel and its init started in another machine; its first sign is the answer to an order."""
    (tmp_path / "m").mkdir()
    channels = Channels(tmp_path / "m", timeline, tmp_path, restored=True)
    machine = FakeMachine(tmp_path / "m")
    machine.ends["console"].sendall(b"lab: init\r\n")
    machine.ends["marks"].sendall(b"woken\n")
    assert timeline.wait_running(SECONDS)
    assert timeline.running() == timeline.at(Phase.RESTORED)
    machine.close()
    assert channels.wait(lambda: channels.ended, SECONDS)
    assert "lab: init" in channels.console_tail()
    assert set(timeline.stamps()) == {Phase.RESTORED}
    channels.close()


def test_output_goes_to_the_log_and_to_the_caller(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    reader, writer = os.pipe()
    channels = Channels(tmp_path / "m", Timeline(), tmp_path, stdout=writer, stderr=None)
    machine = FakeMachine(tmp_path / "m")
    machine.ends["output"].sendall(b"hello\n")
    machine.ends["errors"].sendall(b"oh\n")
    assert os.read(reader, 100) == b"hello\n"
    machine.close()
    assert channels.wait(lambda: channels.ended, SECONDS)
    channels.close()
    os.close(reader)
    os.close(writer)
    assert (tmp_path / "stdout.log").read_bytes() == b"hello\n"
    assert (tmp_path / "stderr.log").read_bytes() == b"oh\n"


def test_a_machines_end_and_its_last_words(channels: Channels, machine: FakeMachine) -> None:
    machine.ends["console"].sendall(b"[ 1.0] odd\r\nlab: failed: no disk lab-os\r\n[ 1.1] Kernel panic\r\n")
    machine.close()
    assert channels.wait(lambda: channels.ended, SECONDS)
    assert channels.failure() == "no disk lab-os"
    assert channels.console_tail().endswith("Kernel panic")
    channels.order("signal 15")  # too late, and no error


def test_orders_reach_the_guest(channels: Channels, machine: FakeMachine) -> None:
    assert channels.wait(lambda: "orders" in channels.connections, SECONDS)
    channels.order("signal 15")
    assert machine.ends["orders"].recv(100) == b"signal 15\n"


def test_closing_leaves_no_socket_and_no_thread(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    before = set(threading.enumerate())
    channels = Channels(tmp_path / "m", Timeline(), tmp_path, stdout=None, stderr=None)
    channels.close()
    channels.close()
    assert list((tmp_path / "m").iterdir()) == []
    assert set(threading.enumerate()) <= before
