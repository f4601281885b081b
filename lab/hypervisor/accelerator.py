"""KVM must be proven: whether lab's own guest kernel really boots under it on this host.

/dev/kvm may open, answer and create machines, and still no kernel ever boots: QEMU asserts, or the guest hangs
before its first instruction of ours. So a small machine is started with a deadline; the first line of lab's
init is the proof. The verdict holds for this boot of this host and is kept in ``<home>/cache/kvm.json``.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import UsageError
from lab.hypervisor.channels import INIT_LINE
from lab.hypervisor.commandline import command_line
from lab.hypervisor.emulator import QEMU
from lab.hypervisor.guest.artefacts import Guest, prepare_guest
from lab.hypervisor.kinds import MICROVM
from lab.model import Accelerator

log = logging.getLogger(__name__)

OVERRIDE = "LAB_ACCELERATOR"
DEVICE = Path("/dev/kvm")
DEADLINE_SECONDS = 5.0  # where KVM works, this takes a fraction of a second
PROOF_MEMORY = "128M"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found out, and for which boot of which kernel."""

    accelerator: Accelerator
    reason: str
    boot_id: str = ""
    kernel: str = ""


def find_accelerator(home: Path) -> Accelerator:
    """KVM where it is proven, otherwise TCG. See `choose_accelerator`."""
    return choose_accelerator(home).accelerator


def choose_accelerator(home: Path) -> Verdict:
    """The verdict for this boot of this host; at most a few seconds, the first time.

    ``$LAB_ACCELERATOR`` set to kvm or tcg decides without proof. Raises UsageError for any other value, and what
    `prepare_guest` raises if there is no guest kernel to boot.
    """
    if wish := os.environ.get(OVERRIDE):
        if wish not in (Accelerator.KVM, Accelerator.TCG):
            raise UsageError(f"{OVERRIDE}={wish} is no accelerator", hint=f"{OVERRIDE}=kvm or {OVERRIDE}=tcg")
        return Verdict(accelerator=Accelerator(wish), reason=f"{OVERRIDE} says so")
    if obstacle := _obstacle():
        return Verdict(accelerator=Accelerator.TCG, reason=obstacle)
    kept = home / "cache" / "kvm.json"
    verdict = _remembered(kept)
    if verdict is None:
        verdict = prove(prepare_guest(home))
        _remember(kept, verdict)
    return verdict


def prove(guest: Guest) -> Verdict:
    """Boot the guest's kernel under KVM until its init speaks, or the deadline passes."""
    failure = _boot(guest)
    return Verdict(
        accelerator=Accelerator.TCG if failure else Accelerator.KVM,
        reason=failure or "lab's guest kernel booted under KVM",
        boot_id=_boot_id(),
        kernel=os.uname().release,
    )


def _obstacle() -> str:
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{DEVICE} does not exist: no virtualisation in this CPU, in its firmware's settings or in this VM"
    except OSError as error:
        return f"{DEVICE} can't be opened: {error.strerror}"
    return ""


def _boot(guest: Guest) -> str:
    """Why it did not boot; empty when it did. QEMU directly: there is nothing to manage, only to kill."""
    with (
        tempfile.TemporaryDirectory(prefix="lab-kvm-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
        tempfile.TemporaryFile() as complaints,
    ):
        console = Path(folder) / "console"
        listener.bind(str(console))
        listener.listen(1)
        argv = [
            shutil.which(QEMU) or QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "microvm,accel=kvm", "-cpu", "host", "-m", PROOF_MEMORY,
            "-kernel", str(guest.kernel), "-initrd", str(guest.initramfs), "-append", command_line(MICROVM),
            "-serial", f"unix:{console}",
        ]  # fmt: skip
        qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints)
        try:
            failure = _await_init(listener)
        finally:
            qemu.kill()
            qemu.wait()
        complaints.seek(0)
        last_words = complaints.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return ": ".join([failure, *last_words]) if failure else ""


def _await_init(listener: socket.socket) -> str:
    deadline = time.monotonic() + DEADLINE_SECONDS
    seen = b""
    try:
        listener.settimeout(DEADLINE_SECONDS)
        connection, _ = listener.accept()
        with connection:
            while INIT_LINE not in seen:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(4096)
                if not data:
                    return "QEMU gave up under KVM"
                seen += data
    except TimeoutError:
        return f"{DEVICE} opens, but lab's guest kernel did not boot within {DEADLINE_SECONDS:g} s"
    except OSError as error:
        return f"QEMU gave up under KVM: {error.strerror}"
    return ""


def _remembered(path: Path) -> Verdict | None:
    try:
        fields = json.loads(path.read_text())
        verdict = Verdict(**{**fields, "accelerator": Accelerator(fields["accelerator"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return verdict if (verdict.boot_id, verdict.kernel) == (_boot_id(), os.uname().release) else None


def _remember(path: Path, verdict: Verdict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps(asdict(verdict)))
    unfinished.rename(path)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
