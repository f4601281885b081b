"""The rungs of the ladder: each is the configuration before it with one mechanism more.

The first is `lab.runtime.bundle.process_config`, a process under chroot(2). Every change takes one property from
`container_config`, what Docker would run; so the rung on which the last of those has been taken, the user namespace
left out, is what `lab run` runs. Beyond Docker's defaults stand the user namespace and Landlock, then kernels of
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import UsageError
from lab.instance import LaunchRequest
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Config, MountConfig, Namespace, to_json

Change = Callable[[Config, Config], Config]
"""From the configuration so far, and the one that has everything, to the next."""

READ_ONLY = (
    "bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sbin", "sys", "usr", ".lab",
)  # fmt: skip
"""Names in / below which Landlock refuses every change: programs, their settings, and the kernel's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One step up. ``backend`` names what it runs on: lab's runtime with ``change``, or a whole backend that brings a
    kernel of its own. ``asked``: it is climbed only where it is named.
    """

    name: str
    title: str  # what a column is called
    adds: str  # in plain words, a sentence
    manual: str  # where it is explained
    backend: str = "container"
    change: Change = lambda config, _: config
    read_only: tuple[str, ...] = ()  # names in / for `lab.runtime.process.landlock`
    own_kernel: bool = False
    asked: bool = False


def _namespaces(*kinds: str) -> Change:
    def change(config: Config, _: Config) -> Config:
        kept = tuple(space for space in config.linux.namespaces if space.type not in kinds)
        added = tuple(Namespace(type=kind) for kind in kinds)
        return replace(config, linux=replace(config.linux, namespaces=(*kept, *added)))

    return change


def _mounts(config: Config, whole: Config) -> Config:
    """pivot_root instead of chroot (`stay_in_chroot`), and in place of the host's /proc, /dev and /sys new ones."""
    others = tuple(mount for mount in config.mounts if mount.destination not in ("/proc", "/dev", "/sys"))
    own = tuple(mount for mount in bundle.DEFAULT_MOUNTS if mount.type not in ("cgroup", "mqueue"))
    return replace(config, mounts=(*own, *others))


def _with_mount(config: Config, kind: str) -> Config:
    added = tuple(mount for mount in bundle.DEFAULT_MOUNTS if mount.type == kind)
    return replace(config, mounts=(*config.mounts, *added))


def _ipc_and_uts(config: Config, whole: Config) -> Config:
    named = replace(_namespaces("ipc", "uts")(config, whole), hostname=whole.hostname)
    return _with_mount(named, "mqueue")


def _user(config: Config, whole: Config) -> Config:
    spaced = _namespaces("user")(config, whole)
    users, groups = bundle.own_ids()
    return replace(spaced, linux=replace(spaced.linux, uid_mappings=users, gid_mappings=groups))


def _cgroup(config: Config, whole: Config) -> Config:
    return _with_mount(_namespaces("cgroup")(config, whole), "cgroup")


def _limits(config: Config, whole: Config) -> Config:
    return replace(config, linux=replace(config.linux, resources=whole.linux.resources))


def _capabilities(config: Config, whole: Config) -> Config:
    return replace(config, process=replace(config.process, capabilities=whole.process.capabilities))


def _seccomp(config: Config, whole: Config) -> Config:
    return replace(config, linux=replace(config.linux, seccomp=whole.linux.seccomp))


def _masks(config: Config, whole: Config) -> Config:
    linux = replace(config.linux, masked_paths=whole.linux.masked_paths, readonly_paths=whole.linux.readonly_paths)
    return replace(config, linux=linux)


def _no_new_privileges(config: Config, whole: Config) -> Config:
    return replace(config, process=replace(config.process, no_new_privileges=True))


