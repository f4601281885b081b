"""From a configuration's mounts, devices and paths to the operations that the container carries out. Pure."""

from __future__ import annotations

import os
import stat

from lab.host import syscalls
from lab.host.identity import ownspace
from lab.runtime.config import mountoptions, schema, validate
from lab.runtime.planning import lsm
from lab.runtime.rootfs.mounts import (
    Bind,
    CgroupView,
    DefaultDevices,
    DeviceNode,
    FileSystem,
    MakeReadOnly,
    Mask,
    Operation,
    Remount,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lab.runtime.config.model import Config, Device, IdMapping, MountConfig
    from lab.runtime.config.mountoptions import Options

NODE_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
DEVICE_MODE = 0o666
SEALED = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NOEXEC | syscalls.MS_NODEV
NO_GROUPS = "mode=755,size=0k"
"""What an ordinary user's container shows of control groups without one of its own: it would see the user's."""
SHOWS = {"sysfs": "network", "mqueue": "ipc"}  # file systems, and the namespace that each shows
ELSEWHERE = ("/dev/ptmx",)  # comes with the default devices, as a link to the container's own


def operations(
    config: Config,
    cgroup_controllers: tuple[str, ...],
    *,
    bundle: str = "",
    cgroup_directories: Mapping[str, str] | None = None,
    grouped: bool = True,
) -> list[Operation]:
    """The mounts, in order; a tmpfs on /dev gets the default nodes right after it, linux.devices come last.

    Relative sources are below ``bundle``. ``cgroup_directories`` are the container's groups by controller, or the
    one of v2 by "": what a container without a cgroup namespace is shown. Controllers with the same directory are
    mounted together. An ordinary user's without a group of its own, not ``grouped``, is shown none: it would see the
    user's. Raises UsageError for what can't be meant.
    """
    found: list[Operation] = []
    kinds = {space.type for space in config.linux.namespaces}
    bound = "user" in kinds or ownspace.here()
    for number, mount in enumerate(config.mounts):
        path = f"mounts[{number}]"
        if mount.type in ("cgroup", "cgroup2") and ownspace.here() and not grouped:
            found.append(_no_groups(mount))
        elif mount.type in ("cgroup", "cgroup2"):
            if "cgroup" not in kinds and not cgroup_directories:
                raise schema.error(path, "shows the host's cgroups to a container without a cgroup namespace")
            groups = cgroup_directories or {}
            found.append(_cgroup_view(mount, cgroup_controllers, groups, bind="cgroup" not in kinds))
        else:
            found.append(_operation(config, mount, path, bundle))
        if _destination(mount) == "/dev" and mount.type == "tmpfs":
            found.append(DefaultDevices(target="/dev", bind=bound))
    covered = any(_destination(mount) == "/dev" for mount in config.mounts)
    if bundle and not covered and validate.own_mounts(config.linux):
        found.append(DefaultDevices(target="/dev", bind=bound))  # in the root's own, as in runc
    nodes = [_node(device, bind=bound) for device in config.linux.devices]
    return found + [node for node in nodes if node.target not in ELSEWHERE]


def masks(config: Config) -> list[Operation]:
    """What is hidden and what is made read-only below /proc and /sys."""
    hidden: list[Operation] = [Mask(target=path) for path in config.linux.masked_paths]
    return hidden + [MakeReadOnly(target=path) for path in config.linux.readonly_paths]


def id_map(mappings: tuple[IdMapping, ...]) -> str:
    """Lines of proc(5) uid_map."""
    return "\n".join(f"{each.container_id} {each.host_id} {each.size}" for each in mappings)


def _destination(mount: MountConfig) -> str:
    """Relative ones are deprecated, and begin at / (config.md, "Mounts")."""
    return f"/{mount.destination.strip('/')}"


def _operation(config: Config, mount: MountConfig, path: str, bundle: str) -> Operation:
    options, target = mountoptions.parse(mount.options), _destination(mount)
    flags = options.flags
    if flags & syscalls.MS_REMOUNT:
        return Remount(target=target, flags=flags, data=",".join(options.data))
    if flags & syscalls.MS_BIND or mount.type == "bind":
        return _bind(config, mount, options, path, bundle)
    if options.idmap or mount.uid_mappings or mount.gid_mappings:
        raise schema.error(path, "maps ids, which lab does for bind mounts only")
    if options.copy_up and mount.type != "tmpfs":
        raise schema.error(f"{path}.options", "has tmpcopyup, which is for a tmpfs")
    label = lsm.mount_label(config, mount.type)
    return FileSystem(
        target=target,
        kind=mount.type,
        source=mount.source or mount.type,
        flags=flags,
        data=",".join([*options.data, *([label] if label else [])]),
        recursive=options.recursive,
        propagation=options.propagation,
        copy_up=options.copy_up,
        **_made_by_parent(config, mount.type),
    )


def _made_by_parent(config: Config, kind: str) -> dict[str, Any]:
    """A file system that shows a namespace can be mounted by whoever has power over that: by root of a new user
    namespace only if the other one is new as well (sysfs(5), mq_overview(7)).
    """
    given = {space.type: space.path for space in config.linux.namespaces}
    shown = SHOWS.get(kind, "")
    if not shown or "user" not in given or given.get(shown) == "":
        return {}
    return {"tree": True, "within": given.get(shown, "")}


def _bind(config: Config, mount: MountConfig, options: Options, path: str, bundle: str) -> Bind:
    if options.copy_up:
        raise schema.error(f"{path}.options", "has tmpcopyup, which is for a tmpfs")
    if not mount.source:
        raise schema.error(f"{path}.source", "is missing: what to bind")
    whole = bool(options.flags & syscalls.MS_REC)
    idmap = options.idmap or (("ridmap" if whole else "idmap") if mount.uid_mappings else "")
    if bool(mount.uid_mappings) != bool(mount.gid_mappings):
        raise schema.error(path, "has one of uidMappings and gidMappings without the other")
    if idmap and not (mount.uid_mappings or config.linux.uid_mappings):
        raise schema.error(path, "maps ids, but says not how: uidMappings and gidMappings are missing")
    return Bind(
        target=_destination(mount),
        source=os.path.join(bundle, mount.source),
        whole=whole,
        attributes=options.attributes,
        recursive=options.recursive,
        propagation=options.propagation,
        tree=bool(idmap) or any(space.type == "user" for space in config.linux.namespaces),
        idmap=idmap,
        uid_map=id_map(mount.uid_mappings),
        gid_map=id_map(mount.gid_mappings),
    )


def _no_groups(mount: MountConfig) -> FileSystem:
    return FileSystem(target=_destination(mount), kind="tmpfs", source="tmpfs", flags=SEALED, data=NO_GROUPS)


def _cgroup_view(
    mount: MountConfig, controllers: tuple[str, ...], groups: Mapping[str, str], *, bind: bool
) -> CgroupView:
    options = mountoptions.parse(mount.options)
    together: dict[str, list[str]] = {}  # by directory
    for name in controllers:
        together.setdefault(groups.get(name, name), []).append(name)
    directories = tuple(together) if controllers else (groups.get("", ""),)
    return CgroupView(
        target=_destination(mount),
        controllers=tuple([",".join(names) for names in together.values()]),
        flags=options.flags,
        sources=directories if bind else (),
        propagation=options.propagation,
    )


def _node(device: Device, *, bind: bool) -> DeviceNode:
    has_numbers = device.type != "p"
    return DeviceNode(
        target="/" + "/".join([name for name in device.path.split("/") if name]),
        kind=NODE_KINDS[device.type],
        major=device.major or 0 if has_numbers else 0,
        minor=device.minor or 0 if has_numbers else 0,
        mode=DEVICE_MODE if device.file_mode is None else stat.S_IMODE(device.file_mode),
        uid=device.uid,
        gid=device.gid,
        bind=bind and has_numbers,
    )
