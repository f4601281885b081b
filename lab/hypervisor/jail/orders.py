"""What the jail of one QEMU holds: the orders that jail.c obeys, a line each.

Nothing of the host is in there but what is named here: QEMU with its libraries and firmware; this machine's kernel
and disks, read-only but for its own layers; the folder of its sockets; the devices that it opens by name. The tap
and the monitor's socket are open before, by libvirt.

Firecracker's jailer is the example (its docs/jailer.md). docs/security.md compares the two point by point.
"""

from __future__ import annotations

import glob
import os
import resource
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.errors import LabError
from lab.host.identity import ownspace, privilege
from lab.host.identity.lone import users_inside
from lab.hypervisor.domains.domain import CONSOLE, ORDERS, Disk, MachineSpec, Port
from lab.hypervisor.emulator import MEMORY
from lab.model import Accelerator

ROOT, FILTER = "root", "filter"  # beside the orders: where the new root is put together; a program for seccomp(2)

DEVICES = (Path("/dev/null"), Path("/dev/urandom"))
KVM = Path("/dev/kvm")
LIBRARIES = ("lib", "lib64", "lib32", "libx32")  # outside /usr these are links, on any distribution of today
DATA_FOLDERS = ("qemu", "seabios", "OVMF", "ovmf", "edk2", "qemu-efi-x86_64")
LINKER_CACHE = Path("/etc/ld.so.cache")

QCOW2_MAGIC, QCOW2_SIZE = b"QFI\xfb", struct.Struct(">Q")  # at offset 24: docs/interop/qcow2.txt of QEMU
QCOW2_SIZE_OFFSET = 24
OPEN_FILES = 2048  # an event descriptor a queue of each disk, of which each vCPU has one; as many as the jailer
THREADS = 512  # of this user, which is this QEMU's alone: one a vCPU, at most 64 that wait for disks
SPARE_BYTES = 256 << 20  # in the largest file: qcow2's own tables, a saved machine's devices, QEMU's log


def orders(spec: MachineSpec, qemu: Path, driver: Path) -> str:
    """The orders for ``spec``; ``driver`` is the root of the libvirt that starts it, ``qemu`` what it starts.

    Looks at the host's folders, devices and at the disks, which exist by now. Raises LabError for a path that no
    line can hold.
    """
    jail = (spec.sockets / ORDERS).parent
    lines = [
        *(f"join {directory / 'cgroup.procs'}" for directory in spec.cgroups),
        *([f"stdin {spec.incoming}"] if spec.incoming else []),
        *_users(is_kvm=spec.accelerator is Accelerator.KVM),
        *_limits(_largest_file(spec)),
        f"filter {jail / FILTER}",
        f"root {jail / ROOT}",
        *_system(qemu),
        *([f"memory {MEMORY} {spec.memory.path}"] if spec.memory else []),
        *_machine(spec),
        *_of_libvirt(spec, driver),
        *_nodes((*DEVICES, *([KVM] if spec.accelerator is Accelerator.KVM else []))),
    ]
    if any("\n" in line for line in lines):
        raise LabError(f"a path of {spec.name} holds a line break", hint="set LAB_HOME to one without")
    return "\n".join(lines) + "\n"


def lone_orders(
    folder: Path, qemu: Path, *, seccomp: bytes, reads: Sequence[Path], socket: Path, devices: Sequence[Path]
) -> Path:
    """Write the orders for a QEMU that no libvirt starts and that ends with this process, its parent: one without
    disks, with one ``socket`` in ``folder``. ``folder`` is root's, and made ready.
    """
    for path in reads:
        _let_read(path, foreign=False)
    jail = folder / ORDERS.parent
    jail.mkdir(mode=0o700)
    (jail / ROOT).mkdir()
    (jail / FILTER).write_bytes(seccomp)
    folder.chmod(0o711)  # QEMU's user goes through
    lines = [
        f"parent {os.getpid()}",
        *_users(is_kvm=KVM in devices),
        *_limits(SPARE_BYTES),
        f"filter {jail / FILTER}",
        f"root {jail / ROOT}",
        *_system(qemu),
        f"read {folder}",
        f"socket {socket}",
        *(f"read {path}" for path in reads),
        *_nodes((*DEVICES, *devices)),
    ]
    path = folder / ORDERS
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_orders(spec: MachineSpec, qemu: Path, driver: Path, seccomp: bytes) -> None:
    """Put them into a folder in the machine's, for root alone, and make what they refer to ready.

    ``seccomp`` is the program that decides about QEMU's system calls, an array of struct sock_filter.
    """
    for path in _read_only(spec):
        _let_read(path, foreign=spec.foreign is not None)
    path = spec.sockets / ORDERS
    path.parent.mkdir(mode=0o700)
    (path.parent / ROOT).mkdir()
    (path.parent / FILTER).write_bytes(seccomp)
    path.touch(mode=0o600)
    path.write_text(orders(spec, qemu, driver))


