"""The child's half of a start, `lab.runtime.init.run`, as a `Script`: the common case, for C to carry out.

Step for step the same calls in the same order; what is told in comments there is not told again. `can_be` says which
plans have one: those that ask for nothing rare. Whatever is not as it mostly is, a missing folder, a link in the
place of one, is left to the reference: the script fails then, and the launcher goes by `lab.runtime.init`.
Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import binascii
import errno
import fcntl
import os
import struct

from lab.host import syscalls
from lab.host.identity import ownspace
from lab.host.syscalls import AT_FDCWD
from lab.runtime.plan import INSIDE, Enter, Plan, ProcessPlan
from lab.runtime.process import execve, privileges
from lab.runtime.rootfs import streams
from lab.runtime.rootfs.setup import IFF_UP, SIOCSIFFLAGS
from lab.runtime.scripts.rootfs import RootfsScript
from lab.runtime.scripts.script import ANY, MUST_BE_ZERO, Register, Script, text
from lab.shims import dumps, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHANNEL, STATUS, STDIN, STDOUT, STDERR = map(Register, range(5))
GIVEN = 5
KEPT = STDIN, STDOUT, STDERR, STATUS  # as descriptors 0 to 3; the channel is the next until execve(2)
IFF_LOOPBACK = 0x8
SIMPLE = ("FileSystem", "Bind", "CgroupView", "DefaultDevices", "Mask", "MakeReadOnly")


def can_be(plan: Plan) -> bool:
    """Whether the plan is the common case."""
    process = plan.process
    rare = (
        plan.criu, plan.hooks, plan.hold, plan.explain, plan.fail_at, plan.trees, plan.own_users, plan.new_time,
        plan.born_in, plan.enter not in (Enter.PIVOT_ROOT, Enter.CHROOT), plan.propagation & syscalls.MS_SHARED,
        not plan.process.init, process.terminal, process.agent, process.read_only_by_landlock, process.preserve,
        process.scheduler, process.io_priority, process.persona is not None, process.memory_policy,
        process.affinity is not None, process.exec_label, any(flag == syscalls.CLONE_NEWNS for _, flag in plan.joins),
    )  # fmt: skip
    return not any(rare) and all(_is_simple(each) for each in (*plan.mounts, *plan.masks)) and not _overlap(plan)


def helper(plan: Plan) -> str:
    """Where lab's helper is on the host. Raises ValueError for a plan that does not show it to the container."""
    folder, _, name = INSIDE.rpartition("/")
    for operation in plan.mounts:
        if (operation["operation"], operation["target"]) == ("Bind", folder):
            return f"{operation['source']}/{name}"
    raise ValueError(f"nothing on {folder}")


def _is_simple(operation: dict[str, Any]) -> bool:
    target = operation["target"]
    return (
        operation["operation"] in SIMPLE
        and not any(operation.get(name) for name in ("bind", "tree", "copy_up", "sources"))
        and operation.get("kind") != "overlay"
        and target[:1] == "/" != target
        and ".." not in target
    )


def _overlap(plan: Plan) -> bool:
    """Whether something is mounted in what is bound, which the script has no descriptor of; or over another mount."""
    placed = [(str(operation["target"]), operation["operation"]) for operation in plan.mounts]
    devices = "DefaultDevices"
    for number, (target, kind) in enumerate(placed):
        for later, other in placed[number + 1 :]:
            if devices not in (kind, other) and f"{target}/".startswith(f"{later}/"):
                return True
            if kind == "Bind" and later.startswith(f"{target}/"):
                return True
    return False


def script_of(plan: Plan, stdio: list[int], tasks: int) -> Script:
    """All of it. The descriptors that come with it are those of CHANNEL to STDERR, then ``tasks`` files of v1."""
    script = Script(GIVEN + tasks)
    process = plan.process
    place(script, process, tasks)
    die_with_the_launcher(script, process)
    join_namespaces(script, plan)
    if process.own_keyring:
        script.call("keyctl", syscalls.KEYCTL_JOIN_SESSION_KEYRING, 0, pardon=errno.EPERM)
    rootfs = RootfsScript(script)
    rootfs.mount_root(plan)
    rootfs.add_all(plan.mounts)
    for name, value in plan.sysctls.items():
        opened, _ = rootfs.open(f"/proc/sys/{name.replace('.', '/')}", flags=os.O_WRONLY)
        script.call("write", opened, text(value), len(text(value)))
        script.call("close", opened)
    rootfs.add_all(plan.masks)
    rootfs.enter(plan)
    for name, value in (("sethostname", plan.hostname), ("setdomainname", plan.domainname)):
        if value:
            script.call(name, text(value), len(text(value)))
    tell(script, "ISOLATED")
    become(script, process, stdio)
    return script


