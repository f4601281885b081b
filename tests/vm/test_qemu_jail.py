"""QEMU is shut in: what it is, what it sees, and what cannot be done from there.

What must fail is tried by a process that has QEMU's user and QEMU's namespaces, and again by its user alone, outside:
these are two walls. Each try has a control which shows that it succeeds where it may.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import contract
import pytest
from detached import session_of
from host_state import wait_until
from tiny import tiny_image

from lab.backends.site import Site
from lab.backends.support.guests.machine import MachineInstance
from lab.backends.support.vmm import vmm_filter
from lab.errors import LabError
from lab.host import syscalls
from lab.host.home import runtime_root
from lab.host.identity import lone
from lab.host.kernel import filters
from lab.host.session import ledger
from lab.host.survey.virtualisation import Ground
from lab.hypervisor import accelerator
from lab.hypervisor.commandline import command_line
from lab.hypervisor.emulator import find_qemu, install_emulator
from lab.hypervisor.guest.artefacts import prepare_guest
from lab.hypervisor.jail import orders
from lab.hypervisor.jail.confinement import Confinement, require_confined
from lab.hypervisor.kinds import MICROVM
from lab.hypervisor.tsc import tsc_khz
from lab.model import Accelerator
from lab.network.links import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUNSETIFF, TUNSETOWNER, TUNSETPERSIST

NAMESPACES = ("mnt", "net", "ipc", "uts", "cgroup")
TUN = "/dev/net/tun"
DISK = "lab-scratch.qcow2"
EMULATED = ("-machine", "microvm,accel=tcg", "-cpu", "max", "-m", "128M")
PROOF_SECONDS = 300.0
SECONDS = 200.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two machines of one session."""

    site: Site
    one: MachineInstance
    other: MachineInstance

    def path(self, name: str, *, of: MachineInstance) -> Path:
        """A file of a machine's own folder."""
        return self.site.scratch / of.name / name


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    logs = tmp_path_factory.mktemp("logs")
    with Site.open() as site:
        image, backend = tiny_image(site.store), site.backend("microvm")
        started = [backend.launch(contract.request(site, image, name, logs=logs / name)) for name in ("one", "other")]
        one, other = started
        assert isinstance(one, MachineInstance)
        assert isinstance(other, MachineInstance)
        try:
            yield Pair(site, one, other)
        finally:
            for each in started:
                each.stop(grace_seconds=0)


@pytest.fixture(scope="module")
def qemu(pair: Pair) -> int:
    assert pair.one.machine.process is not None
    return pair.one.machine.process


# What it is


def test_it_is_a_user_of_its_own_without_any_privilege(pair: Pair, qemu: int) -> None:
    found = Confinement.of(qemu)
    assert found.holds_for(qemu)
    assert found.uid != Confinement.of(pair.other.machine.process or 0).uid
    assert not Confinement.of(os.getpid()).holds_for(os.getpid()), "the control: not everybody is"
    with pytest.raises(LabError, match="not confined"):
        require_confined(os.getpid(), "a test")


def test_it_lives_in_namespaces_of_its_own_and_in_its_control_group(pair: Pair, qemu: int) -> None:
    for name in NAMESPACES:
        homes = {
            str(Path(f"/proc/{pid}/ns/{name}").readlink()) for pid in (os.getpid(), qemu, pair.other.machine.process)
        }
        assert len(homes) == 3, name
    assert pair.one.cgroup.processes() == {qemu}


def test_it_keeps_no_descriptor_but_what_a_machine_is_made_of(pair: Pair, qemu: int) -> None:
    """Nor libvirt's record of its number, from which libvirt would learn whom to kill."""
    opened = {path.name: str(path.readlink()) for path in Path(f"/proc/{qemu}/fd").iterdir()}
    files = {number: name for number, name in opened.items() if not name.startswith(("socket:", "anon_inode:"))}
    writable = {name for number, name in files.items() if _is_writable(qemu, number)}
    log = pair.site.hypervisor.root / "log" / "qemu" / f"{pair.one.machine.request.name}.log"
    assert {name for number, name in opened.items() if number in ("1", "2")} == {str(log)}
    devices = {TUN} | ({"/dev/kvm"} if pair.one.accelerator is Accelerator.KVM else set())
    vhost = {"/dev/vhost-net"} & set(files.values())
    assert writable - vhost - {"/dev/null"} == {str(log), str(pair.path(DISK, of=pair.one)), *devices}
    assert Path(f"/proc/{qemu}/environ").read_bytes() == b"LC_ALL=C\0"


