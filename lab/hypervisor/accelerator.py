"""KVM must be proven: whether lab's own guest kernel really boots under it on this host.

/dev/kvm may open, answer and create machines, and still no kernel ever boots: QEMU asserts, or the guest hangs
before its first instruction of ours. So a small machine is started with a deadline, in a jail as every machine is;
the first line of lab's init is the proof. A success and a refusal hold for this boot of this host; that the time was
too short, or that something was lacking just then, holds for ten minutes only. Kept in ``<home>/cache/kvm.json``.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import UsageError
from lab.host.identity import privilege
from lab.host.processor import has_machines, lacking
from lab.host.session.ledger import Session
from lab.host.survey.virtualisation import Ground, platform
from lab.hypervisor.channels.ports import INIT_LINE
from lab.hypervisor.commandline import command_line
from lab.hypervisor.emulator import JAIL_VARIABLE, find_qemu, install_emulator
from lab.hypervisor.guest.artefacts import Guest, prepare_guest
from lab.hypervisor.jail.confinement import require_confined
from lab.hypervisor.jail.orders import lone_orders
from lab.hypervisor.kinds import MICROVM
from lab.model import Accelerator

log = logging.getLogger(__name__)

OVERRIDE = "LAB_ACCELERATOR"
DEVICE = Path("/dev/kvm")
DEADLINE_SECONDS = {Ground.HARDWARE: 5.0, Ground.VIRTUAL: 15.0, Ground.EMULATED: 180.0}
"""Where KVM works it takes a fraction of a second on hardware, and half a minute on an idle emulated processor."""

DOUBT_SECONDS = 600.0
CONSOLE_CHARACTERS = 4096
LACKING = ("Cannot allocate memory", "Device or resource busy")  # errno(3), in QEMU's last words: it may pass
AGAIN = "lab doctor --prove asks again"
MACHINE = ("-machine", "microvm,accel=kvm", "-cpu", "host", "-m", "128M")
# QEMU's own filter, in the words in which libvirt asks for it.
SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found out, and for which boot of which kernel; ``until`` a moment of CLOCK_BOOTTIME, if not for all of
    it. ``console`` is the end of what the guest wrote there meanwhile.
    """

    accelerator: Accelerator
    reason: str
    boot_id: str = ""
    kernel: str = ""
    until: float | None = None
    console: str = ""


def find_accelerator(home: Path, seccomp: bytes) -> Accelerator:
    """KVM where it is proven, otherwise TCG. See `choose_accelerator`."""
    return choose_accelerator(home, seccomp).accelerator


def choose_accelerator(home: Path, seccomp: bytes, *, again: bool = False) -> Verdict:
    """The verdict for this boot of this host; up to `DEADLINE_SECONDS`, the first time, or if it is to be had again.

    ``seccomp`` is the program that decides about QEMU's system calls, an array of struct sock_filter.
    ``$LAB_ACCELERATOR`` set to kvm or tcg decides without proof. Raises UsageError for any other value, and what
    `prepare_guest` and `install_emulator` raise if there is no guest kernel to boot, or nothing to boot it with.
    """
    if wish := os.environ.get(OVERRIDE):
        if wish not in (Accelerator.KVM, Accelerator.TCG):
            raise UsageError(f"{OVERRIDE}={wish} is no accelerator", hint=f"{OVERRIDE}=kvm or {OVERRIDE}=tcg")
        return Verdict(accelerator=Accelerator(wish), reason=f"{OVERRIDE} says so")
    if obstacle := _obstacle():
        return Verdict(accelerator=Accelerator.TCG, reason=obstacle)
    kept = home / "cache" / "kvm.json"
    verdict = None if again else _remembered(kept)
    if verdict is None:
        verdict = prove(prepare_guest(home), home, seccomp)
        _remember(kept, verdict)
    return verdict


def last_proof(home: Path) -> Verdict | None:
    """What the last guest that was booted under KVM had to say, if that still holds."""
    return _remembered(home / "cache" / "kvm.json")


def prove(guest: Guest, home: Path, seccomp: bytes) -> Verdict:
    """Boot the guest's kernel under KVM until its init speaks, or the deadline passes.

    QEMU is what `Machine` starts, in the jail that it starts it in: a host may let root at /dev/kvm and not QEMU's
    user. Who may not make that jail gets a QEMU of his own, and can start no machine.
    """
    deadline_seconds = DEADLINE_SECONDS[platform().ground]
    log.info("booting a guest to see whether KVM runs it, for %g s at most", deadline_seconds)
    console = bytearray()
    failure, final = _boot(guest, home, seccomp, deadline_seconds, console)
    return Verdict(
        accelerator=Accelerator.TCG if failure else Accelerator.KVM,
        reason=failure or "lab's guest kernel booted under KVM",
        boot_id=_boot_id(),
        kernel=os.uname().release,
        until=None if final else _now() + DOUBT_SECONDS,
        console=_end(console.decode("utf-8", "replace")),
    )


