"""One machine of each kind, booted for real: what it reports, what runs inside, what is left afterwards."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest
from host_state import wait_until
from tiny import fill

from lab.backends.support.vmm import vmm_filter
from lab.errors import LaunchError, LimitError
from lab.host.clock import Timeline
from lab.hypervisor import parts, running
from lab.hypervisor.accelerator import find_accelerator
from lab.hypervisor.domains.connection import Hypervisor
from lab.hypervisor.guest.artefacts import Guest, prepare_guest
from lab.hypervisor.guest.grub import BIOS
from lab.hypervisor.guest.handover import Handover
from lab.hypervisor.kinds import MICROVM, PC, Design, Firmware, MachineType
from lab.hypervisor.machine import Machine
from lab.hypervisor.parts import MachineRequest
from lab.inside.build import program
from lab.model import Limits, Phase, Process
from lab.runtime.cgroup.instances import limited

BOOT_SECONDS = 240.0  # emulated, on a host that does other things too
MEMORY_BYTES = 256 << 20
AROUND = ("/proc/1/root/bin/busybox", "chroot", "/proc/1/root")  # behind it, a command of the guest's own
ODD = 'spaces, "quotes", %h, $HOME and\na second line'
APPLICATION = """
printf '%s' "$ODD" >/tmp/odd
echo "$(id -u):$(id -g) in $PWD"
echo complaint >&2
echo again >/dev/stdout
trap 'echo told to stop; exit 3' TERM
while :; do sleep 0.1; done
"""


@dataclass(frozen=True, slots=True)
class Site:
    """What machines need from the session."""

    hypervisor: Hypervisor
    guest: Guest
    image_disk: Path
    root: Path


@pytest.fixture(scope="module")
def site(lab_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    tree, disk = tmp_path_factory.mktemp("image") / "root", tmp_path_factory.mktemp("disk") / "image.ext4"
    fill(tree)
    disk.touch()
    os.truncate(disk, 32 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk], check=True)
    root = Path(f"/run/lab-test-{uuid4().hex[:8]}")  # short: unix(7) allows sockets 107 bytes
    root.mkdir()
    try:
        guest = prepare_guest(lab_home)
        with Hypervisor.open(home=lab_home, seccomp=vmm_filter()) as hypervisor:
            yield Site(hypervisor, guest, disk, root)
    finally:
        subprocess.run(["rm", "-rf", root], check=True)


@pytest.fixture(scope="module")
def start(site: Site, lab_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Machine]:
    def boot(design: Design, argv: Sequence[str], image_disk: Path = site.image_disk, cpus: float = 1) -> Machine:
        name = f"{design.machine}-{uuid4().hex[:6]}"
        logs = tmp_path_factory.mktemp(name)
        limits = Limits(memory_bytes=MEMORY_BYTES, cpus=cpus, pids=40)
        process = Process(
            argv=tuple(argv), environment={"ODD": ODD, "PATH": "/bin"}, working_directory="/tmp", uid=1000, gid=1000
        )
        return Machine.start(
            site.hypervisor,
            prepare_guest(lab_home, design),
            MachineRequest(
                name=name,
                design=design,
                accelerator=find_accelerator(lab_home, vmm_filter()),
                image_disk=image_disk,
                handover=Handover(design=design, hostname=name, process=process, pids=limits.pids),
                directory=site.root / name,
                log_directory=logs,
                cgroup=limited(f"lab/test-{os.getpid()}/{name}", Limits()),
                limits=limits,
            ),
            Timeline(),
        )

    return boot


@contextmanager
def open_pid(pid: int) -> Iterator[int]:
    """A descriptor that is readable once the process has ended (pidfd_open(2))."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module", params=[MICROVM, PC], ids=["microvm", "pc"])
def machine(request: pytest.FixtureRequest, start: Callable[..., Machine]) -> Iterator[Machine]:
    with start(request.param, ("/bin/sh", "-c", APPLICATION), cpus=1.5) as machine:
        machine.wait_executed(BOOT_SECONDS)
        out, err = (machine.request.log_directory / name for name in ("stdout.log", "stderr.log"))
        assert wait_until(lambda: out.read_bytes().endswith(b"again\n") and err.read_bytes()), "it has said all"
        yield machine


def test_phases_come_in_order(machine: Machine) -> None:
    stamps = machine.timeline.stamps()
    order = [stamps[phase] for phase in (Phase.ISOLATED, Phase.KERNEL, Phase.INIT, Phase.EXECUTED)]
    assert order == sorted(order)


def test_the_firmware_is_silent_so_that_the_first_byte_is_the_kernels(machine: Machine) -> None:
    console = (machine.request.log_directory / "console.log").read_bytes()
    letters = bytes(console[:40]).replace(b"PPrroobbiinngg", b"Probing")  # a firmware may echo what it is given
    assert letters.startswith(b"Probing")


