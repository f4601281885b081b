"""What one guest is told about itself: files appended to the initramfs that all guests share.

The kernel unpacks both archives into one tree, so nothing has to be fetched, parsed or probed for at boot,
and environment values may hold any byte but NUL. A Debian's systemd finds its units, its network and its
application's environment under /run/systemd, where init.sh copies them.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from itertools import chain

from lab.host.execution import terminals
from lab.hypervisor.domains.domain import Port, ports
from lab.hypervisor.guest import cpio
from lab.hypervisor.kinds import Design, MachineType, UserSpace
from lab.model import DiskFileSystem, Process, TerminalSize

TRANSPORT_MODULES = {  # what the machine's devices are attached by, and those that every guest needs at once
    MachineType.MICROVM: ("virtio_ring", "virtio", "virtio_mmio", "virtio_console", "virtio_blk"),
    MachineType.Q35: (
        "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_console",
        "virtio_blk",
    ),
}  # fmt: skip
IMAGE_MODULES = ("overlay",)  # a Debian finds these, and all that follow, by itself
NETWORK_MODULES = ("failover", "net_failover", "virtio_net")
MODULES = {*chain(*TRANSPORT_MODULES.values()), *IMAGE_MODULES, *NETWORK_MODULES}  # what every initramfs has
POWER_BUTTON_MODULES = ("button", "evdev")  # a disk that boots by itself has them; lab's machines are told otherwise
FILE_SYSTEM_MODULES: Mapping[DiskFileSystem, tuple[str, ...]] = {
    DiskFileSystem.EXT4: (),  # built into the kernel
    DiskFileSystem.EROFS: ("libcrc32c", "erofs"),
}

WANTED = ("lab-application",)  # what a Debian starts by itself; the server of commands waits until it is asked for

MACHINE = "run/lab/machine"
BUSYBOX = "/bin/busybox"  # what a shell of its takes for the program env is an applet
HELPER = "/run/lab/helper/inside"
IMAGE_ROOT = "/run/lab/image"

CGROUPS = {  # the application's own, in the guest
    UserSpace.IMAGE: "/run/lab/cgroup/application",
    UserSpace.DEBIAN: "/sys/fs/cgroup/system.slice/lab-application.service",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Everything a guest needs to know to run one application."""

    design: Design
    hostname: str
    process: Process
    pids: int | None = None
    address: IPv4Interface | None = None  # with its prefix: 198.18.0.7/15
    mac: str = ""
    interactive: bool = False  # somebody types to the application
    terminal: TerminalSize | None = None  # … at one that is made for it

    @property
    def _user_space(self) -> UserSpace:
        return self.design.user_space

    def archive(self) -> bytes:
        """The files as a cpio archive, to follow the shared one."""
        entries = [cpio.file(f"{MACHINE}/{path}", content) for path, content in self.files().items()]
        if self._user_space is UserSpace.DEBIAN:
            wants = f"{MACHINE}/systemd/system/multi-user.target.wants"
            entries += [cpio.link(f"{wants}/{name}.service", f"../{name}.service") for name in WANTED]
        return cpio.archive(cpio.with_parents(entries))

    def files(self) -> dict[str, bytes]:
        """Path below /run/lab/machine in the guest → content."""
        scripts = {
            "application": self._application_script(),
            "serve": self._serve_script(),
        }
        files = {"settings": self._settings()} | scripts | self._etc()
        if self._user_space is UserSpace.DEBIAN:
            units = {"lab-application": self._application_unit(), **UNITS}
            files |= {f"systemd/system/{name}.service": unit for name, unit in units.items()}
            if self.address:
                files["systemd/network/lab.network"] = NETWORK.format(mac=self.mac, address=self.address)
        return {path: text.encode() for path, text in files.items()}

    def _settings(self) -> str:
        settings = {
            "USER_SPACE": str(self._user_space),
            "IMAGE_TYPE": str(self.design.disk),
            "HOSTNAME": self.hostname,
            "MODULES": " ".join(self._modules()),
            "ADDRESS": str(self.address or ""),
            "PIDS_MAX": str(self.pids or ""),
            "TIMER": "lapic" if self.design.machine is MachineType.MICROVM else "",
            "PORTS": str(len(ports(interactive=self.interactive))),
            "OWNER": f"{self.process.uid}:{self.process.gid}",
            "MACHINE_ID": uuid.uuid4().hex,
        }
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())

    def _modules(self) -> tuple[str, ...]:
        """Those that init.sh loads, in that order: a module may need those before it."""
        modules = TRANSPORT_MODULES[self.design.machine]
        if self._user_space is UserSpace.IMAGE:
            modules += IMAGE_MODULES + FILE_SYSTEM_MODULES[self.design.disk]
            modules += NETWORK_MODULES if self.address else ()
        return modules

    def _etc(self) -> dict[str, str]:
        own = f"{self.address.ip}\t{self.hostname}\n" if self.address else ""
        return {
            "etc/hostname": self.hostname + "\n",
            "etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{own}",
            "etc/resolv.conf": "# lab gives its instances no name server\n",
        }

    def _application_script(self) -> str:
        """The application, the same in every guest: with the image as its root, and descriptor 3 open until its
        execve(2). It gets exactly its own environment, user and directory. It joins its pids limit by itself, unless
        a systemd started it below one.
        """
        process = self.process
        user = ":".join(map(str, (process.uid, process.gid, *process.additional_gids)))
        environment = [f"{name}={value}" for name, value in process.environment.items()]
        terminal = terminals.as_option(self.terminal) if self.terminal else []
        words = [
            *self._interact(), "env", "-i", *environment, "chroot", IMAGE_ROOT, "/.lab/inside", "init",
            *terminal, "--status-fd", "3", "--user", user, "--directory", process.working_directory, "--",
            *process.argv,
        ]  # fmt: skip
        join = self._join() if self._user_space is UserSpace.IMAGE else ""
        return f"echo $$ >/run/lab/pid\n{join}exec {shlex.join(words)} 3>/run/lab/status\n"

    def _interact(self) -> list[str]:
        """What stands between the application and the port that its input comes from."""
        if not self.interactive:
            return []
        option = ["--terminal"] if self.terminal else []
        return [HELPER, "interact", *option, "--status-fd", "3", device(Port.INPUT), "--", BUSYBOX]

    def _serve_script(self) -> str:
        """Further commands: below the application's pids limit, with the image as their root."""
        group = ["--group", CGROUPS[self._user_space]] if self.pids else []
        words = [HELPER, "serve", "--root", IMAGE_ROOT, *group]
        return f'exec {shlex.join(words)} "$(cat /run/lab/word)" {device(Port.SESSIONS)}\n'

    def _join(self) -> str:
        return f"echo $$ >{CGROUPS[self._user_space]}/cgroup.procs\n" if self.pids else ""

    def _application_unit(self) -> str:
        """A Debian's application: a service of its systemd (systemd.service(5))."""
        return APPLICATION_UNIT + (f"TasksMax={self.pids}\n" if self.pids else "")


