"""An image as a disk that boots by itself, in plain QEMU, libvirt or any cloud with BIOS and virtio.

A master boot record with GRUB's code and two partitions: lab's guest kernel with an initramfs of its own, and the
image's files, writable and otherwise untouched. The initramfs starts the image's command on the serial console and
switches the machine off when it ends. The power button has it end: its stop signal, a grace, SIGKILL. Out of scope:
UEFI firmware without a BIOS, disks that are not virtio.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError, UsageError
from lab.host.command import run
from lab.hypervisor.guest import cpio, grub
from lab.hypervisor.guest.artefacts import Guest, prepare_guest
from lab.hypervisor.guest.handover import NETWORK_MODULES, POWER_BUTTON_MODULES, TRANSPORT_MODULES
from lab.hypervisor.kinds import MachineType
from lab.images.disk import make_ext4
from lab.images.image import Image
from lab.images.process import resolve, stop_signal_of
from lab.images.store import Store
from lab.inside.build import program
from lab.model import Accelerator, Process

# no_timer_check: a busy emulator's timer may be late, for which the kernel would panic (as in commandline.py).
GRUB_SCRIPT = "linux /vmlinuz console=tty0 console=ttyS0 panic=-1 no_timer_check quiet\ninitrd /initramfs\nboot\n"
FREE_BYTES = 1 << 30
MEMORY_MIB = 512
SCRIPT = Path(__file__).parent / "bootdisk.sh"
LEASED = Path(__file__).parent / "leased.sh"
BUTTON = Path(__file__).parent / "button.sh"
PRESSED = "lab/acpi/PWRF/00000080"  # the power button's event, as busybox's acpid names it
GRACE_SECONDS = 5  # half of what whoever presses the button waits (docker stop, lab stop)
RAW = "raw"
FORMATS = {".qcow2": "qcow2", ".raw": RAW, ".img": RAW}


@dataclass(frozen=True, slots=True, kw_only=True)
class BootDisk:
    """A disk, and the line that boots it."""

    path: Path
    image: Image
    form: str

    def command(self, accelerator: Accelerator) -> str:
        """A line for a shell that starts QEMU with the disk."""
        return shlex.join(boot_command(self.image, self.path, self.form, accelerator))


def make_boot_disk(store: Store, image: Image, target: Path, *, free_bytes: int = FREE_BYTES) -> BootDisk:
    """Write the disk to ``target``, whose suffix tells its format, with ``free_bytes`` for the application to fill.

    Needs root. Raises UsageError for another suffix or an image without a command, CommandError without GRUB.
    """
    form = FORMATS.get(target.suffix)
    if form is None:
        raise UsageError(f"{target}: no format ends with {target.suffix or 'nothing'}", hint="FILE.qcow2 or FILE.raw")
    if target.exists():
        raise LabError(f"{target} exists already", hint="remove it, or choose another name")
    if not target.parent.is_dir():
        raise LabError(f"there is no directory {target.parent}", hint=f"mkdir -p {target.parent}")
    process = resolve(image, store.lower_directories(image))
    guest = prepare_guest(store.home)
    unfinished = target.with_name(f".{target.name}.unfinished")
    with store.scratch("bootdisk") as scratch:
        whole = unfinished if form == RAW else scratch / "disk.raw"
        try:
            _make_whole(store, image, guest, process, scratch, whole, free_bytes)
            if form != RAW:
                run(
                    ["qemu-img", "convert", "-f", RAW, "-O", form, whole, unfinished],
                    timeout_seconds=grub.MAKE_SECONDS,
                )
            unfinished.rename(target)  # it has its name once it is whole
        finally:
            unfinished.unlink(missing_ok=True)
    return BootDisk(path=target, image=image, form=form)


def _make_whole(
    store: Store, image: Image, guest: Guest, process: Process, scratch: Path, whole: Path, free_bytes: int
) -> None:
    """Boot record, GRUB behind it, and the partitions, each at a whole MiB."""
    core = grub.core_image(grub.BIOS, GRUB_SCRIPT, scratch)
    boot_at, root_at = grub.ALIGNMENT_BYTES, grub.ALIGNMENT_BYTES + grub.BOOT_BYTES
    whole.touch(mode=0o644)
    files: dict[str, Path | bytes] = {"vmlinuz": guest.kernel, "initramfs": _initramfs(guest, image, process)}
    grub.make_boot_partition(files, scratch, whole, offset_bytes=boot_at)
    (scratch / "overlay").mkdir()
    size = make_ext4(
        store, image, scratch / "overlay", whole, offset_bytes=root_at, free_bytes=free_bytes, writable=True
    )
    table = grub.partition_entry(boot_at, grub.BOOT_BYTES, active=True) + grub.partition_entry(root_at, size)
    with whole.open("rb+") as disk:
        disk.truncate(root_at + -(-size // grub.ALIGNMENT_BYTES) * grub.ALIGNMENT_BYTES)
        disk.write(grub.boot_record(core, table))


def _initramfs(guest: Guest, image: Image, process: Process) -> bytes:
    parts = guest.kernel.parent
    modules = (*TRANSPORT_MODULES[MachineType.Q35], *NETWORK_MODULES)
    settings = {
        "NAME": image.name,
        "HOSTNAME": hostname(image),
        "MODULES": " ".join(modules),
        "POWER_BUTTON_MODULES": " ".join(POWER_BUTTON_MODULES),
        "STOP_SIGNAL": str(int(stop_signal_of(image))),
        "GRACE_SECONDS": str(GRACE_SECONDS),
    }
    entries = [
        cpio.file("init", SCRIPT.read_bytes(), 0o755),
        cpio.file("lab/leased", LEASED.read_bytes(), 0o755),
        cpio.file(PRESSED, BUTTON.read_bytes(), 0o755),
        cpio.file("bin/busybox", (parts / "busybox").read_bytes(), 0o755),
        cpio.file("lab/inside", program().read_bytes(), 0o755),
        cpio.file("lab/settings", _assignments(settings).encode()),
        cpio.file("lab/application", application(process).encode()),
        *(
            cpio.file(f"lab/modules/{name}.ko", (parts / "modules" / f"{name}.ko").read_bytes())
            for name in (*modules, *POWER_BUTTON_MODULES)
        ),
    ]
    return cpio.archive(
        [cpio.directory(name) for name in ("proc", "sys", "dev", "root")] + cpio.with_parents(entries)
    )


def application(process: Process) -> str:
    """The shell's words that become the image's command: its environment, user and directory, nothing else."""
    user = ":".join(map(str, (process.uid, process.gid, *process.additional_gids)))
    environment = [f"{name}={value}" for name, value in process.environment.items()]
    words = [
        "env", "-i", "TERM=linux", *environment, "chroot", "/root", "/.lab/inside", "init", "--user", user,
        "--directory", process.working_directory, "--", *process.argv,
    ]  # fmt: skip
    return f"exec {shlex.join(words)}\n"


def hostname(image: Image) -> str:
    """The image's name as hostname(7) allows it."""
    last = image.name.rpartition("/")[2].partition(":")[0].partition("@")[0]
    return "".join(letter if letter.isalnum() else "-" for letter in last).strip("-")[:63] or "lab"


def _assignments(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def boot_command(image: Image, disk: Path, form: str, accelerator: Accelerator) -> list[str]:
    """What to type on this host. Pure."""
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{_host_port(port)}-:{port}" for port in image.config.exposed_ports)
    return [
        "qemu-system-x86_64", "-accel", str(accelerator), "-m", str(MEMORY_MIB), "-nographic", "-no-reboot",
        "-drive", f"file={disk},format={form},if=virtio", "-nic", f"user,model=virtio-net-pci{forwards}",
    ]  # fmt: skip


def _host_port(port: int) -> int:
    """Ports below 1024 are root's: 80 becomes 8080."""
    return port + 8000 if port < 1024 else port
