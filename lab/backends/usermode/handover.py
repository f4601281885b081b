"""What a guest is told whose first process is lab's helper: its first root file system, which holds little more.

lab/inside/guest.c, the guest's first process, reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from lab.host.execution import terminals
from lab.hypervisor.domains.domain import Port, ports
from lab.hypervisor.guest import cpio
from lab.hypervisor.guest.handover import device
from lab.instance import INSIDE
from lab.model import Process, TerminalSize

PLACE = "lab"
HELPER = f"/{PLACE}/helper/inside"
ROOT = f"/{PLACE}/image"
INPUT_PORT = f"/{PLACE}/port5"
STATUS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Everything a guest needs to know to run one application."""

    hostname: str
    process: Process
    address: IPv4Interface  # with its prefix: 198.18.0.7/15
    pids: int | None = None
    interactive: bool = False  # somebody types to the application
    terminal: TerminalSize | None = None  # … at one that is made for it
    is_machine: bool = False  # a virtual machine, whose ports are virtio's, and not User-mode Linux

    def archive(self, helper: Path) -> bytes:
        """All of it in the form that the kernel unpacks."""
        entries = [
            cpio.directory(f"{PLACE}/image"),
            cpio.file(f"{PLACE}/helper/inside", helper.read_bytes(), 0o755),
            *(cpio.file(f"{PLACE}/{path}", content) for path, content in self.files().items()),
        ]
        return cpio.archive(cpio.with_parents(entries))

    def files(self) -> dict[str, bytes]:
        """Path below /lab in the guest → content."""
        environment = (f"{name}={value}" for name, value in self.process.environment.items())
        own = f"{self.address.ip}\t{self.hostname}\n"
        return {
            "settings": self._settings().encode(),
            "application": _listed(self._words()),
            "environment": _listed(environment),
            "etc/hostname": f"{self.hostname}\n".encode(),
            "etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{own}".encode(),
            "etc/resolv.conf": b"# lab gives its instances no name server\n",
        }

    def _settings(self) -> str:
        settings = {
            "hostname": self.hostname,
            "address": str(self.address),
            "pids": str(self.pids or ""),
            "owner": f"{self.process.uid}:{self.process.gid}",
            "ports": str(len(ports(interactive=self.interactive))) if self.is_machine else "",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items() if value)

    def _words(self) -> list[str]:
        """The application's whole command: lab's helper holds descriptor 3 open until its execve(2)."""
        process = self.process
        user = ":".join(map(str, (process.uid, process.gid, *process.additional_gids)))
        terminal = terminals.as_option(self.terminal) if self.terminal else []
        words = [
            INSIDE, "init", *terminal, "--status-fd", str(STATUS), "--user", user,
            "--directory", process.working_directory, "--", *process.argv,
        ]  # fmt: skip
        return [*self._interact(), *words]

    def _interact(self) -> list[str]:
        """What stands between the application and the serial line that its input comes from."""
        if not self.interactive:
            return []
        option = ["--terminal"] if self.terminal else []
        return [
            HELPER,
            "interact",
            *option,
            "--acknowledge",
            "--status-fd",
            str(STATUS),
            "--root",
            ROOT,
            device(Port.INPUT) if self.is_machine else INPUT_PORT,
            "--",
        ]


def _listed(words: Iterable[str]) -> bytes:
    return b"".join(word.encode() + b"\0" for word in words)
