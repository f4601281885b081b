"""The last moments before foreign code: whatever can be looked up, made or told is done, and then only two calls are
left, the one that installs the system-call filter and execve(2).

A profile need not allow anything of ours but execve: it is written for the application. There is one exception.
Without no_new_privs, only CAP_SYS_ADMIN may install a filter (seccomp(2)). If the application doesn't get it, it is
kept until then, and given back by one capset(2) behind the filter. Standard library only; see
`lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import binascii
import os

from lab.host import syscalls
from lab.record import replace
from lab.runtime.plan import INSIDE
from lab.runtime.process import trampoline
from lab.runtime.process.privileges import give_back_admin, keeps_admin, restore_signals
from lab.shims import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.runtime.hooks import Hook, Spawn
    from lab.runtime.plan import ProcessPlan

STATUS_DESCRIPTOR = 3
HOOK_FAILED = 127
OF_AGENTS = 0x08 | 0x20  # SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV


class Ready:
    """What execve(2) is called with; all of it found out."""

    def __init__(self, target: str | int, words: list[str], environment: dict[str, str]) -> None:
        self.target = target
        self.words = words
        self.environment = environment

    def execute(self) -> None:
        """execve(2), and nothing else. Raises OSError."""
        os.execve(self.target, self.words, self.environment)


def ready(process: ProcessPlan, stub: int) -> Ready:
    """lab's helper, whose mount no image can replace, or the application by way of ``stub``: never straight from the
    host's interpreter. Raises OSError for a program that is not there, or may not be executed.
    """
    environment = variables(process.environment)
    if not has_home(process):
        from lab.runtime.process import account  # callers mostly say it

        environment["HOME"] = account.home(process.uid)
    if process.init:
        return Ready(INSIDE, helper_words(process), environment)
    return Ready(*trampoline.way(stub, process.argv[0], process.argv, environment), environment)


def helper_words(process: ProcessPlan) -> list[str]:
    """The command line of lab's helper as the first process."""
    return [INSIDE, "init", "--status-fd", str(STATUS_DESCRIPTOR), *process.helper, "--", *process.argv]


def has_home(process: ProcessPlan) -> bool:
    """Whether its environment says where it is at home."""
    return any(len(entry) > len("HOME=") and entry.startswith("HOME=") for entry in process.environment)


def variables(entries: list[str]) -> dict[str, str]:
    """An environment from NAME=value."""
    return dict(entry.partition("=")[::2] for entry in entries)


def prepare_filter(process: ProcessPlan) -> Callable[[], None]:
    """What installs the filter when it is called: no more than the calls that it takes."""
    if not process.seccomp:
        return lambda: None
    program, flags = binascii.a2b_base64(process.seccomp), process.seccomp_flags
    give_back = give_back_admin(process) if keeps_admin(process) else lambda: None
    if process.agent:
        from lab.runtime.seccomp import listener

        install: Callable[[], object] = listener.agent().prepare(program, flags)
    else:
        install = syscalls.seccomp_filter(program, flags)

    def filter_and_give_back() -> None:
        install()
        give_back()

    return filter_and_give_back


def spawn_hook(process: ProcessPlan, stub: int) -> Spawn:
    """For `lab.runtime.hooks.run`: a hook that is the container's program is behind the same boundary as the
    application. Only its filter has no agent, whose one connection is the application's: what that would be asked
    about is refused (ENOSYS).
    """

    def spawn(hook: Hook, given: int, heard: int) -> int:
        words = list(hook.get("args") or ()) or [hook["path"]]
        own = hook.get("env")
        environment = variables(process.environment if own is None else list(own))
        target, words = trampoline.way(stub, hook["path"], words, environment)
        install = prepare_filter(replace(process, agent=None, seccomp_flags=process.seccomp_flags & ~OF_AGENTS))
        pid = syscalls.clone(signal.SIGCHLD)
        if pid == 0:
            try:
                os.setpgid(0, 0)
                for old, new in ((given, 0), (heard, 1), (heard, 2)):
                    os.dup2(old, new)
                restore_signals()
                install()
                os.execve(target, words, environment)
            finally:
                os._exit(HOOK_FAILED)
        return pid

    return spawn
