"""What this host must offer before any backend is asked: each thing is tried, and nothing is left changed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lab.errors import CommandError
from lab.host.cgroup import delegation
from lab.host.cgroup.hierarchy import Hierarchies
from lab.host.command import SYSTEM_FOLDERS, run
from lab.host.cpulist import listed
from lab.host.home import home
from lab.host.identity import ownspace, privilege
from lab.host.placement import topology
from lab.host.placement.place import place
from lab.host.processor import REMEDY, has_calls, has_machines, machine
from lab.host.survey import criu, restrictions
from lab.host.survey.facts import count_range_list, memory, parse_os_release
from lab.host.survey.virtualisation import Ground, platform
from lab.host.units import format_bytes
from lab.model import Check

GIB = 1024**3
FREE_DISK_BYTES = 4 * GIB  # Debian's root twice, the guest's disk, one scenario's layers and a run's logs
FREE_MEMORY_BYTES = 1 * GIB  # two guests of the default size and the harness
TRY_SECONDS = 20.0
ALL = ("all",)
"""In ``Check.required_by``: no backend works without it."""

OF_ROOT = (
    "isolation breakout", "bench self", "class check", "class kit", "class serve --live", "image disk", "watch",
)  # fmt: skip
"""Commands that refuse an ordinary user: docs/rootless.md."""
OVERLAY_OF_MAPPED_LAYERS = (5, 19)
CONTROLLERS = ("memory", "cpu", "pids")
C_PACKAGES = "apt-get install gcc libc6-dev"

MOUNT_OVERLAY = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/merged
mount -t overlay overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/merged
touch /mnt/merged/.lab-doctor
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program lab runs; ``package`` is Debian's and Ubuntu's name of what ships it.

    Without those that no backend requires something else is missing, which ``costs`` names.
    """

    program: str
    package: str
    required_by: tuple[str, ...] = ()
    costs: str = ""

    @property
    def is_of_machines(self) -> bool:
        """Whether nothing but backends with a kernel of their own has a use for it."""
        return bool(self.required_by) and not self.costs


