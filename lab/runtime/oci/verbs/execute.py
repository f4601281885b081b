"""``exec``: one more process behind a container's boundary, in its namespaces, cgroup and root."""

from __future__ import annotations

import os

from lab.errors import LabError, UsageError
from lab.record import replace
from lab.runtime.oci import store
from lab.runtime.oci.options import FLAG, LIST, VALUE
from lab.runtime.oci.steps import Steps
from lab.shims import ExitStack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lab.runtime.config.model import Config, ProcessConfig
    from lab.runtime.container import Started
    from lab.runtime.oci.main import Call
    from lab.runtime.oci.waiting.conversation import Terminal
    from lab.runtime.plan import ProcessPlan

OPTIONS = {
    "exec": {
        "process p": VALUE,
        "tty t": FLAG,
        "user u": VALUE,
        "additional-gids g": LIST,
        "cwd": VALUE,
        "env e": LIST,
        "cap c": LIST,
        "no-new-privs": FLAG,
        "apparmor": VALUE,
        "process-label": VALUE,
        "detach d": FLAG,
        "pid-file": VALUE,
        "console-socket": VALUE,
        "preserve-fds": VALUE,
        "ignore-paused": FLAG,
        "no-subreaper": FLAG,
    }
}


def execute(call: Call) -> int:
    """``exec ID COMMAND…``: its exit code, 128 + n after signal n; with ``--detach`` 0 once it is executed."""
    from lab.runtime.config import validate
    from lab.runtime.oci import blueprint
    from lab.runtime.oci.verbs import life
    from lab.runtime.oci.waiting import conversation, foreground

    detach = call.given.flag("detach")
    with Steps("exec") as steps, ExitStack() as undo:
        steps.enter("read the process")
        identity, *words = call.given.words or [""]
        entry = store.Entry(call.root, identity)
        state = running(call, entry)
        config = read_config(entry)
        process = process_of(call, config, words)
        own_users = any(space.type == "user" for space in config.linux.namespaces)
        is_starting = os.path.exists(entry.start_socket) or entry.is_locked()  # a paused one, too
        require_started(process, is_starting=is_starting, own_users=own_users)
        for warning in validate.warnings_of(process, own_users=own_users):
            call.log.warn(warning)
        steps.enter("plan")
        known = life.describe(state, entry.status(state))
        config, kept = without_filter(config, entry)
        plan = blueprint.exec_plan(config, process, call.given.number("preserve-fds") or 0, known)
        plan = replace(plan, fail_at=steps.fail_at, **kept)
        terminal = conversation.Terminal(process.terminal, call.given.value("console-socket"), undo, detached=detach)
        steps.enter("start the process")
        with foreground.signals_held(not detach):
            started = begin(state, plan, terminal, steps, undo)
            if (rdt := life.class_of(config, identity)) is not None:
                rdt.enter(started.pid)
            steps.enter("write the pid file")
            call.write_pid(started.pid)
            undo.pop_all()
            return 0 if detach else foreground.wait(started, terminal.master)


def running(call: Call, entry: store.Entry) -> store.State:
    """Raises LabError for a container that can't be entered."""
    state = entry.read()
    status = entry.status(state)
    if status == store.PAUSED and not call.given.flag("ignore-paused"):
        raise LabError("cannot exec in a paused container", hint="--ignore-paused")
    if status not in (store.CREATED, store.RUNNING, store.PAUSED):
        raise LabError(f"cannot exec in a {status} container")
    return state


def require_started(process: ProcessConfig, *, is_starting: bool, own_users: bool) -> None:
    """Until it executes the application, behind its hooks, the first process is the runtime's program, a file of the
    host's: nothing that may trace it comes beside it. Raises LabError.
    """
    sets = process.capabilities
    traces = "CAP_SYS_PTRACE" in {*sets.bounding, *sets.permitted, *sets.effective}
    if is_starting and traces and not own_users:
        raise LabError("cannot exec what may trace others in a container that is not started")


def read_config(entry: store.Entry) -> Config:
    from lab.runtime.config import model as config

    return config.from_json(entry.read_config(), lambda _path: None)