def test_what_it_sees_is_read_only_but_for_its_own_layer(pair: Pair, qemu: int) -> None:
    mounts = [line.split() for line in Path(f"/proc/{qemu}/mountinfo").read_text().splitlines()]
    assert [line[4] for line in mounts if "rw" in line[5].split(",")] == [str(pair.path(DISK, of=pair.one))]
    assert all("nosuid" in line[5].split(",") for line in mounts)
    assert [line[4] for line in mounts if "nodev" not in line[5].split(",")] == ["/"]
    root = Path(f"/proc/{qemu}/root")
    assert {path.name for path in (root / "dev").iterdir()} - {"kvm"} == {"null", "urandom"}
    assert not {"proc", "sys", "home", "root"} & {path.name for path in root.iterdir()}
    assert {path.name for path in root.joinpath(*pair.site.scratch.parts[1:]).iterdir()} == {pair.one.name}


def test_it_can_use_up_neither_files_nor_processes(qemu: int) -> None:
    """The largest file is its layer, of 8 GiB."""
    text = Path(f"/proc/{qemu}/limits").read_text()
    for name, most in (
        ("open files", 1 << 12),
        ("processes", 1 << 10),
        ("file size", 16 << 30),
        ("core file size", 0),
    ):
        found = re.search(rf"^Max {name} +(\d+) +(\d+) ", text, re.MULTILINE)
        assert found, name
        assert int(found[1]) == int(found[2]) <= most


# What cannot be done from there


class Where(Enum):
    """Who tries."""

    QEMU = auto()  # with QEMU's user and namespaces
    FILTERED = auto()  # and with lab's filter of system calls besides
    USER = auto()  # with QEMU's user, in the host's namespaces
    ROOT = auto()  # the control