def _system(qemu: Path) -> Iterator[str]:
    """QEMU, its libraries and modules, its firmware."""
    prefixes = dict.fromkeys((qemu.parent.parent, Path("/usr")))
    for prefix in prefixes:
        yield from (f"program {prefix / name}" for name in LIBRARIES if (prefix / name).is_dir())
        yield from (f"read {prefix / 'share' / name}" for name in DATA_FOLDERS if (prefix / "share" / name).is_dir())
    yield f"program {qemu}"
    for name in LIBRARIES:
        path = Path("/", name)
        if path.is_symlink():
            yield f"link {path} {path.readlink()}"
        elif path.is_dir():
            yield f"program {path}"
    if LINKER_CACHE.exists():
        yield f"read {LINKER_CACHE}"


def _machine(spec: MachineSpec) -> Iterator[str]:
    yield f"read {spec.sockets}"
    yield from (f"socket {spec.sockets / name}" for name in _sockets(spec))
    known = {path: numbers for disk in spec.disks for path, *numbers in disk.known}
    for path in _read_only(spec):
        yield "same {} {} {}".format(*known[path], path) if path in known else f"read {path}"
    yield from (f"write {disk.path}" for disk in spec.disks if disk.below)


def _sockets(spec: MachineSpec) -> tuple[str, ...]:
    """Those that lab listens at."""
    return (CONSOLE,) if spec.foreign else (CONSOLE, *(port.name.lower() for port in Port))


def _read_only(spec: MachineSpec) -> list[Path]:
    direct = [spec.direct.kernel, spec.direct.initramfs] if spec.direct else []
    firmware = [spec.uefi] if spec.uefi else []
    return [*direct, *firmware, *(path for disk in spec.disks for path in _below(disk))]


def _below(disk: Disk) -> list[Path]:
    """The files of a disk that nobody writes to."""
    return [*(path for path, _ in disk.below), *disk.data] if disk.below else [disk.path]


def _of_libvirt(spec: MachineSpec, driver: Path) -> Iterator[str]:
    """The key that QEMU reads when it starts; UEFI's variables, for which a libvirt before 8.6 makes a file."""
    name, folder = glob.escape(spec.name), glob.escape(str(driver / "lib" / "qemu"))
    yield f"secret {folder}/domain-*-{name}/master-key.aes"
    if spec.uefi:
        yield f"variables {folder}/nvram/{name}_VARS*"


def _users(*, is_kvm: bool) -> Iterator[str]:
    """What a QEMU may be that an ordinary user starts. Its groups can be left or kept, all of them."""
    if ownspace.here():
        yield "users {} {}".format(*users_inside())
        yield from ["groups kept"] if is_kvm else []


def _nodes(devices: Sequence[Path]) -> Iterator[str]:
    for path in devices:
        if ownspace.here():
            yield f"node {path}"
            continue
        number = path.stat().st_rdev
        yield f"device {os.major(number)} {os.minor(number)} {path}"


def _limits(largest_file_bytes: int) -> Iterator[str]:
    yield f"limit {resource.RLIMIT_FSIZE} {largest_file_bytes}"
    yield f"limit {resource.RLIMIT_NOFILE} {OPEN_FILES}"
    yield f"limit {resource.RLIMIT_NPROC} {THREADS}"
    yield f"limit {resource.RLIMIT_CORE} 0"


def _largest_file(spec: MachineSpec) -> int:
    """In bytes."""
    largest = max([spec.memory_bytes, *(_size_bytes(disk.path) for disk in spec.disks if disk.below)])
    return largest + largest // 64 + SPARE_BYTES


def _size_bytes(layer: Path) -> int:
    """What the guest can write to a qcow2 layer at most."""
    with layer.open("rb") as file:
        head = file.read(QCOW2_SIZE_OFFSET + QCOW2_SIZE.size)
    return int(QCOW2_SIZE.unpack_from(head, QCOW2_SIZE_OFFSET)[0]) if head.startswith(QCOW2_MAGIC) else 0


def _let_read(path: Path, *, foreign: bool) -> None:
    """QEMU's user is nobody that the file knows. Who may get at it on the host is up to the folders above.

    What is somebody else's is left as it is.
    """
    status = path.stat()
    if status.st_mode & stat.S_IROTH:
        return
    if foreign:
        raise LabError(
            f"{path.name} can't be read by QEMU, which runs as a user of its own", hint=f"chmod o+r {path}"
        )
    closed = any(not folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
    if status.st_uid != privilege.user_id() or not closed:  # somebody else's, or somebody else would be let in
        raise LabError(f"{path} can't be read by QEMU, which runs as a user of its own", hint=f"chmod o+r {path}")
    path.chmod(stat.S_IMODE(status.st_mode) | stat.S_IROTH)
