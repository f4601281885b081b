"""What one guest is told about itself: files appended to the initramfs that all guests share.

The kernel unpacks both archives into one tree, so nothing has to be fetched, parsed or probed for at boot,
and environment values may hold any byte but NUL. A pc's systemd finds its units, its network and its
application's environment under /run/systemd, where init.sh copies them.
"""

from __future__ import annotations

import shlex
import uuid
from dataclasses import dataclass
from ipaddress import IPv4Interface

from lab.hypervisor.guest import cpio
from lab.hypervisor.kinds import MachineKind
from lab.model import Process

MODULES = {
    MachineKind.MICROVM: ("virtio_ring", "virtio", "virtio_mmio", "virtio_console", "virtio_blk", "overlay"),
    MachineKind.PC: (
        "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_console",
        "virtio_blk",
    ),
}  # fmt: skip
NETWORK_MODULES = ("failover", "net_failover", "virtio_net")  # in a pc, udev finds them

WANTED = ("lab-application", "lab-orders")  # what a pc starts by itself; the agent waits until it is asked for

MACHINE = "run/lab/machine"
IMAGE_ROOT = "/run/lab/image"

# systemd adds these to a service's environment; the application gets exactly its own.
SYSTEMD_ENVIRONMENT = (
    "HOME", "INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LOGNAME", "PATH", "SHELL", "SYSTEMD_EXEC_PID", "TERM", "USER",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Everything a guest needs to know to run one application."""

    kind: MachineKind
    hostname: str
    process: Process
    pids: int | None = None
    address: IPv4Interface | None = None  # with its prefix: 198.18.0.7/15
    mac: str = ""

    def archive(self) -> bytes:
        """The files as a cpio archive, to follow the shared one."""
        entries = [cpio.file(f"{MACHINE}/{path}", content) for path, content in self.files().items()]
        if self.kind is MachineKind.PC:
            wants = f"{MACHINE}/systemd/system/multi-user.target.wants"
            entries += [cpio.link(f"{wants}/{name}.service", f"../{name}.service") for name in WANTED]
        return cpio.archive(cpio.with_parents(entries))

    def files(self) -> dict[str, bytes]:
        """Path below /run/lab/machine in the guest → content."""
        files = {"settings": self._settings()} | self._etc()
        if self.kind is MachineKind.PC:
            units = {"lab-application": self._application_unit(), **UNITS}
            files |= {f"systemd/system/{name}.service": unit for name, unit in units.items()}
            if self.address:
                files["systemd/network/lab.network"] = NETWORK.format(mac=self.mac, address=self.address)
            files |= self._accounts()
        else:
            files["application"] = self._application_script()
        return {path: text.encode() for path, text in files.items()}

    def _settings(self) -> str:
        modules = MODULES[self.kind]
        if self.address and self.kind is MachineKind.MICROVM:
            modules += NETWORK_MODULES
        settings = {
            "KIND": str(self.kind),
            "HOSTNAME": self.hostname,
            "MODULES": " ".join(modules),
            "ADDRESS": str(self.address or ""),
            "PIDS_MAX": str(self.pids or ""),
            "OWNER": f"{self.process.uid}:{self.process.gid}",
            "MACHINE_ID": uuid.uuid4().hex,
        }
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())

    def _etc(self) -> dict[str, str]:
        own = f"{self.address.ip}\t{self.hostname}\n" if self.address else ""
        return {
            "etc/hostname": self.hostname + "\n",
            "etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{own}",
            "etc/resolv.conf": "# lab gives its instances no name server\n",
        }

    def _accounts(self) -> dict[str, str]:
        """Lines for a pc's own /etc/passwd and /etc/group: systemd refuses even numeric ids that they don't list."""
        process = self.process
        gids = (process.gid, *process.additional_gids)
        return {
            "passwd": f"application:x:{process.uid}:{process.gid}::/:/bin/sh\n" if process.uid else "",
            "group": "".join(f"application-{gid}:x:{gid}:\n" for gid in gids if gid),
        }

    def _application_script(self) -> str:
        """A microvm's application: entered by busybox's shell with descriptor 3 open until the execve(2)."""
        process = self.process
        user = ":".join(map(str, (process.uid, process.gid, *process.additional_gids)))
        environment = [f"{name}={value}" for name, value in process.environment.items()]
        words = [
            "env", "-i", *environment, "chroot", IMAGE_ROOT, "/.lab/inside", "init", "--status-fd", "3",
            "--user", user, "--directory", process.working_directory, "--", *process.argv,
        ]  # fmt: skip
        join = "echo $$ >/run/lab/cgroup/application/cgroup.procs\n" if self.pids else ""
        return f"echo $$ >/run/lab/pid\n{join}exec {shlex.join(words)}\n"

    def _application_unit(self) -> str:
        """A pc's application: a service of its systemd (systemd.exec(5)) with the image's root as its root."""
        process = self.process
        lines = [f"Environment={quote(f'{name}={value}')}" for name, value in process.environment.items()]
        surplus = [name for name in SYSTEMD_ENVIRONMENT if name not in process.environment]
        lines.append(f"UnsetEnvironment={' '.join(surplus)}")
        if (process.uid, process.gid) != (0, 0) or process.additional_gids:
            lines += [f"User={process.uid}", f"Group={process.gid}"]
            lines.append(f"SupplementaryGroups={' '.join(map(str, process.additional_gids))}")
        if self.pids:
            lines.append(f"TasksMax={self.pids}")
        if path := process.environment.get("PATH"):
            lines.append(f"ExecSearchPath={path.replace('%', '%%')}")
        lines.append(f"WorkingDirectory={process.working_directory.replace('%', '%%')}")
        lines.append(f"ExecStart=:{' '.join(quote(word) for word in process.argv)}")
        return APPLICATION_UNIT + "\n".join(lines) + "\n"


def quote(word: str) -> str:
    """One word of a unit file that systemd reads back as it was: C escapes, no specifiers (systemd.syntax(7))."""
    escaped = "".join(f"\\x{ord(c):02x}" if c in '"\\' or ord(c) < 0x20 else c for c in word)
    return '"' + escaped.replace("%", "%%") + '"'


def _shell(function: str) -> str:
    return f"/bin/busybox sh -c '. /run/lab/lab.sh; {function}'"


APPLICATION_UNIT = f"""\
[Unit]
Description=The application that lab measures
Requires=lab-image.service lab-output.service
After=lab-image.service lab-output.service network.target
# Two units, although they are alike: systemd tells one that waits for both events nothing about the exit code.
OnSuccess=lab-succeeded.service
OnFailure=lab-failed.service

[Service]
Type=exec
RootDirectory={IMAGE_ROOT}
# The image shows every file it has: no tmpfs over its /run. lab-image.service has mounted /proc, /sys and /dev.
MountAPIVFS=no
RootDirectoryStartOnly=yes
# With a mount namespace systemd enters the image's root before it looks for the program, not after.
PrivateMounts=yes
ExecStartPost=+{_shell("echo $MAINPID >/run/lab/pid; mark executed")}
StandardInput=null
StandardOutput=file:/run/lab/output
StandardError=file:/run/lab/errors
OOMPolicy=continue
"""

EXIT_UNIT = f"""\
[Unit]
Description=The application's exit code, on its way to the host
# Without the application the machine has no purpose.
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
Type=oneshot
ExecStart={_shell("mark_exit")}
"""

UNITS = {
    "lab-image": f"""\
[Unit]
Description=The image, below a writable layer

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={_shell("mount_image /var/lib/lab")}
""",
    "lab-output": f"""\
[Unit]
Description=The application's output, on its way to the host

[Service]
Type=forking
ExecStart={_shell(". /run/lab/machine/settings; start_relays")}
""",
    "lab-succeeded": EXIT_UNIT,
    "lab-failed": EXIT_UNIT,
    "lab-orders": f"""\
[Unit]
Description=The host's orders
After=lab-application.service

[Service]
ExecStart={_shell("obey_orders")}
""",
    "lab-agent": """\
[Unit]
Description=QEMU guest agent

[Service]
ExecStart=/usr/sbin/qemu-ga --method virtio-serial --path /dev/vport0p5 --statedir /run/lab
""",
}

NETWORK = """\
[Match]
MACAddress={mac}

[Network]
Address={address}
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=no
"""
