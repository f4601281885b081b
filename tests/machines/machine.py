"""One ordinary machine: QEMU, emulated, and commands in it over ssh, from the loopback alone.

Every machine has a folder with its console, its layer over the disks that all share, and what ssh needs.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.host.command import run

from . import checkout
from .debian import CHECKOUT, USER, Root
from .disk import Disk, folder_of, home_disk, root_disk

BOOT_SECONDS = 900.0
COMMAND_SECONDS = 1800.0
STATE = "machine.json"
CONSOLE = "console.log"
LOOPBACK = "127.0.0.1"
TRIES = 5

# hpet, which Linux takes otherwise, is emulated by one lock that both processors queue for
# A panic ends QEMU (-no-reboot). On a busy host a disk takes longer to appear than the minute and a half after which
# systemd goes into emergency mode, where no command comes in.
KERNEL_WORDS = (
    "root=LABEL=root rw console=ttyS0 tsc=reliable panic=-1 "
    "systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900"
)

# QEMU 7.2 gathers wrongly by AVX2, and numpy sorts by that: medians would be wrong there, and reports end by a fault.
# Debian 12's libgcrypt takes AVX beside BMI2 for AVX2, and ends apt by an invalid opcode: so neither.
PROCESSOR = "EPYC,+svm,+npt,-avx2,-bmi2"

# Files that are gone here go there, too. The disk was made from the same lists of packages, whatever else has changed
# in those files: ./bootstrap has nothing to install.
RECEIVE = f"""
set -e
cd {CHECKOUT}
find . -path ./.venv -prune -o -path ./.bootstrap -prune -o -path ./results -prune -o -name __pycache__ -prune \\
    -o -name '*.egg-info' -prune -o -type f -exec rm -f {{}} +
