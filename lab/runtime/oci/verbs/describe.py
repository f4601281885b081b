"""What nobody waits for: ``spec`` and ``features``. These may import what they like."""

from __future__ import annotations

import os

from lab.errors import LabError
from lab.runtime import versions
from lab.runtime.oci.options import FLAG, VALUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lab.runtime.oci.main import Call

OPTIONS = {"spec": {"bundle b": VALUE, "rootless": FLAG}, "features": {}}
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def spec(call: Call) -> int:
    """``spec``: a config.json that runs a shell in ``rootfs``, in every namespace, with Docker's restrictions.

    ``--rootless``: with a user namespace whose root is the caller and knows nobody else, on the host's network, which
    such a namespace does not own, and with the host's /sys for that reason (sysfs(5)).
    """
    from json import dumps

    from lab.model import Process
    from lab.record import replace
    from lab.runtime import bundle
    from lab.runtime.config.model import to_json

    path = os.path.join(call.given.value("bundle", "."), "config.json")
    make = bundle.rootless_config if call.given.flag("rootless") else bundle.container_config
    config = make(Process(argv=("sh",), environment={"TERM": "xterm"}), hostname="lab-oci")
    terminal = replace(config, oci_version=versions.NEWEST, process=replace(config.process, terminal=True))
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(dumps(to_json(terminal), indent=2) + "\n")
    except FileExistsError:
        raise LabError(f"{path} exists", hint=f"rm {path}") from None
    return 0


def features(call: Call) -> int:
    """``features``: runtime-spec, features.md and features-linux.md. What lab can do, whatever this host can."""
    from lab import __version__

    return call.say_json(
        {
            "ociVersionMin": versions.OLDEST,
            "ociVersionMax": versions.NEWEST,
            "hooks": list(HOOKS),
            "mountOptions": mount_options(),
            "linux": linux(),
            "annotations": {"lab.version": __version__},
            "potentiallyUnsafeConfigAnnotations": [],
        }
    )


def mount_options() -> list[str]:
    from lab.runtime.config import mountoptions as known

    recursive = [f"r{word}" for word in known.PER_MOUNT]
    others = ["defaults", "tmpcopyup", *known.IDMAPS]
    return sorted({*known.PER_MOUNT, *recursive, *known.PER_FILE_SYSTEM, *known.PROPAGATION, *known.BINDS, *others})


def linux() -> dict[str, Any]:
    from lab.runtime.config import capabilities, scalars
    from lab.runtime.seccomp.calls import TABLES

    return {
        "namespaces": sorted(scalars.NAMESPACES),
        "capabilities": list(capabilities.NAMES),
        "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
        "seccomp": {
            "enabled": True,
            "actions": sorted(scalars.ACTIONS),
            "operators": sorted(scalars.OPERATORS),
            "archs": sorted(TABLES),
            "knownFlags": sorted(scalars.SECCOMP_FLAGS),
            "supportedFlags": sorted(scalars.SECCOMP_FLAGS),
        },
        "apparmor": {"enabled": True},
        "selinux": {"enabled": True},
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
        "memoryPolicy": {"modes": sorted(scalars.MEMORY_MODES), "flags": sorted(scalars.MEMORY_FLAGS)},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
    }