def without_filter(config: Config, entry: store.Entry) -> tuple[Config, dict[str, object]]:
    """The configuration without a system-call filter, and the one that was compiled when the container was created;
    as it is, and nothing, where none was kept.
    """
    profile = config.linux.seccomp
    kept = entry.filter() if profile and not profile.listener_path else {}
    return (replace(config, linux=replace(config.linux, seccomp=None)) if kept else config), kept


def begin(state: store.State, plan: ProcessPlan, terminal: Terminal, steps: Steps, undo: ExitStack) -> Started:
    """Clone it beside the first process, and wait until it has executed its program."""
    from lab.host.cgroup.group import Group
    from lab.runtime import container
    from lab.runtime.oci import blueprint
    from lab.runtime.oci.waiting import conversation

    with ExitStack() as opened:
        pidfd = os.pidfd_open(state.pid)
        opened.callback(os.close, pidfd)
        root = os.open(f"/proc/{state.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, root)
        if not state.lives():
            raise LabError("cannot exec in a stopped container")
        placement = blueprint.placement(Group(state.group))
        started = container.start_exec(plan, pidfd, root, state.namespaces, placement, [0, 1, 2])
        undo.callback(conversation.end, started)
        conversation.until_executed(started.channel, terminal)
    return started


# What to execute


def process_of(call: Call, config: Config, words: list[str]) -> ProcessConfig:
    """``--process FILE``, or the container's own process with another command line and what options change."""
    from lab.runtime.config.model import process_from_json

    given = call.given
    if given.value("process"):
        if words:
            raise UsageError("exec takes a command or --process, not both")
        process = process_from_json(read_json(given.value("process")), lambda path: call.ignored(path))
        return confined_as(process, config.process)
    if not words:
        raise UsageError("exec takes a container id and a command")
    return process_from_json(changed(given, config, words))


INHERITED = ("apparmor_profile", "selinux_label", "rlimits", "oom_score_adj", "scheduler", "io_priority")


def confined_as(process: ProcessConfig, first: ProcessConfig) -> ProcessConfig:
    """The process with what confines the container's first one, but for what it says itself; runc does likewise."""
    told = {name: getattr(process, name) or getattr(first, name) for name in INHERITED}
    if process.oom_score_adj is not None:
        told["oom_score_adj"] = process.oom_score_adj
    return replace(process, **told)


def changed(given: Any, config: Config, words: list[str]) -> dict[str, Any]:
    """As JSON, so that what options say is checked like what a file says."""
    from lab.runtime.config.model import to_json

    process = to_json(config.process) | {"args": words, "terminal": given.flag("tty")}
    process["env"] = [*process.get("env", []), *given.values("env")]
    for option, name in (("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if given.value(option):
            process[name] = given.value(option)
    process.setdefault("cwd", "/")
    if given.flag("no-new-privs"):
        process["noNewPrivileges"] = True
    if given.values("cap"):
        sets = process.setdefault("capabilities", {})
        for name in ("bounding", "effective", "permitted"):
            sets[name] = list(dict.fromkeys([*sets.get(name, []), *given.values("cap")]))
    user = process.setdefault("user", {})
    if given.value("user"):
        user["uid"], gid = user_of(given.value("user"))
        user["gid"] = user.get("gid", 0) if gid is None else gid
    if given.values("additional-gids"):
        user["additionalGids"] = [number(word, "--additional-gids") for word in given.values("additional-gids")]
    return process


def user_of(word: str) -> tuple[int, int | None]:
    """UID or UID:GID. Raises UsageError."""
    uid, colon, gid = word.partition(":")
    return number(uid, "--user"), number(gid, "--user") if colon else None


def number(word: str, option: str) -> int:
    if not word.isdecimal():
        raise UsageError(
            f"{option} {word}: not a number", hint="names are for those who read the image's /etc/passwd"
        )
    return int(word)


def read_json(path: str) -> object:
    from lab.runtime.oci.blueprint import parsed

    with open(path, encoding="utf-8") as file:
        return parsed(file.read(), path)