tar -xz --no-same-owner -f -
chown -R {USER}: .
. ./bootstrap
fingerprints > "$stamp"
"""


class MachineError(Exception):
    """The machine did not do what any machine does."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A running one, by its folder: any process can talk to it."""

    folder: Path

    @property
    def state(self) -> dict[str, object]:
        return dict(json.loads((self.folder / STATE).read_text()))

    @property
    def pid(self) -> int:
        """QEMU's."""
        return int(str(self.state["pid"]))

    @property
    def is_running(self) -> bool:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return self.pid in self._processes()
        return False

    def _processes(self) -> list[int]:
        """Those whose command line names the folder: its QEMU, also one that nobody has had the time to note."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if f"file:{self.folder / CONSOLE}".encode() in words:
                    found.append(int(path.parent.name))
        return found

    def ssh(self, user: str = "root", *, own_session: bool = False, terminal: bool = False) -> list[str]:
        """The command line that a command is appended to, as one shell word.

        Commands of one user share a connection and so a login session, unless they want an ``own_session``.
        """
        shared = "ControlPath=none" if own_session else f"ControlPath={self.folder}/{user}"
        options = [
            f"UserKnownHostsFile={self.folder}/known_hosts", "StrictHostKeyChecking=yes", "HostKeyAlias=machine",
            "IdentitiesOnly=yes", "BatchMode=yes", "LogLevel=ERROR", "ConnectTimeout=60",
            "ServerAliveInterval=60", "ServerAliveCountMax=10", "ControlMaster=auto", "ControlPersist=yes", shared,
            f"RequestTTY={'force' if terminal else 'no'}",
        ]  # fmt: skip
        argv = ["ssh", "-F", "none", "-i", str(self.folder / "key"), "-p", str(self.state["port"])]
        return [*argv, *(word for option in options for word in ("-o", option)), f"{user}@{LOOPBACK}"]

    def run(
        self,
        *argv: str,
        user: str = "root",
        directory: Path | None = None,
        stdin: bytes = b"",
        timeout_seconds: float = COMMAND_SECONDS,
        own_session: bool = False,
        terminal: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end, whatever that is; one argument is a line for the shell.

        Raises MachineError when the machine is gone or silent, so that it is never taken for the command's answer.
        """
        words = remote(argv, directory)
        command = [*self.ssh(user, own_session=own_session, terminal=terminal), words]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_seconds, check=False)
        except subprocess.TimeoutExpired as error:
            said = ((error.stdout or b"")[-2000:] + (error.stderr or b"")[-2000:]).decode("utf-8", "replace")
            raise MachineError(f"{words}: no end after {timeout_seconds:g} s; until then:\n{said}") from error
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        if done.returncode == 255 and not self.is_running:
            raise MachineError(f"{words}: the machine has ended\n{err}\n{self.console()[-2000:]}")
        return subprocess.CompletedProcess(argv, done.returncode, out, err)

    def push(self) -> None:
        """This checkout's files as they are now, in place of those that are there.

        Raises MachineError when the machine's disk lacks packages that the checkout asks for by now.
        """
        if self.state["disk"] != folder_of(Root(suite=str(self.state["suite"]))).name:
            raise MachineError(
                "this checkout wants other packages than its disk has: take it down, and start it anew"
            )
        done = self.run(RECEIVE, stdin=checkout.archive())
        if done.returncode != 0:
            raise MachineError(f"the checkout did not get there\n{done.stdout}{done.stderr}")

    def console(self) -> str:
        return (self.folder / CONSOLE).read_text("utf-8", "replace")

    def stop(self) -> None:
        """At once: what it wrote is thrown away. Fine for one whose start was cut off anywhere."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # without a port nobody has a connection to it
            for user in ("root", USER):
                argv = [*self.ssh(user), "-O", "exit"]
                subprocess.run(argv, capture_output=True, timeout=30, check=False)
        for pid in self._processes():
            with suppress(ProcessLookupError):
                end(pid)
        shutil.rmtree(self.folder)


def end(pid: int) -> None:
    """Kill it, and return when it has ended.

    /proc does not tell that: a process loses its command line with its memory, before it closes its files.
    Raises ProcessLookupError where there is none, MachineError when the kernel takes longer than 30 s.
    """
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not select.select([descriptor], [], [], 30)[0]:
            raise MachineError(f"process {pid} has not ended 30 s after SIGKILL")
    finally:
        os.close(descriptor)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def remote(argv: Sequence[str], directory: Path | None) -> str:
    """What a login shell there is to execute."""
    line = argv[0] if len(argv) == 1 else f"exec {shlex.join(argv)}"
    return f"cd {shlex.quote(str(directory))} || exit\n{line}" if directory else line


def start(
    root: Root,
    folder: Path,
    *,
    processors: int = 1,
    memory: str = "4G",
    outlives: bool = False,
) -> Machine:
    """Boot a machine until commands can be run in it; it ends with this process unless it ``outlives`` it.

    One processor is what holds: with two, QEMU's TCG lets one run an instruction that the other has half rewritten
    (Linux patches its own code, static keys), and a machine with KVM at work panicked.

    ``folder`` is new. Raises MachineError with the console's last lines when it does not boot.
    """
    disk = root_disk(root)
    disks = [disk.path] if root.fresh else [disk.path, home_disk().path]
    folder.mkdir(parents=True, mode=0o700)
    shutil.copy(disk.key, folder / "key")
    (folder / "known_hosts").write_text(f"machine {disk.host_key}\n")
    for number, base in enumerate(disks):
        layer = folder / f"{number}.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, layer], timeout_seconds=60)
    for _ in range(TRIES):
        if launch(disk, folder, len(disks), processors, memory, outlives, suite=root.suite, disk=disk.folder.name):
            break
    else:
        raise MachineError(f"QEMU does not start: {(folder / 'qemu.log').read_text()}")
    machine = Machine(folder)
    wait(machine)
    return machine


def launch(made: Disk, folder: Path, disks: int, processors: int, memory: str, outlives: bool, **known: str) -> bool:
    """Start QEMU; False when it ended at once, as when somebody else has just taken the port."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    argv = [
        "qemu-system-x86_64", "-name", folder.name, "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR,
        "-smp", str(processors), "-m", memory, "-no-reboot",
        "-kernel", str(made.folder / "vmlinuz"), "-initrd", str(made.folder / "initrd.img"),
        "-append", KERNEL_WORDS, "-serial", f"file:{folder / CONSOLE}",
        "-netdev", f"user,id=net,hostfwd=tcp:{LOOPBACK}:{port}-:22", "-device", "virtio-net-pci,netdev=net",
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
    ]  # fmt: skip
    for number in range(disks):
        argv += ["-drive", f"if=none,id=d{number},file={folder / f'{number}.qcow2'},format=qcow2,cache=unsafe"]
        argv += ["-device", f"virtio-blk-pci,drive=d{number}"]
    if not outlives:
        argv = ["setpriv", "--pdeathsig=KILL", *argv]
    with (folder / "qemu.log").open("wb") as said:
        qemu = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, close_fds=True
        )
    (folder / STATE).write_text(json.dumps({"pid": qemu.pid, "port": port, **known}))
    with suppress(subprocess.TimeoutExpired):
        qemu.wait(1)
    return qemu.returncode is None


def wait(machine: Machine) -> None:
    """Until its sshd lets root in."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        if not machine.is_running:
            raise MachineError(f"QEMU has ended: {(machine.folder / 'qemu.log').read_text()}")
        with suppress(subprocess.TimeoutExpired):
            argv = [*machine.ssh(), "true"]
            if subprocess.run(argv, capture_output=True, timeout=120, check=False).returncode == 0:
                return
        if time.monotonic() > deadline:
            raise MachineError(f"it has not booted after {BOOT_SECONDS:g} s:\n{machine.console()[-4000:]}")
        time.sleep(1)


def throwaway_folder() -> Path:
    """A name for a folder that is not there yet, short enough for ssh's sockets: unix(7)."""
    return Path(tempfile.mkdtemp(prefix="lab-machine-", dir="/var/tmp")) / "m"