def test_the_application_gets_its_user_directory_and_environment(machine: Machine) -> None:
    assert machine.execute(["cat", "/tmp/odd"]).stdout.decode() == ODD
    assert b"1000:1000 in /tmp\n" in (machine.request.log_directory / "stdout.log").read_bytes()


def test_output_streams_stay_apart_and_may_be_opened_again(machine: Machine) -> None:
    assert (machine.request.log_directory / "stdout.log").read_bytes().endswith(b"again\n")
    assert (machine.request.log_directory / "stderr.log").read_bytes() == b"complaint\n"


def test_commands_run_in_the_image(machine: Machine) -> None:
    done = machine.execute(["sh", "-c", "cat; echo error >&2; exit 7"], stdin=b"input")
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"input", b"error\n")
    assert machine.execute(["sh", "-c", "kill -9 $$"]).exit_code == 137
    assert machine.execute(["ls", "/srv"]).stdout == b"index.html\n"


def test_labs_helper_is_there_and_read_only(machine: Machine) -> None:
    digest = subprocess.run([program(), "version"], capture_output=True, check=True).stdout
    assert machine.execute(["/.lab/inside", "version"]).stdout == digest
    assert machine.execute(["touch", "/.lab/inside"]).exit_code != 0


def test_nothing_of_the_image_is_hidden(machine: Machine) -> None:
    mounts = machine.execute(["cat", "/proc/mounts"]).stdout.decode().split()
    assert not {"/run", "/tmp", "/srv"} & set(mounts[1::6])
    assert machine.execute(["stat", "-c", "%a", "/tmp"]).stdout == b"1777\n"


def test_large_output_comes_whole(machine: Machine) -> None:
    done = machine.execute(["sh", "-c", "yes 123456789012345 | head -n 100000"], timeout_seconds=250)
    assert len(done.stdout) == 1_600_000


def test_the_guest_has_its_own_kernel_and_no_more_than_its_limits(machine: Machine) -> None:
    assert machine.execute(["uname", "-r"]).stdout.decode().strip() != os.uname().release
    total = machine.execute(["awk", "/MemTotal/ {print $2 * 1024}", "/proc/meminfo"]).stdout
    assert 0.6 * MEMORY_BYTES < float(total) <= MEMORY_BYTES
    assert machine.execute(["nproc"]).stdout == b"2\n", "1.5 CPUs are 2 virtual ones"


def test_the_applications_processes_are_limited(machine: Machine) -> None:
    paths = "/sys/fs/cgroup/system.slice/lab-application.service/pids.max /run/lab/cgroup/application/pids.max"
    done = machine.execute([*AROUND, "/bin/busybox", "sh", "-c", f"cat {paths} 2>/dev/null"])
    assert done.stdout == b"40\n"


def test_debian_is_up_and_nothing_of_it_failed(machine: Machine) -> None:
    if machine.request.design != PC:
        pytest.skip("a microvm has no Debian")
    state = "systemctl is-system-running --wait; systemctl is-active systemd-{journald,udevd,networkd}"
    done = machine.execute([*AROUND, "/bin/bash", "-c", state], timeout_seconds=250)
    assert done.stdout.split() == [b"running", b"active", b"active", b"active"]


def test_qemu_is_in_labs_cgroup(machine: Machine) -> None:
    assert machine.request.cgroup.processes() == {machine.process}
    assert machine.request.cgroup.memory().usage_bytes > 32 << 20
    assert machine.request.cgroup.cpu().total_seconds > 0.1


def test_stopping_asks_then_leaves_nothing(start: Callable[..., Machine], site: Site, machine: Machine) -> None:
    machine.stop(grace_seconds=60)
    assert machine.wait(0) == 3
    assert (machine.request.log_directory / "stdout.log").read_bytes().endswith(b"told to stop\n")
    assert machine.timeline.at(Phase.GONE) is not None
    assert not machine.request.cgroup.exists()
    assert not machine.request.directory.exists()
    machine.stop()


def test_the_applications_end_is_the_machines_end(start: Callable[..., Machine]) -> None:
    with start(MICROVM, ("sh", "-c", "echo bye; exit 5")) as machine:
        assert machine.wait(BOOT_SECONDS) == 5
        assert (machine.request.log_directory / "stdout.log").read_bytes() == b"bye\n"
        assert machine.process is not None
        with open_pid(machine.process) as qemu:
            assert select.select([qemu], [], [], BOOT_SECONDS)[0], "QEMU outlives the application"


