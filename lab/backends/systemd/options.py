"""What systemd-nspawn is told, and what of it its container has then: pure functions over the configuration.

Sources: systemd-nspawn(1); systemd's docs/ENVIRONMENT.md; sd_listen_fds(3); sd_notify(3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from lab.instance import INSIDE
from lab.record import replace
from lab.runtime.config import capabilities
from lab.runtime.config.model import Config, ProcessConfig

REPORT, STDIN, ENVIRONMENT = range(3, 6)
"""The descriptors that lab's helper is given besides. nspawn passes them on as those of a socket that it was
activated by, from 3 on.
"""
GIVEN = 3

OWN = "lab"
"""A folder in what is mounted over `RUN` for nspawn alone, with the root, and where to tell that it is ready."""

RUN, SYSTEMS_RUN = "/run", "/run/systemd"
"""Where nspawn notes what runs, of which the host is to see nothing. The second is enough, where the host has it."""

ENCLOSE = """set -e
run=$1 notify=$2 root=$3 groups=$4
shift 4
mount -t tmpfs -o mode=0755,nosuid,nodev nspawn "$run"
mkdir -p "$run/lab/root"
: >"$run/lab/notify"
mount --bind "$notify" "$run/lab/notify"
mount --rbind "$root" "$run/lab/root"
[ -z "$groups" ] || mount --bind "$groups" /sys/fs/cgroup
export LISTEN_PID=$$ LISTEN_FDS=3 NOTIFY_SOCKET="$run/lab/notify"
exec "$@"
"""
"""What a shell does before it is nspawn, in a mount namespace of its own. A host that has both versions of control
groups is shown as one with the second alone: nspawn would else make groups in the hierarchy of systemd, too, where
lab has none to make them in.
"""

VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "SYSTEMD_NSPAWN_TMPFS_TMP": "0",  # the image's /tmp, which nspawn would hide
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",  # an image without systemd is shown the first version otherwise
    }
)
NO_FILTER: Mapping[str, str] = MappingProxyType({"SYSTEMD_SECCOMP": "0"})

KEPT = (
    "CAP_AUDIT_CONTROL", "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_OWNER", "CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
    "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TTY_CONFIG",
)  # fmt: skip
"""The capabilities that nspawn leaves its root, unasked (systemd-nspawn(1), --capability=)."""

POINTS = ("bin", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var")
"""Folders that nspawn makes in the root where the image has none, or asks for, as it does for usr."""


def confined(config: Config, *, no_new_privileges: bool) -> Config:
    """What lab decides of a container of nspawn's. The capabilities and the filter are nspawn's, of its version: they
    are read off its first process when there is one.
    """
    return replace(
        config,
        process=replace(config.process, no_new_privileges=no_new_privileges),
        linux=replace(config.linux, seccomp=None, masked_paths=(), readonly_paths=()),
    )


def options(config: Config, root: str, *, shown: Iterable[tuple[str, str]], dockers_capabilities: bool) -> list[str]:
    """For the container of `confined`, whose root is mounted at ``root`` with all of lab's mounts below. ``shown``
    are paths below it that are mounted over nspawn's own /run, and where.
    """
    process = config.process
    dropped = [name for name in KEPT if name not in capabilities.DOCKER_DEFAULT] if dockers_capabilities else []
    return [
        "--quiet", "--settings=no", "--register=no", "--keep-unit", "--console=pipe",
        f"--directory={root}", "--machine=lab", f"--hostname={config.hostname}",
        "--network-namespace-path=/proc/self/ns/net",
        "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        *(f"--rlimit={each.type}={each.soft}:{each.hard}" for each in process.rlimits),
        *(f"--bind={_escaped(source)}:{_escaped(target)}" for source, target in shown),
        *([f"--drop-capability={','.join(dropped)}"] if dropped else []),
        *(["--no-new-privileges=yes"] if process.no_new_privileges else []),
    ]  # fmt: skip


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")


def changes_user(process: ProcessConfig) -> bool:
    """Whether the application's user is another than root."""
    return (process.user.uid, process.user.gid, *process.user.additional_gids) != (0, 0)


def command(process: ProcessConfig, terminal: Sequence[str]) -> list[str]:
    """What nspawn executes: lab's helper, which executes the application with the environment that it is given."""
    user = process.user
    ids = ":".join(map(str, (user.uid, user.gid, *user.additional_gids)))
    return [
        INSIDE, "init", "--report-fd", str(REPORT), "--socket-fd", str(STDIN), "--environment-fd", str(ENVIRONMENT),
        *terminal, *(["--user", ids] if changes_user(process) else []), "--directory", process.cwd, "--",
        *process.args,
    ]  # fmt: skip