RUNGS = (
    Rung(
        name="chroot", title="chroot", backend="process", manual="chroot(2)",
        adds="The image's files in place of the host's; everything else is the host's, root can climb out again.",
    ),
    Rung(
        name="mounts", title="+ mount namespace", manual="mount_namespaces(7), pivot_root(2)", change=_mounts,
        adds="The host's mounts are gone for good, and /proc, /dev and /sys are mounted anew: a handful of devices, "
        "/sys read-only.",
    ),
    Rung(
        name="pid", title="+ pid namespace", manual="pid_namespaces(7)", change=_namespaces("pid"),
        adds="It sees and signals its own processes alone, and its first one is number 1.",
    ),
    Rung(
        name="net", title="+ network namespace", manual="network_namespaces(7), veth(4)",
        change=_namespaces("network"),
        adds="Interfaces, addresses, ports and firewall of its own, joined to the host by a pair of virtual cables.",
    ),
    Rung(
        name="ipc-uts", title="+ ipc, uts namespaces", manual="ipc_namespaces(7), uts_namespaces(7)",
        change=_ipc_and_uts,
        adds="Shared memory and message queues of its own, and a host name of its own.",
    ),
    Rung(
        name="user", title="+ user namespace", manual="user_namespaces(7)", change=_user,
        adds="Its root is an ordinary user of the host: capabilities count only for what belongs to its namespaces.",
    ),
    Rung(
        name="cgroup", title="+ cgroup namespace", manual="cgroup_namespaces(7)", change=_cgroup,
        adds="It no longer sees where in the host's control groups it stands.",
    ),
    Rung(
        name="limits", title="+ limits, device rules", manual="cgroups(7)", change=_limits,
        adds="Memory, processor time and processes are bounded; only a list of devices can be opened at all.",
    ),
    Rung(
        name="capabilities", title="− capabilities", manual="capabilities(7)", change=_capabilities,
        adds="Root keeps the fourteen capabilities that Docker leaves it, of forty-one.",
    ),
    Rung(
        name="seccomp", title="+ seccomp filter", manual="seccomp(2)", change=_seccomp,
        adds="A program in the kernel looks at each system call: some hundred are refused, new ones unknown.",
    ),
    Rung(
        name="masks", title="+ masked paths", manual="proc(5), sysfs(5), mount(2)", change=_masks,
        adds="Files of /proc and /sys that tell about or change the whole host are hidden or read-only.",
    ),
    Rung(
        name="no-new-privs", title="+ no_new_privs", manual="PR_SET_NO_NEW_PRIVS(2const)", change=_no_new_privileges,
        adds="No program it executes can have more rights than it has, set-user-id bit or not.",
    ),
    Rung(
        name="landlock", title="+ Landlock", manual="landlock(7)", read_only=READ_ONLY,
        adds="It gives up for good to change programs, settings and kernel files, to mount, to trace others.",
    ),
    Rung(
        name="gvisor", title="gVisor", backend="gvisor", manual="seccomp(2)", own_kernel=True, asked=True,
        adds="A program of the host is its kernel: it answers system calls, and may make only some itself.",
    ),
    Rung(
        name="uml", title="User-mode Linux", backend="uml", manual="ptrace(2)", own_kernel=True, asked=True,
        adds="A Linux of its own that runs as a program of the host, and stops the application at each system call.",
    ),
    Rung(
        name="microvm", title="microVM", backend="microvm", manual="kvm(4)", own_kernel=True,
        adds="Another kernel, its own, on a few virtual devices: what it asks a kernel, it asks that one.",
    ),
    Rung(
        name="krun", title="microVM (libkrun)", backend="krun", manual="kvm(4)", own_kernel=True, asked=True,
        adds="A small machine whose monitor is a library, with the kernel that comes with that library.",
    ),
    Rung(
        name="vm", title="virtual machine", backend="vm", manual="kvm(4)", own_kernel=True,
        adds="Another kernel, its own, on an ordinary virtual PC with a whole Debian around the application.",
    ),
)  # fmt: skip
"""From the control to a whole machine, in the order in which they are climbed."""

USUAL = tuple(rung for rung in RUNGS if not rung.asked)


def choose(words: Sequence[str]) -> tuple[Rung, ...]:
    """The rungs named, in the order named: a step may be left out or taken earlier. `USUAL` for no words.

    chroot comes first, rungs with a kernel of their own last. Raises UsageError.
    """
    known = {rung.name: rung for rung in RUNGS}
    for word in words:
        if word not in known:
            raise UsageError(f"no rung is called {word}", hint=f"rungs: {', '.join(known)}")
    if len(set(words)) != len(words):
        raise UsageError("a rung is named twice", hint=f"rungs: {', '.join(known)}")
    wanted = [known[word] for word in words] or list(USUAL)
    first = [rung for rung in wanted if rung.name == "chroot"] or [RUNGS[0]]
    steps = [rung for rung in wanted if not rung.own_kernel and rung.name != "chroot"]
    return (*first, *steps, *(rung for rung in wanted if rung.own_kernel))


def configuration(
    climbed: Sequence[Rung],
    request: LaunchRequest,
    network: str | Path,
    mounts: Sequence[MountConfig] = (),
) -> Config:
    """The configuration on top of ``climbed``, the first rung first.

    ``network`` is the path of the namespace to live in, or `bundle.HOST`, until a rung makes a new one.
    """
    config = bundle.process_config(request.process, network_namespace=network, extra_mounts=mounts)
    whole = bundle.container_config(request.process, request.limits, hostname=request.name)
    for rung in climbed:
        config = rung.change(config, whole)
    return config


def stay_in_chroot(climbed: Sequence[Rung]) -> bool:
    """Whether the root is still entered by chroot(2): not once the mounts are the container's own."""
    return all(rung.change is not _mounts for rung in climbed)


def differences(before: Config, after: Config) -> tuple[str, ...]:
    """The properties of config.json that a step changed, by their path in the runtime specification."""
    return tuple(_differences("", to_json(before), to_json(after)))


def _differences(path: str, before: object, after: object) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = list(dict.fromkeys((*before, *after)))
        return [
            each
            for name in names
            for each in _differences(f"{path}.{name}" if path else name, before.get(name), after.get(name))
        ]
    return [] if before == after else [path]


def changes(rungs: Sequence[Rung], request: LaunchRequest) -> dict[str, tuple[str, ...]]:
    """What each rung changes in config.json, by name; () for the first, for kernels of its own, and for Landlock."""
    found: dict[str, tuple[str, ...]] = {}
    before: Config | None = None
    for place, rung in enumerate(rungs):
        if rung.own_kernel:
            found[rung.name] = ()
            continue
        after = configuration(rungs[: place + 1], request, bundle.HOST)
        found[rung.name] = () if before is None else differences(before, after)
        before = after
    return found