def _end(text: str) -> str:
    """Its last `CONSOLE_CHARACTERS`, from the beginning of a line: half a name could not be taken out of a report."""
    return text if len(text) <= CONSOLE_CHARACTERS else text[-CONSOLE_CHARACTERS:].partition("\n")[2]


def _obstacle() -> str:
    if not has_machines():
        return lacking()
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{DEVICE} does not exist: no virtualisation in this CPU, in its firmware's settings or in this VM"
    except OSError as error:
        return f"{DEVICE} can't be opened: {error.strerror}"
    return ""


def _boot(guest: Guest, home: Path, seccomp: bytes, deadline_seconds: float, console: bytearray) -> tuple[str, bool]:
    """Why it did not boot, "" when it did; and whether that is final. QEMU without libvirt: there is nothing to
    manage, only to kill. What its console shows is added to ``console``.
    """
    jailed = privilege.granted(privilege.Need.CONTAIN)
    program = install_emulator(home) if jailed else find_qemu()
    with (
        Session.open() as session,
        socket.socket(socket.AF_UNIX) as listener,
        tempfile.TemporaryFile() as complaints,
    ):
        folder = session.directory / "kvm"
        folder.mkdir(mode=0o700)
        port = folder / "console"
        listener.bind(str(port))
        listener.listen(1)
        argv = [
            str(program), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", *SANDBOX, *MACHINE,
            "-kernel", str(guest.kernel), "-initrd", str(guest.initramfs), "-append", command_line(MICROVM),
            "-serial", f"unix:{port}",
        ]  # fmt: skip
        environment = dict(os.environ)
        if jailed:
            reads = (guest.kernel, guest.initramfs)
            environment[JAIL_VARIABLE] = str(
                lone_orders(folder, find_qemu(), seccomp=seccomp, reads=reads, socket=port, devices=(DEVICE,))
            )
        else:
            argv = ["setpriv", "--pdeathsig=KILL", *argv]
        qemu = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints, env=environment
        )
        try:
            failure, final = _await_init(listener, qemu, deadline_seconds, console)
            if jailed and not failure:
                require_confined(qemu.pid, "the proof of KVM")
        finally:
            qemu.kill()
            qemu.wait()
        complaints.seek(0)
        last_words = complaints.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        final = final and not any(lack in word for word in last_words for lack in LACKING)
        return ": ".join([failure, *last_words]) + ("" if final else f"; {AGAIN}") if failure else "", final


def _await_init(
    listener: socket.socket, qemu: subprocess.Popen[bytes], deadline_seconds: float, seen: bytearray
) -> tuple[str, bool]:
    """As `_boot`."""
    deadline = time.monotonic() + deadline_seconds
    try:
        if not _connects(listener, qemu, deadline_seconds):
            return "QEMU gave up under KVM", True
        connection, _ = listener.accept()
        with connection:
            while INIT_LINE not in seen:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(4096)
                if not data:
                    return "QEMU gave up under KVM", True
                seen += data
    except TimeoutError:
        return f"{DEVICE} opens, but lab's guest kernel did not boot within {deadline_seconds:g} s", False
    except OSError as error:
        return f"QEMU gave up under KVM: {error.strerror}", True
    return "", True


def _connects(listener: socket.socket, qemu: subprocess.Popen[bytes], timeout_seconds: float) -> bool:
    """Whether QEMU connects to its console; False if it ends before. Raises TimeoutError."""
    pidfd = os.pidfd_open(qemu.pid)
    try:
        ready, _, _ = select.select([listener.fileno(), pidfd], [], [], timeout_seconds)
    finally:
        os.close(pidfd)
    if not ready:
        raise TimeoutError
    return listener.fileno() in ready


def _remembered(path: Path) -> Verdict | None:
    try:
        fields = json.loads(path.read_text())
        verdict = Verdict(**{**fields, "accelerator": Accelerator(fields["accelerator"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if (verdict.boot_id, verdict.kernel) != (_boot_id(), os.uname().release):
        return None
    return verdict if verdict.until is None or _now() < verdict.until else None


def _remember(path: Path, verdict: Verdict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps(asdict(verdict)))
    unfinished.rename(path)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
