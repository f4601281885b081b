"""The host's ends of a machine's ports, with this test in QEMU's place."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host.clock import Timeline, now
from lab.hypervisor.channels import ports
from lab.hypervisor.channels.ports import SILENT_SECONDS, Channels
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
    "said",
    [b"failed 99999999999999", b"failed 0", b"exited 256", b"exited -1", b"exited 0 -5", b"exited 0 1" + b"0" * 30],
)
def test_a_number_that_nobody_can_mean_is_no_mark(channels: Channels, machine: FakeMachine, said: bytes) -> None:
    """Root in the guest may write to the port what it likes, before lab's own marks."""
    machine.ends["marks"].sendall(said + b"\nexited 7\n")
    assert channels.wait(lambda: channels.exit_code is not None, SECONDS)
    assert (channels.exit_code, channels.failed_errno) == (7, None)


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


def test_an_exit_code_waits_for_the_output_that_its_mark_has_overtaken(tmp_path: Path) -> None:
    """The guest counts what it has written, and holds its machine's end back until it is told that all is here."""
    (tmp_path / "m").mkdir()
    reader, writer = os.pipe()
    channels = Channels(tmp_path / "m", Timeline(), tmp_path, stdout=writer, stderr=None)
    machine = FakeMachine(tmp_path / "m")
    machine.ends["output"].sendall(b"hel")
    machine.ends["marks"].sendall(b"executed\nexited 3 5 2\n")
    machine.ends["errors"].sendall(b"oh")
    assert os.read(reader, 100) == b"hel"
    assert not channels.wait(lambda: channels.exit_code is not None, 0.3)
    machine.ends["output"].sendall(b"lo")
    assert channels.wait(lambda: channels.exit_code == 3, SECONDS)
    assert machine.ends["orders"].recv(100) == b"end\n"
    assert os.read(reader, 100) == b"lo"
    machine.close()
    channels.close()
    os.close(reader)
    os.close(writer)


def test_output_that_never_comes_is_not_waited_for_without_end(
    channels: Channels, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "SILENT_SECONDS", 0.5)
    began = now()
    machine.ends["marks"].sendall(b"exited 3 5 0\n")
    assert channels.wait(lambda: channels.exit_code == 3, SECONDS)
    assert now() - began >= 0.5
    assert machine.ends["orders"].recv(100) == b"end\n"


def test_a_reader_that_takes_its_time_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads lab's own output for longer than it waits for a silent machine's."""
    monkeypatch.setattr(ports, "SILENT_SECONDS", 0.2)
    (tmp_path / "m").mkdir()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    channels = Channels(tmp_path / "m", Timeline(), tmp_path, stdout=writer, stderr=None)
    machine = FakeMachine(tmp_path / "m")
    sent = bytes(range(256)) * 64
    machine.ends["output"].sendall(sent[:8192])
    machine.ends["marks"].sendall(b"exited 0 %d 0\n" % len(sent))
    time.sleep(0.5)
    assert channels.exit_code is None
    machine.ends["output"].sendall(sent[8192:])
    taken = b""
    while len(taken) < len(sent):
        taken += os.read(reader, 4096)
    assert taken == sent
    assert channels.wait(lambda: channels.exit_code == 0, SECONDS)
    machine.close()
    channels.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("how", ["adopted", "restored"])
def test_output_of_before_counts_for_a_machine_that_goes_on(tmp_path: Path, how: str) -> None:
    """Another lab has read it, or it was saved: the guest has counted on, and the log begins with it."""
    (tmp_path / "m").mkdir()
    (tmp_path / "stdout.log").write_bytes(b"hel")
    with subprocess.Popen(["sleep", "1000"]) as vmm:
        known = {"vmm": os.pidfd_open(vmm.pid)} if how == "adopted" else {"restored": True}
        channels = Channels(tmp_path / "m", Timeline(), tmp_path, **known)  # type: ignore[arg-type]
        machine = FakeMachine(tmp_path / "m")
        machine.ends["marks"].sendall(b"exited 0 5 0\n")
        assert not channels.wait(lambda: channels.exit_code == 0, 0.2)
        machine.ends["output"].sendall(b"lo")
        assert channels.wait(lambda: channels.exit_code == 0, SILENT_SECONDS / 2)
        assert (tmp_path / "stdout.log").read_bytes() == b"hello"
        machine.close()
        channels.close()
        vmm.kill()


def test_a_machine_that_is_booted_again_counts_from_0(tmp_path: Path) -> None:
    """Its log has what it said the last time."""
    (tmp_path / "m").mkdir()
    (tmp_path / "stdout.log").write_bytes(b"hello")
    channels = Channels(tmp_path / "m", Timeline(), tmp_path)
    machine = FakeMachine(tmp_path / "m")
    machine.ends["marks"].sendall(b"exited 0 5 0\n")
    assert not channels.wait(lambda: channels.exit_code == 0, 0.2)
    machine.ends["output"].sendall(b"hello")
    assert channels.wait(lambda: channels.exit_code == 0, SILENT_SECONDS / 2)
    machine.close()
    channels.close()


@pytest.mark.parametrize("said", [b"exited", b"exited one\n", b"exited 1 many 0\n", b"failed \xff\n", b"x" * 100_000])
def test_what_is_no_mark_of_labs_disturbs_nothing(channels: Channels, machine: FakeMachine, said: bytes) -> None:
    """Root in the guest may write to its ports what it likes."""
    machine.ends["marks"].sendall(said)
    machine.ends["marks"].sendall(b"\nexited 7 0 0\n")
    assert channels.wait(lambda: channels.exit_code == 7, SECONDS)


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


def test_a_reader_that_takes_nothing_can_be_given_up(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    reader, writer = os.pipe()
    channels = Channels(tmp_path / "m", Timeline(), tmp_path, stdout=writer, stderr=None)
    machine = FakeMachine(tmp_path / "m")
    sent = os.urandom(300_000)
    sending = threading.Thread(target=machine.ends["output"].sendall, args=(sent,))
    sending.start()
    machine.ends["marks"].sendall(b"exited 0 %d 0\n" % len(sent))
    assert not channels.wait(lambda: channels.exit_code is not None, 0.3)
    channels.give_up()
    assert channels.wait(lambda: channels.exit_code == 0, SECONDS)
    sending.join()
    machine.close()
    channels.close()
    channels.close()
    assert (tmp_path / "stdout.log").read_bytes() == sent, "the log has all of it"
    for descriptor in (reader, writer):
        os.close(descriptor)