def device(port: Port) -> str:
    """The port as the guest's scripts and the helper know it."""
    return f"/dev/vport0p{port.value}"


def _shell(function: str) -> str:
    return f"/bin/busybox sh -c '. /run/lab/lab.sh; {function}'"


APPLICATION_UNIT = """\
[Unit]
Description=The application that lab measures
Requires=lab-image.service lab-output.service
After=lab-image.service lab-output.service network.target
# Two units, although they are alike: systemd tells one that waits for both events nothing about the exit code.
OnSuccess=lab-succeeded.service
OnFailure=lab-failed.service

[Service]
# It enters the image's root by itself, as on a microvm: systemd's RootDirectory= would leave traces in the image's
# /run, refuse user ids that Debian does not know, and look for the program in Debian.
ExecStart=/bin/busybox sh /run/lab/machine/application
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
ExecStart={_shell("tell_exit")}
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
Description=The application's output, on its way to the host, and the host's orders on theirs

[Service]
Type=forking
ExecStart={_shell(". /run/lab/machine/settings; start_relay; await_executed")}
""",
    "lab-succeeded": EXIT_UNIT,
    "lab-failed": EXIT_UNIT,
    "lab-sessions": """\
[Unit]
Description=Commands for the host, each with streams of its own

[Service]
ExecStart=/bin/busybox sh /run/lab/machine/serve
# A command may be killed for want of memory; who serves it is needed further on.
OOMPolicy=continue
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
