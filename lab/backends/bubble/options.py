"""What bwrap is told, and what of it its sandbox has then: pure functions over the configuration.

They are the options that its users give it, without a user namespace: lab's root starts it, as ostree and mkosi do,
so that the image's files have the owners that they have in every backend. Of capabilities it leaves what an
ordinary user's sandbox has, none, though from root it would take nothing by itself.

Source: bwrap(1).
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.instance import INSIDE
from lab.record import replace
from lab.runtime.config import capabilities
from lab.runtime.config.model import Capabilities, Config, ProcessConfig
from lab.runtime.seccomp import profile

REPORT, STDIN, INFO, OPTIONS, FILTER = range(3, 8)
"""The descriptors that it is given besides, by their numbers: lab/inside/wire.c counts from 3. The first two are for
lab's helper.
"""
SHARED_MEMORY_BYTES = 64 << 20  # of /dev/shm, as lab's container and Docker's have it
SETTINGS = "/proc/sys"
FOR_THE_HELPER = ("CAP_SETGID", "CAP_SETUID", "CAP_KILL")
"""What it needs to start the application as another user, and to signal it. The application loses them by that
(capabilities(7), "Effect of user ID changes").
"""


def confined(config: Config, *, every_capability: bool, filtered: bool, settings_read_only: bool = False) -> Config:
    """What is left of a container's configuration in a sandbox of bwrap's: no masks and no rules for devices, of
    capabilities all or none, and a filter of system calls only where it is given one.
    """
    held = capabilities.held() if every_capability else ()
    effective = held if config.process.user.uid == 0 else ()
    sets = Capabilities(bounding=held, effective=effective, permitted=effective)
    linux = replace(
        config.linux,
        seccomp=profile.default_profile() if filtered else None,
        resources=replace(config.linux.resources, devices=()),
        masked_paths=(),
        readonly_paths=(SETTINGS,) if settings_read_only else (),
    )
    return replace(config, process=replace(config.process, capabilities=sets), linux=linux)


def options(config: Config, root: str, *, survives: bool) -> list[str]:
    """For the sandbox of `confined`, whose root is mounted at ``root`` with all of lab's mounts below.

    It gets them by a descriptor, as --args: an environment is nobody else's business, a command line is everybody's.
    """
    process = config.process
    directory = "/" if changes_user(process) else process.cwd  # that of another may be closed to a root without power
    variables = (variable.partition("=") for variable in process.env)
    return [
        "--bind", root, "/", "--proc", "/proc", "--dev", "/dev",
        *(word for path in config.linux.readonly_paths for word in ("--ro-bind", path, path)),
        "--perms", "1777", "--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm",
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup", "--hostname", config.hostname,
        "--as-pid-1", "--new-session", *([] if survives else ["--die-with-parent"]), "--chdir", directory,
        *_capabilities(process),
        "--clearenv", *(word for name, _, value in variables for word in ("--setenv", name, value)),
        "--info-fd", str(INFO), *(["--seccomp", str(FILTER)] if config.linux.seccomp else []),
    ]  # fmt: skip


def _capabilities(process: ProcessConfig) -> list[str]:
    if process.capabilities.bounding:
        return []
    kept = FOR_THE_HELPER if changes_user(process) else ()
    return ["--cap-drop", "ALL", *(word for name in kept for word in ("--cap-add", name))]


def changes_user(process: ProcessConfig) -> bool:
    """Whether the application's user is another than bwrap's. Root's groups are bwrap's own from the start: what
    the helper would need to change them, execve(2) would leave to the application, whose user is 0.
    """
    return process.user.uid != 0


def command(process: ProcessConfig, terminal: Sequence[str]) -> list[str]:
    """What bwrap executes: lab's helper, which executes the application."""
    user = process.user
    ids = ":".join(map(str, (user.uid, user.gid, *user.additional_gids)))
    return [
        INSIDE, "init", "--report-fd", str(REPORT), "--socket-fd", str(STDIN), *terminal,
        *(["--user", ids] if changes_user(process) else []), "--directory", process.cwd, "--", *process.args,
    ]  # fmt: skip