def place(script: Script, process: ProcessPlan, tasks: int) -> None:
    for file in map(Register, range(GIVEN, GIVEN + tasks)):
        script.call("write", file, b"0", 1)
        script.call("close", file)
    if process.oom_score_adj is not None:
        opened = script.register()
        score = f"{process.oom_score_adj}".encode()
        script.call("openat", AT_FDCWD, b"/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC, to=opened)
        script.call("write", opened, score, len(score))
        script.call("close", opened)


def die_with_the_launcher(script: Script, process: ProcessPlan) -> None:
    script.call("prctl", syscalls.PR_SET_DUMPABLE, 0)
    if not process.survives:
        script.call("prctl", syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    script.call("RAISED", CHANNEL, flags=MUST_BE_ZERO)


def join_namespaces(script: Script, plan: Plan) -> None:
    opened = []
    for path, flag in plan.joins:
        opened.append((script.register(), flag))
        script.call("openat", AT_FDCWD, text(path), os.O_RDONLY | os.O_CLOEXEC, to=opened[-1][0])
    for descriptor, flag in opened:
        script.call("setns", descriptor, flag)
        script.call("close", descriptor)
    if plan.cgroup_namespace:
        script.call("unshare", syscalls.CLONE_NEWCGROUP)
    if plan.loopback_up:
        any_socket = script.register()
        request = struct.pack("16sH14x", b"lo", IFF_LOOPBACK | IFF_UP)
        script.call("socket", 2, 2 | os.O_CLOEXEC, 0, to=any_socket)  # AF_INET, SOCK_DGRAM
        script.call("ioctl", any_socket, SIOCSIFFLAGS, request)
        script.call("close", any_socket)


def tell(script: Script, name: str) -> None:
    packet = dumps({"message": name}).encode()
    script.call("sendto", CHANNEL, packet, len(packet), 0x4000)  # MSG_NOSIGNAL


def become(script: Script, process: ProcessPlan, stdio: list[int]) -> None:
    """`init.become` and what it calls; the launcher's descriptors stand for the child's, which are the same."""
    for stream in streams.to_give(process, stdio):
        script.call("fchown", Register(STDIN + stream), process.uid, -1, pardon=ANY)
    for number, soft, hard in process.rlimits:
        script.call("prlimit64", 0, number, struct.pack("<qq", soft, hard), 0)
    if process.mergeable:
        script.call("prctl", syscalls.PR_SET_MEMORY_MERGE, 1)
    for number, descriptor in enumerate(KEPT):
        script.call("dup3", descriptor, number, 0)
    script.call("dup3", CHANNEL, len(KEPT), os.O_CLOEXEC, to=CHANNEL)
    script.call("close_range", len(KEPT) + 1, 0xFFFFFFFF, 0)
    take_own_null(script, [number for number in range(3) if streams.is_null(stdio[number])])
    if process.survives or process.leads:
        script.call("setsid")
    script.call("chdir", text(process.directory))
    script.call("IS_INSIDE")
    sets = process.bounding, process.effective, process.permitted, process.inheritable, process.ambient
    ids = process.uid, process.gid, tuple(process.groups), process.umask
    script.part((sets, ids, privileges.keeps_admin(process)), lambda: drop_privileges(script, process))
    die_with_the_launcher(script, process)
    if process.no_new_privileges:
        script.call("prctl", syscalls.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prepare(script, process)
    script.part("signals", lambda: restore_signals(script))
    tell(script, "EXECUTING")
    if process.seccomp:
        program = binascii.a2b_base64(process.seccomp)
        script.call("FILTER", process.seccomp_flags, program, len(program) // 8)
        if privileges.keeps_admin(process) and not process.effective & process.permitted & privileges.ADMIN:
            capset(script, process.effective, process.permitted, process.inheritable)
    script.call("EXECUTE", INSIDE.encode())


def take_own_null(script: Script, nulls: list[int]) -> None:
    if not nulls:
        return
    own = script.register()
    how = struct.pack("<QQQ", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0, syscalls.RESOLVE_NO_SYMLINKS)
    absent = script.call("openat2", AT_FDCWD, b"/dev/null", how, len(how), to=own, pardon=ANY)
    another = script.call("IS_NULL", own, pardon=ANY)
    script.call("fcntl", own, fcntl.F_SETFL, os.O_RDWR)
    for number in nulls:
        script.call("dup3", own, number, 0)
    another()
    script.call("close", own)
    absent()


def drop_privileges(script: Script, process: ProcessPlan) -> None:
    kept = privileges.ADMIN if privileges.keeps_admin(process) else 0
    for number in range(privileges.LAST_CAPABILITY + 1):
        if not process.bounding >> number & 1:
            script.call("prctl", syscalls.PR_CAPBSET_DROP, number, 0, 0, 0)
    script.call("prctl", syscalls.PR_SET_KEEPCAPS, 1, 0, 0, 0)
    script.call("umask", process.umask)
    if process.groups or not ownspace.keeps_groups():
        script.call("setgroups", len(process.groups), struct.pack(f"<{len(process.groups)}I", *process.groups))
    script.call("setresgid", process.gid, process.gid, process.gid)
    script.call("setresuid", process.uid, process.uid, process.uid)
    capset(script, process.effective | kept, process.permitted | kept, process.inheritable)
    script.call("prctl", syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(privileges.LAST_CAPABILITY + 1):
        if process.ambient >> number & 1:
            script.call("prctl", syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number, 0, 0)


def capset(script: Script, effective: int, permitted: int, inheritable: int) -> None:
    sets = (effective, permitted, inheritable)
    words = [each >> shift & 0xFFFFFFFF for shift in (0, 32) for each in sets]
    script.call("capset", struct.pack("<II", 0x20080522, 0), struct.pack("<6I", *words))


def prepare(script: Script, process: ProcessPlan) -> None:
    """`execve.ready`: what is executed is lab's helper, which is where lab has put it."""
    words = execve.helper_words(process)
    environment = execve.variables(process.environment)
    at = -1
    if not execve.has_home(process):
        environment["HOME"] = ""
        at = list(environment).index("HOME")
    entries = [f"{name}={value}" for name, value in environment.items()]
    strings = b"".join([text(each) + b"\0" for each in (*words, *entries)])
    script.call("PREPARE", strings, len(words), len(entries), at, f"{process.uid}".encode())


def restore_signals(script: Script) -> None:
    default = bytes(32)  # struct sigaction of the kernel's: SIG_DFL
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGXFSZ):
        script.call("rt_sigaction", number, default, 0, 8)
    script.call("rt_sigprocmask", 2, bytes(8), 0, 8)  # SIG_SETMASK