VIRTUAL = ("microvm", "vm")
TOOLS = (
    Tool(program="qemu-system-x86_64", package="qemu-system-x86", required_by=VIRTUAL),
    Tool(program="qemu-img", package="qemu-utils", required_by=VIRTUAL),
    Tool(program="mke2fs", package="e2fsprogs", required_by=(*VIRTUAL, "uml", "krun")),
    Tool(
        program="mmdebstrap",
        package="mmdebstrap",
        required_by=("vm",),
        costs="lab build on Debian without a registry",
    ),
    Tool(program="mkfs.erofs", package="erofs-utils", costs="--knob disk=erofs"),
    Tool(program="mcopy", package="mtools", costs="--knob firmware=ovmf"),
    Tool(program="skopeo", package="skopeo", costs="images from and to registries"),
    Tool(program="dnsmasq", package="dnsmasq-base", costs="vm:DISK, your own disk"),
    Tool(program="wrk", package="wrk", costs="the metrics load and openloop"),
    Tool(program="git", package="git", costs="the revision that a run records"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A file that ``package`` ships and lab uses to boot machines; without it ``costs`` is not to be had."""

    name: str
    path: Path
    package: str
    costs: str


GRUB = Path("/usr/lib/grub")  # a folder per platform
OVMF = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
RESOURCES = (
    Resource(name="GRUB for BIOS", path=GRUB / "i386-pc", package="grub-pc-bin", costs="lab image disk"),
    Resource(
        name="GRUB for UEFI", path=GRUB / "x86_64-efi", package="grub-efi-amd64-bin", costs="--knob firmware=ovmf"
    ),
    Resource(name="UEFI firmware", path=OVMF, package="ovmf", costs="--knob firmware=ovmf"),
)


def host_checks() -> list[Check]:
    """Every check of this module, in the order in which a reader would look for a cause."""
    checks: list[Callable[[], Check]] = [
        privilege.check,
        processor,
        placement,
        ground,
        cgroup,
        owner_of_cgroups,
        namespaces,
        overlay,
        disk,
        ram,
        compiler,
    ]
    if privilege.is_rootless():
        checks += [subordinate_ids, limits, roots_alone]
    tools = [tool(each) for each in TOOLS if has_machines() or not each.is_of_machines]
    found = [check() for check in checks] + tools + [resource(each) for each in RESOURCES if has_machines()]
    return [*found, criu.check(), *restrictions.restriction_checks()]


def processor() -> Check:
    """What lab has tables of system calls for; of what virtual machines ask: `lab.host.processor.check_machines`."""
    cores = count_range_list(Path("/sys/devices/system/cpu/online").read_text())
    system = parse_os_release(Path("/etc/os-release").read_text()) if Path("/etc/os-release").exists() else "Linux"
    return Check(
        name="host",
        ok=has_calls(),
        found=f"{system}, Linux {os.uname().release}, {machine()}, {cores} cores",
        remedy=f"{REMEDY}, or an arm64 one for process and container",
        required_by=ALL,
    )


def placement() -> Check:
    """Where lab, its client and instances of one CPU go while they are measured: nothing needs them apart."""
    decided = place(topology.read())
    lab, client, instances = map(listed, (decided.lab, decided.client, decided.instances))
    apart = f"lab on CPU {lab}, its client on {client}, instances on {instances}"
    return Check(name="placement", ok=True, found=apart if decided else f"shared CPUs: {decided.reason}")


def ground() -> Check:
    """What the host's kernel runs on, and what that does to figures."""
    found = platform()
    return Check(
        name="platform",
        ok=found.ground is not Ground.EMULATED,
        found=f"{found.title}: {found.effect}",
        remedy="for times, measure on hardware or in a virtual machine under KVM; sizes and answers are right",
    )


def cgroup(hierarchies: Hierarchies | None = None) -> Check:
    """The controllers that lab limits and accounts with, and the right to make groups under them."""
    found = hierarchies or Hierarchies.detect()
    if privilege.is_rootless():
        return _delegated(found)
    places = {name: found.mount_of(name) for name in CONTROLLERS}
    absent = [name for name, place in places.items() if place is None]
    sealed = sorted({str(place) for place in places.values() if place and not os.access(place, os.W_OK)})
    may_write = privilege.granted(privilege.Need.CONTAIN)
    said = f"{found.mode}: {', '.join(name for name in CONTROLLERS if name not in absent) or 'no controller'}"
    if absent:
        remedy = f"enable the controllers {', '.join(absent)}: cgroup_enable=… on the kernel's command line"
        if found.mode == "none":
            remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        return Check(
            name="cgroups", ok=False, found=f"{said}; no {', '.join(absent)}", remedy=remedy, required_by=ALL
        )
    return Check(
        name="cgroups",
        ok=not sealed,
        found=said + (f"; can't write below {', '.join(sealed)}" if sealed else ""),
        remedy=f"mount -o remount,rw {sealed[0] if sealed else ''}" if may_write else privilege.remedy(),
        required_by=ALL,
    )


def _delegated(found: Hierarchies) -> Check:
    """An ordinary user's instances run without a group as well: see `limits`."""
    given = [name for name in CONTROLLERS if found.mount_of(name)]
    return Check(name="cgroups", ok=True, found=f"yours: {', '.join(given) or 'none'}", required_by=ALL)


def limits() -> Check:
    """What an ordinary user has been given a group for; without, an instance takes what it wants."""
    found = Hierarchies.detect()
    lacking = [name for name in CONTROLLERS if found.mount_of(name) is None]
    return Check(
        name="limits",
        ok=not lacking,
        found="of memory, processors and processes can be set"
        if not lacking
        else f"none by {', '.join(lacking)}: "
        "instances run without, nothing is accounted for, and --memory, --cpus and --pids are errors",
        remedy="log in where systemd runs, with dbus-user-session installed; else have an administrator give you a "
        "control group of your own: docs/rootless.md",
        costs="--memory, --cpus, --pids, limits of scenarios, lab noisy, accounts by the kernel",
    )


def subordinate_ids() -> Check:
    """Whether an image's files can have owners, and its applications other users than root."""
    count = sum(size for _, _, size in ownspace.table())
    return Check(
        name="subordinate ids",
        ok=ownspace.has_ids(),
        found=f"{count} users and groups in your namespace"
        if ownspace.has_ids()
        else "none: an image's files all become yours",
        remedy=privilege.GIVE_IDS,
        costs="lab build, applications of another user than root",
    )


def hosts_root() -> Check:
    """What root of a namespace is not."""
    return Check(
        name="root of the host", ok=False, found="not yours, and not needed by process, container, microvm, vm",
        remedy=privilege.AS_ROOT.format("doctor"),
    )  # fmt: skip


def roots_alone() -> Check:
    """What an ordinary user's lab does without, or answers otherwise than root's, on every host."""
    return Check(
        name="root's alone",
        ok=False,
        found="the kernel's functions are not traced for you, and a question of lab isolation about what you may not "
        "do on the host yourself can't be told",
        remedy=privilege.AS_ROOT.format("isolation"),
        costs="functions and counted calls in lab isolation surface, answers of lab isolation about what you may not "
        f"do yourself, {', '.join(f'lab {command}' for command in OF_ROOT)}",
    )


def owner_of_cgroups(root: str = "/", hierarchies: Hierarchies | None = None) -> Check:
    """Who else writes to the tree of control groups, and whether it can be asked for a part of it."""
    if privilege.is_rootless():
        own = "your own systemd, which delegates a scope to each session of lab's"
        asked = own if delegation.here() else "asked for nothing: limits tells what you were given"
        return Check(name="owner of cgroups", ok=True, found=asked)
    booted = delegation.is_booted(root)
    delegates = delegation.delegates(root, (hierarchies or Hierarchies.detect()).mounted())
    if delegates:
        found = "systemd, which delegates a scope to each session of lab's"
    elif not booted:
        found = "nobody: lab's lie below lab"
    else:
        found = "systemd, unasked: lab's lie below lab, and detached instances end with the unit that started them"
    return Check(
        name="owner of cgroups",
        ok=delegates or not booted,
        found=found,
        remedy="apt-get install dbus && systemctl start dbus.socket, or boot with cgroup v2 alone",
    )


def namespaces() -> Check:
    """All the kinds that lab's containers use, made at once (unshare(1))."""
    kinds = ("mount", "pid", "net", "uts", "ipc", "cgroup")
    return tried("namespaces", ["unshare", "--fork", *(f"--{kind}" for kind in kinds), "true"], ", ".join(kinds))


def user_namespaces() -> Check:
    """Whether one can be made, and an image mounted in it: overlayfs takes id-mapped layers since Linux 5.19. An
    ordinary user's layers are not mapped.
    """
    release = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
    if release < OVERLAY_OF_MAPPED_LAYERS and not privilege.is_rootless():
        said = f"Linux {os.uname().release}: overlayfs takes no id-mapped layers"
        return Check(name="user namespaces", ok=False, found=said, remedy="boot a kernel from 5.19 on")
    found = "can be made" if privilege.is_rootless() else "can be made, over id-mapped layers"
    check = tried("user namespaces", ["unshare", "--user", "true"], found)
    setting = restrictions.unprivileged()
    return check if check.ok or setting.ok else replace(check, remedy=setting.remedy)


def overlay() -> Check:
    """An overlay whose lower directory is where images are kept, mounted in a private namespace."""
    lower = nearest(home())
    found = f"writable over {lower} ({home()})" if lower != home() else f"writable over {lower}"
    return tried("overlay", ["unshare", "--mount", "sh", "-ec", MOUNT_OVERLAY, "-", str(lower)], found)


def tried(name: str, argv: list[str], found: str) -> Check:
    """A check that passes when a command does."""
    try:
        run(argv, timeout_seconds=TRY_SECONDS)
    except CommandError as error:
        said = error.detail.splitlines()[-1] if error.detail else error.message
        return Check(name=name, ok=False, found=said, remedy=privilege.remedy(), required_by=ALL)
    return Check(name=name, ok=True, found=found, required_by=ALL)


def disk() -> Check:
    """Space for images and guests where LAB_HOME is or will be."""
    free = shutil.disk_usage(nearest(home())).free
    return Check(
        name="disk space",
        ok=free >= FREE_DISK_BYTES,
        found=f"{format_bytes(free)} free for {home()}",
        remedy=f"free {format_bytes(FREE_DISK_BYTES)}, or set LAB_HOME to a folder on a larger disk",
        required_by=ALL,
    )


def ram() -> Check:
    """Memory for a guest beside the harness; swap and KSM are named because they change what memory figures mean."""
    found = memory()
    available = int(found["available_bytes"] or 0)
    swap = f"{format_bytes(found['swap_total_bytes'])} swap" if found["swap_total_bytes"] else "no swap"
    return Check(
        name="memory",
        ok=available >= FREE_MEMORY_BYTES,
        found=f"{format_bytes(available)} available, {swap}, KSM {found['ksm'] or 'absent'}",
        remedy=f"stop something: a comparison needs {format_bytes(FREE_MEMORY_BYTES)}",
        required_by=ALL,
    )


def compiler() -> Check:
    """A C compiler with a static C library: lab compiles its helper program once per home."""
    with tempfile.TemporaryDirectory(prefix="lab-doctor-") as scratch:
        source, program = Path(scratch, "main.c"), Path(scratch, "main")
        source.write_text('#include <stdio.h>\nint main(void) { return puts("") < 0; }\n')
        try:
            run(["gcc", "-static", "-o", program, source], timeout_seconds=TRY_SECONDS)
        except CommandError as error:
            said = error.detail.splitlines()[-1] if error.detail else error.message
            return Check(name="gcc", ok=False, found=said, remedy=C_PACKAGES, required_by=ALL)
    return Check(name="gcc", ok=True, found="links statically", required_by=ALL)


def tool(wanted: Tool, search: Mapping[str, str] | None = None) -> Check:
    """One external program; ``search`` replaces the environment's PATH."""
    path = shutil.which(wanted.program, path=f"{(search or os.environ).get('PATH', '')}:{SYSTEM_FOLDERS}")
    return Check(
        name=wanted.program,
        ok=path is not None,
        found=path or "not installed",
        remedy=f"apt-get install {wanted.package}",
        required_by=wanted.required_by,
        costs=wanted.costs,
    )


def resource(wanted: Resource) -> Check:
    """A file or folder of the host's."""
    there = wanted.path.exists()
    return Check(
        name=wanted.name,
        ok=there,
        found=str(wanted.path) if there else "not installed",
        remedy=f"apt-get install {wanted.package}",
        costs=wanted.costs,
    )


def nearest(path: Path) -> Path:
    """``path``, or the closest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