def attempt(qemu: int, where: Where, what: Callable[[], object]) -> str:
    """The errno by name that ``what`` fails with in a process of its own, "" when it succeeds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if where is not Where.ROOT:
                _become(qemu, with_namespaces=where is not Where.USER)
            if where is Where.FILTERED:
                syscalls.seccomp_filter(vmm_filter())()
            what()
            os.write(writer, b"done")
        except OSError as error:
            os.write(writer, errno.errorcode[error.errno or 0].encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        answer = said.read()
    os.waitpid(pid, 0)
    assert answer, "it died"
    return "" if answer == "done" else answer


def reads(path: Path) -> Callable[[], object]:
    return lambda: os.close(os.open(path, os.O_RDONLY))


def test_the_disk_of_another_machine_is_out_of_reach(pair: Pair, qemu: int) -> None:
    others = pair.path(DISK, of=pair.other)
    assert attempt(qemu, Where.QEMU, reads(pair.path(DISK, of=pair.one))) == "", "the control: its own is not"
    assert attempt(qemu, Where.QEMU, reads(others)) == "ENOENT"
    assert attempt(qemu, Where.USER, reads(others)) == "EACCES"
    others_qemu = pair.other.machine.process or 0
    assert attempt(others_qemu, Where.QEMU, reads(others)) == "", "the control: its owner can"


def test_the_image_store_and_the_hosts_secrets_are_out_of_reach(pair: Pair, qemu: int, tmp_path: Path) -> None:
    layer = pair.site.store.lower_directories(pair.one.request.image)[0]
    orders = pair.path("jail/orders", of=pair.one)
    for path in (Path("/etc/shadow"), layer / "etc/passwd", pair.site.session.directory / "owner.json"):
        assert attempt(qemu, Where.ROOT, reads(path)) == "", f"the control: {path} is there"
        assert attempt(qemu, Where.QEMU, reads(path)) == "ENOENT"
        assert attempt(qemu, Where.USER, reads(path)) == "EACCES"
    assert attempt(qemu, Where.QEMU, reads(orders)) == "EACCES"
    assert attempt(qemu, Where.QEMU, reads(Path("/etc/ld.so.cache"))) == "", "the control: what it was given is"


def test_what_was_given_to_it_can_only_be_read(pair: Pair, qemu: int) -> None:
    def writes(path: Path) -> Callable[[], object]:
        return lambda: os.close(os.open(path, os.O_WRONLY))

    def creates(path: Path) -> Callable[[], object]:
        return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))

    assert attempt(qemu, Where.QEMU, writes(pair.path(DISK, of=pair.one))) == "", "the control: its own layer"
    assert attempt(qemu, Where.QEMU, writes(pair.one.machine.request.image_disk)) in ("EACCES", "EROFS")
    for folder in (Path("/"), Path("/dev"), pair.path("", of=pair.one)):
        assert attempt(qemu, Where.QEMU, creates(folder / "new")) in ("EACCES", "EROFS")


def test_no_process_of_anybody_else_can_be_signalled(pair: Pair, qemu: int) -> None:
    lab = os.getpid()
    for other in (lab, pair.other.machine.process or 0, pair.site.launcher.pid):
        assert attempt(qemu, Where.ROOT, lambda pid=other: os.kill(pid, 0)) == ""
        for where in (Where.QEMU, Where.USER):
            assert attempt(qemu, where, lambda pid=other: os.kill(pid, 0)) == "EPERM"
    assert attempt(qemu, Where.QEMU, lambda: os.kill(qemu, 0)) == "", "the control: itself"


def test_no_monitor_is_in_reach_and_no_socket_but_its_own(pair: Pair, qemu: int) -> None:
    def connects(path: Path) -> Callable[[], object]:
        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))

        return connect

    folders = pair.site.hypervisor.root / "lib" / "qemu"
    (monitor,) = folders.glob(f"domain-*-{pair.other.machine.request.name}/monitor.sock")
    (own,) = folders.glob(f"domain-*-{pair.one.machine.request.name}/monitor.sock")
    assert attempt(qemu, Where.ROOT, connects(monitor)) == ""
    for path in (monitor, own):
        assert attempt(qemu, Where.QEMU, connects(path)) == "ENOENT"
        assert attempt(qemu, Where.USER, connects(path)) == "EACCES"
    for machine, answer in ((pair.one, ""), (pair.other, "ENOENT")):  # as lab listens again, when it takes over
        path = pair.path("again", of=machine)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            os.chown(path, Confinement.of(qemu).uid, -1)
            listener.listen()
            assert attempt(qemu, Where.QEMU, connects(path)) == answer
        path.unlink()


def test_no_network_is_in_reach_but_its_own_taps_other_end(pair: Pair, qemu: int) -> None:
    assert wait_until(lambda: _serves(pair), 240), "the control: who lives on lab's bridge reaches the other machine"
    address = (str(pair.other.address), contract.PORT)

    def connects() -> None:
        with socket.socket() as client:
            client.connect(address)

    assert attempt(qemu, Where.QEMU, connects) == "ENETUNREACH"


def test_no_other_tap_can_be_opened(pair: Pair, qemu: int) -> None:
    """Not even by who has got hold of the device: a tap is root's. Of one that is nobody's kernels differ."""

    def opens(tap: str, device: int) -> Callable[[], object]:
        request = struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        return lambda: fcntl.ioctl(device, TUNSETIFF, request)

    def device() -> int:
        return pair.site.network.run_in(lambda: os.open(TUN, os.O_RDWR | os.O_CLOEXEC))

    assert attempt(qemu, Where.QEMU, reads(Path(TUN))) == "ENOENT"
    with pair.site.network.tap() as tap:
        for where, answer in ((Where.QEMU, "EPERM"), (Where.USER, "EPERM"), (Where.ROOT, "")):
            opened = device()
            assert attempt(qemu, where, opens(tap.tap, opened)) == answer
            os.close(opened)
    makes, tries = device(), device()
    try:
        opens("free", makes)()
        fcntl.ioctl(makes, TUNSETOWNER, Confinement.of(qemu).uid)
        fcntl.ioctl(makes, TUNSETPERSIST, 1)
        os.close(makes)
        assert attempt(qemu, Where.QEMU, opens("free", tries)) == "", "the control: its own it can"
    finally:
        os.close(tries)
        pair.site.network._in_worker(lambda: pair.site.network._links.remove("free"))


def test_what_the_filter_refuses_would_be_allowed_otherwise(pair: Pair, qemu: int) -> None:
    """The kernel has the very program, and QEMU's own, which refuses other things besides."""
    programs = filters.installed(qemu)
    assert len(programs) == 2
    assert vmm_filter() in programs
    refused: list[Callable[[], object]] = [
        lambda: syscalls.unshare(syscalls.CLONE_NEWUSER),
        lambda: socket.socket(socket.AF_INET),
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        lambda: os.pidfd_open(os.getpid()),
        lambda: os.chown("/", -1, -1),
    ]
    for call in refused:
        assert attempt(qemu, Where.FILTERED, call) == "EPERM"
    for call in refused[1:]:  # the first may be forbidden to users by the host
        assert attempt(qemu, Where.QEMU, call) in ("", "EROFS")
    assert attempt(qemu, Where.FILTERED, reads(pair.path(DISK, of=pair.one))) == ""
    assert attempt(qemu, Where.FILTERED, lambda: socket.socket(socket.AF_UNIX)) == ""


# What lab does with it