@pytest.mark.nightly
@pytest.mark.parametrize("stopped", [0.08, 0.1, 0.12])
def test_a_guest_keeps_its_clock_however_long_qemu_waits_for_a_processor(
    start: Callable[..., Machine], stopped: float
) -> None:
    with start(MICROVM, ("sh", "-c", "while :; do sleep 1; done")) as machine:
        assert machine.process is not None
        until = time.monotonic() + 8
        while time.monotonic() < until:
            for number, seconds in ((signal.SIGSTOP, stopped), (signal.SIGCONT, 0.05)):
                os.kill(machine.process, number)
                time.sleep(seconds)
        machine.wait_executed()
        clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        assert machine.execute(["cat", clock]).stdout.startswith(b"tsc")
        began, first = time.monotonic(), _uptime(machine)
        time.sleep(5)
        assert _uptime(machine) - first == pytest.approx(time.monotonic() - began, abs=0.5)


def _uptime(machine: Machine) -> float:
    return float(machine.execute(["cat", "/proc/uptime"]).stdout.split()[0])


def test_a_bios_and_a_boot_loader_start_the_same_kernel(
    start: Callable[..., Machine], missing: Callable[[str], None]
) -> None:
    if BIOS.missing:
        missing("GRUB for BIOS")
    design = replace(MICROVM, machine=MachineType.Q35, firmware=Firmware.SEABIOS)
    with start(design, ("cat", "/proc/cmdline")) as machine:
        assert machine.wait(BOOT_SECONDS) == 0
        logs = machine.request.log_directory
        stamps = machine.timeline.stamps()
    assert "earlyprintk=ttyS0" in (logs / "stdout.log").read_text()
    assert stamps[Phase.ISOLATED] <= stamps[Phase.KERNEL] <= stamps[Phase.INIT] <= stamps[Phase.EXECUTED]
    before, after = (logs / "console.log").read_bytes().split(b"lab: kernel")
    assert b"\n" not in before, "neither a BIOS nor GRUB says anything else here"
    assert b"Linux version" in after


def test_a_signal_reaches_the_application(start: Callable[..., Machine]) -> None:
    with start(MICROVM, ("sleep", "1000")) as machine:
        machine.wait_executed(BOOT_SECONDS)
        machine.signal(signal.SIGINT)
        assert machine.wait(BOOT_SECONDS) == 128 + signal.SIGINT


def test_pulling_the_plug_is_a_kill(start: Callable[..., Machine]) -> None:
    machine = start(MICROVM, ("sleep", "1000"))
    machine.stop(grace_seconds=0)
    assert machine.wait() == 128 + signal.SIGKILL


def test_a_missing_program_is_reported(start: Callable[..., Machine]) -> None:
    with start(MICROVM, ("/bin/nothing",)) as machine:
        with pytest.raises(LaunchError, match="No such file") as caught:
            machine.wait_executed(BOOT_SECONDS)
        assert caught.value.exit_code == 127


def test_a_guest_that_dies_shows_its_console(start: Callable[..., Machine], tmp_path: Path) -> None:
    broken = tmp_path / "broken.ext4"
    broken.write_bytes(bytes(1 << 20))
    with start(MICROVM, ("true",), image_disk=broken) as machine:
        with pytest.raises(LaunchError, match="the image's disk can't be mounted") as caught:
            machine.wait_executed(BOOT_SECONDS)
        assert "Kernel panic" in caught.value.detail


def test_a_guest_without_a_timer_says_so_at_once(
    start: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parts.command_line
    monkeypatch.setattr(parts, "command_line", lambda *design, **told: f"{given(*design, **told)} nolapic_timer")
    with start(MICROVM, ("sleep", "1000")) as machine, pytest.raises(LaunchError, match="start it again"):
        machine.wait_executed(BOOT_SECONDS)


def test_a_guest_that_never_gets_to_its_application_is_given_up(
    start: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "BOOT_TIMEOUT_SECONDS", 0.5)
    with start(PC, ("sleep", "1000")) as machine:
        assert machine.wait(0) is None
        with pytest.raises(LaunchError, match=r"did not start its application within 0\.5 s") as caught:
            machine.wait()
        assert caught.value.detail, "the console's tail"


def test_too_little_memory_is_refused_and_leaves_nothing(site: Site, start: Callable[..., Machine]) -> None:
    name = f"small-{uuid4().hex[:6]}"
    group = limited(f"lab/test-{os.getpid()}/{name}", Limits())
    request = MachineRequest(
        name=name,
        design=PC,
        accelerator=find_accelerator(Path(os.environ["LAB_HOME"]), vmm_filter()),
        image_disk=site.image_disk,
        handover=Handover(design=PC, hostname=name, process=Process(argv=("true",))),
        directory=site.root / name,
        log_directory=site.root,
        cgroup=group,
        limits=Limits(memory_bytes=32 << 20),
    )
    with pytest.raises(LimitError, match="lab starts no vm with 32 MiB") as caught:
        Machine.start(site.hypervisor, site.guest, request, Timeline())
    assert caught.value.hint == "--memory 192M or more"
    assert not group.exists()
    assert not request.directory.exists()