def test_lab_ends_a_qemu_that_is_not_confined(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel tells is looked at each time: here another user than this one's is expected."""
    monkeypatch.setattr(lone, "FIRST_USER", 3_000_000_000)
    image = tiny_image(pair.site.store)
    wanted = contract.request(pair.site, image, "third", logs=tmp_path)
    with pytest.raises(LabError, match="not confined"):
        pair.site.backend("microvm").launch(wanted)
    assert not (pair.site.scratch / "third").exists()


def _become(qemu: int, *, with_namespaces: bool) -> None:
    """As jail.c does in the end."""
    user = Confinement.of(qemu).uid
    if with_namespaces:
        flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC
        syscalls.setns(os.pidfd_open(qemu), flags | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWCGROUP)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    syscalls.capset(effective=0, permitted=0, inheritable=0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def _is_writable(pid: int, number: str) -> bool:
    (flags,) = [
        line.split()[1]
        for line in Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines()
        if line.startswith("flags:")
    ]
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def _serves(pair: Pair) -> bool:
    with closing(pair.site.network.socket()) as client:
        client.settimeout(1)
        return client.connect_ex((str(pair.other.address), contract.PORT)) == 0


# The proof of KVM, in which no libvirt has a part; emulated here, so that it can be had on any host


@pytest.fixture
def emulated_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    words = command_line(MICROVM, tsc_khz=tsc_khz())
    monkeypatch.setattr(accelerator, "command_line", lambda _design: words)
    monkeypatch.setattr(accelerator, "MACHINE", EMULATED)
    monkeypatch.setattr(accelerator, "DEVICE", Path("/dev/zero"))
    monkeypatch.setattr(accelerator, "DEADLINE_SECONDS", dict.fromkeys(Ground, PROOF_SECONDS))


@pytest.mark.usefixtures("emulated_proof")
def test_the_proof_of_kvm_is_run_in_a_jail(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = prepare_guest(lab_home)
    verdict = accelerator.prove(guest, lab_home, vmm_filter())
    assert verdict.accelerator is Accelerator.KVM, verdict
    monkeypatch.setattr(accelerator, "install_emulator", lambda _home: find_qemu())
    with pytest.raises(LabError, match="not confined"):
        accelerator.prove(guest, lab_home, vmm_filter())


@pytest.mark.usefixtures("emulated_proof")
def test_what_qemus_user_may_not_open_is_not_proven(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may: a proof outside would boot."""
    monkeypatch.setattr(accelerator, "MACHINE", (*EMULATED, "-drive", "if=none,id=d,format=raw,file=/dev/full"))
    verdict = accelerator.prove(prepare_guest(lab_home), lab_home, vmm_filter())
    assert verdict.accelerator is Accelerator.TCG
    assert "/dev/full" in verdict.reason


PROVES = """
import sys
from pathlib import Path
from lab.backends.support.vmm import vmm_filter
from lab.hypervisor import accelerator
from lab.hypervisor.commandline import command_line
from lab.hypervisor.guest.artefacts import prepare_guest
accelerator.MACHINE, accelerator.DEVICE = sys.argv[2:], Path("/dev/zero")
home = Path(sys.argv[1])
accelerator.prove(prepare_guest(home), home, vmm_filter())
"""


def test_nothing_stays_of_a_proof_that_is_killed(lab_home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROVES, str(lab_home), *EMULATED, "-S"]) as proving:
        children = Path(f"/proc/{proving.pid}/task/{proving.pid}/children")
        assert wait_until(lambda: any(is_confined(int(pid)) for pid in children.read_text().split()), SECONDS)
        (qemu,) = map(int, children.read_text().split())
        session = session_of(proving.pid)
        assert (runtime_root() / session / "kvm").is_dir(), "the control"
        proving.kill()
        proving.wait()
        assert wait_until(lambda: not Path(f"/proc/{qemu}").exists(), SECONDS)
    ledger.clean_stale()
    assert not (runtime_root() / session).exists()


def test_a_file_of_somebody_else_is_the_one_that_was_looked_at(lab_home: Path, tmp_path: Path) -> None:
    """Who owns a disk's folder can put a link there, while lab starts, to what nobody else is let in to."""
    disk, secret, folder = tmp_path / "disk.raw", tmp_path / "secret", tmp_path / "machine"
    folder.mkdir()
    (folder / "socket").touch()
    for path in (disk, secret):
        path.write_text(path.name)
    seen = disk.stat()
    order = f"same {seen.st_dev} {seen.st_ino} {disk}\n"
    emulator = install_emulator(lab_home)
    reads = {"reads": [], "socket": folder / "socket", "devices": []}
    path = orders.lone_orders(folder, find_qemu(), seccomp=vmm_filter(), **reads)  # type: ignore[arg-type]
    path.write_text(path.read_text() + order)

    def jailed() -> subprocess.CompletedProcess[str]:
        words, environment = [str(emulator), "--version"], {"LAB_JAIL": str(path)}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)

    assert "QEMU emulator version" in jailed().stdout, "as long as it is the same"
    disk.unlink()
    disk.symlink_to(secret)
    ended = jailed()
    assert ended.returncode == 1
    assert f"{disk} is another file than lab has looked at" in ended.stderr


def is_confined(pid: int) -> bool:
    with suppress(LabError):  # it has ended: what QEMU can do is asked first
        return Confinement.of(pid).holds_for(pid)
    return False
