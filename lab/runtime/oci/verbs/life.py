"""THE STORY: create → start → delete, and run, which is all three (runtime-spec, runtime.md "Lifecycle").

    create   claim the name; note what will be made; the cgroup, limited and guarded; the first process, which
             `lab.runtime.container` starts and which builds its own surroundings (`lab.runtime.init`); then note
             that it exists. It waits at a socket, and nothing of ours runs any more.
    start    connect to that socket and let it go on. It executes the application, or says why it can't.
    delete   what is left: processes, the cgroup, the folder.

Whatever fails is undone in reverse, and the error names the step. What a SIGKILL interrupts can't undo itself;
therefore each thing is noted before it is made, and `delete` removes whatever of it exists. Mounts need no undoing:
they are in the container's own mount namespace and end with its last process.
"""

from __future__ import annotations

import _socket
import os

from lab.errors import LabError, UsageError
from lab.runtime.oci import rootless, store
from lab.runtime.oci.options import FLAG, VALUE
from lab.runtime.oci.steps import Steps
from lab.runtime.oci.unit import await_end
from lab.shims import ExitStack, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lab.host.cgroup.group import Group
    from lab.runtime.cgroup.resctrl import Class
    from lab.runtime.config.model import Config
    from lab.runtime.container import Started
    from lab.runtime.oci.blueprint import Blueprint
    from lab.runtime.oci.main import Call
    from lab.runtime.oci.store import Entry, State
    from lab.runtime.plan import Plan

OWN_PARENT = "lab/oci/"
"""Where a container's group goes whose configuration doesn't say; emptied, it goes too."""

MAKING = {
    "bundle b": VALUE,
    "console-socket": VALUE,
    "pid-file": VALUE,
    "no-pivot": FLAG,
    "no-new-keyring": FLAG,
    "preserve-fds": VALUE,
}
OPTIONS = {
    "create": MAKING,
    "start": {},
    "delete": {"force f": FLAG},
    "run": MAKING | {"detach d": FLAG, "keep": FLAG, "no-subreaper": FLAG},
}


# create


class Made:
    """A container that is complete and holds: its process waits to be told to go on."""

    def __init__(self, entry: Entry, state: State) -> None:
        self.entry = entry
        self.state = state
        self.started: Started
        self.master = -1  # of its terminal, if this command holds it
        self.added: dict[str, Any] = {}  # what the process is told with the word to go on
        self.early = False  # whether its filter can come before it waits, or has hooks run


def create(call: Call) -> int:
    """``create ID``: everything but the application's execution. Returns when that waits for `start`."""
    with Steps("create") as steps, ExitStack() as undo:
        made = make(call, steps, undo)
        steps.enter("leave it waiting")
        leave_waiting(made)
        announce(call, steps, made)
        undo.pop_all()
        made.entry.unlock()
    return 0


def make(call: Call, steps: Steps, undo: ExitStack) -> Made:
    """All of it but the application; ``undo`` takes it apart again."""
    from lab.runtime.cgroup import limits
    from lab.runtime.config import validate
    from lab.runtime.oci.blueprint import Blueprint, refuse_populated

    steps.enter("read the bundle")
    entry = call.entry()
    quiet = rootless.is_outside()  # it is read once more
    wanted = Blueprint.read(call.given.value("bundle", "."), (lambda _path: None) if quiet else call.ignored)
    if call.given.verb == "run" and not wanted.startable:
        raise UsageError("config.json: process is missing: run needs one")
    wanted.config = rootless.enter(wanted.config)
    group, unit = wanted.place(entry.id, by_systemd=call.by_systemd)
    if wanted.can_be_watched:
        from lab.runtime.oci import main

        main.stand_on_read_only()
    made = Made(entry, wanted.state(entry.id, group))
    for warning in (*validate.warnings(wanted.config), *limits.ignored(wanted.config.linux.resources)):
        call.log.warn(warning)
    steps.enter("claim the name")
    undo.callback(entry.unlock)
    entry.make()
    undo.callback(entry.remove)
    steps.enter("note what will be made")
    refuse_populated(group)
    entry.write_config(wanted.text)
    entry.write(made.state)
    steps.enter("make the cgroup")
    undo.callback(remove_group, group)
    if unit is not None:
        holder = unit.start(entry.id)
        undo.callback(holder.end)
    wanted.make_group(group)
    rdt = class_of(wanted.config, entry.id)
    if rdt is not None:
        rdt.make()
        undo.callback(rdt.remove)
    steps.enter("plan")
    plan = wanted.plan(
        entry.id,
        group,
        preserve=call.given.number("preserve-fds") or 0,
        no_pivot=call.given.flag("no-pivot"),
        own_keyring=not call.given.flag("no-new-keyring"),
        fail_at=steps.fail_at,
    )
    steps.enter("start the first process")
    begin(call, made, plan, wanted, undo)
    if rdt is not None:
        rdt.enter(made.started.pid)
    if wanted.config.linux.net_devices:
        move_devices(wanted.config, made.started.pid, undo)
    if unit is not None:
        holder.end()
    return made


def class_of(config: Config, identity: str) -> Class | None:
    """Its class of service, if it wants one. Raises LabError on a host without any."""
    if config.linux.intel_rdt is None:
        return None
    from lab.runtime.cgroup.resctrl import Class

    return Class(config.linux.intel_rdt, identity)


def move_devices(config: Config, pid: int, undo: ExitStack) -> None:
    """Into the network namespace of the first process, which waits; back again if the rest of create fails."""
    from lab.runtime.oci import netdevices

    wanted = {name: device.name for name, device in config.linux.net_devices.items()}
    inside = f"/proc/{pid}/ns/net"
    moved = netdevices.move(wanted, "/proc/self/ns/net", inside)
    undo.callback(netdevices.move, moved, inside, "/proc/self/ns/net")


def begin(call: Call, made: Made, plan: Plan, wanted: Blueprint, undo: ExitStack) -> None:
    """Clone the first process, and wait until it is isolated; its terminal, if it has one, is handed over."""
    from lab.runtime import container
    from lab.runtime.oci.waiting import conversation

    detached = call.given.verb == "create" or call.given.flag("detach")
    terminal = conversation.Terminal(
        plan.process.terminal, call.given.value("console-socket"), undo, detached=detached
    )
    made.started = container.start(plan, [0, 1, 2])
    undo.callback(conversation.end, made.started)
    made.added = wanted.filter()  # while the other makes its mounts
    if detached and made.added:
        made.entry.write_filter(made.added["filter"])
    if made.added and (detached or wanted.config.hooks.start_container):
        from lab.runtime.seccomp import compiler

        compiled: Any = made.added["filter"]
        made.early = compiler.lets_wait(compiled["seccomp"])
    conversation.expect(made.started, "ISOLATED", terminal)
    made.master = terminal.master


def leave_waiting(made: Made) -> None:
    """Give it a socket to wait at, and wait until it does: from then on it needs nobody."""
    from lab.runtime.oci.waiting import conversation

    if rootless.without_group(made.state):
        made.state.first = [made.started.pid, store.birth_of(made.started.pid)]
        made.entry.write(made.state)
    with ExitStack() as opened:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        opened.callback(listener.close)
        before = os.umask(0o077)
        try:
            listener.bind(made.entry.start_address)
        finally:
            os.umask(before)
        listener.listen(1)
        made.started.tell("WAIT", [listener.fileno()], early=made.early, **made.added)
        conversation.expect(made.started, "WAITING")


def announce(call: Call, steps: Steps, made: Made) -> None:
    """Its pid goes to whoever asked for it, and the state becomes what other verbs go by."""
    pid = made.started.pid
    steps.enter("write the pid file")
    call.write_pid(pid)
    steps.enter("note that it exists")
    made.state.pid, made.state.birth = pid, store.birth_of(pid)
    made.entry.write(made.state)


# start


def start(call: Call) -> int:
    """``start ID``: the application is executed."""
    from lab.runtime.channel import Channel
    from lab.runtime.oci.waiting import conversation

    with Steps("start") as steps, ExitStack() as opened:
        steps.enter("reach the first process")
        entry = call.entry()
        entry.lock()
        opened.callback(entry.unlock)
        state = entry.read()
        if (status := entry.status(state)) != store.CREATED:
            complaint = (
                "cannot start a container that has stopped"
                if status == store.STOPPED
                else f"cannot start a {status} container"
            )
            raise LabError(complaint)
        if not state.startable:
            raise LabError("cannot start a container whose configuration has no process")
        channel = Channel.connected(entry.start_address)
        opened.callback(channel.close)
        steps.enter("let it go")
        channel.send("EXEC_NOW")
        os.unlink(entry.start_socket)
        conversation.until_executed(channel)
        poststart(call, entry, state)
    return 0


def poststart(call: Call, entry: Entry, state: State) -> None:
    """The hooks behind a start. Since 1.3 of the specification one that fails ends the container: raises LabError.
    Before, it is only told.
    """
    hooks = entry.hooks("poststart")
    if not hooks:
        return
    from lab.runtime import versions

    found = describe(state, store.RUNNING)
    if not versions.reaches(state.version, "1.3"):
        call.tell_hooks("poststart", hooks, found)
        return
    from lab.runtime import hooks as running

    try:
        running.run("poststart", hooks, found)
    except OSError as error:
        state.its_group().kill()
        raise LabError(error.strerror or f"{error}") from error


def describe(state: State, status: str) -> dict[str, object]:
    """The state as the specification has it (runtime.md, "State")."""
    found: dict[str, object] = {"ociVersion": state.version, "id": state.id, "status": status, "bundle": state.bundle}
    if status != store.STOPPED:
        found["pid"] = state.pid
    if state.annotations:
        found["annotations"] = state.annotations
    return found


# delete


def delete(call: Call) -> int:
    """``delete ID``: nothing of the container remains. ``--force`` kills what still runs, and needs no container."""
    force = call.given.flag("force")
    with Steps("delete") as steps, ExitStack() as opened:
        entry = call.entry()
        if force:
            steps.enter("kill")
            kill_first(entry)
        try:
            entry.lock()
            opened.callback(entry.unlock)
            state = entry.read()
        except store.Unknown:
            if not force:
                raise
            entry.remove()  # one that was killed before it could note anything
            return 0
        except store.Damaged:
            if not force:
                raise
            remove_damaged(steps, entry)
            return 0
        status = entry.status(state)
        if not force and status != store.STOPPED:
            raise LabError(f"cannot delete container {entry.id} that is not stopped: {status}")
        remove(call, steps, entry, state)
    return 0


def kill_first(entry: Entry) -> None:
    """Before its lock is waited for: whoever holds that may wait for what runs inside, as `start` does for a hook."""
    with suppress(LabError):  # unknown or damaged; what survives is told of once it is locked
        entry.read().its_group().kill()


def remove(call: Call, steps: Steps, entry: Entry, state: State) -> None:
    """In an order that can be interrupted and begun again. Hooks come last, and nothing hangs on them."""
    group = state.its_group()
    steps.enter("kill")
    group.kill()
    steps.enter("remove the cgroup")
    remove_empty(group)
    remove_class(entry)
    steps.enter("forget")
    poststop = entry.hooks("poststop")
    entry.remove()
    call.tell_hooks("poststop", poststop, describe(state, store.STOPPED))


def remove_class(entry: Entry) -> None:
    """The class that was made for this container alone; nothing, where the configuration asks for none."""
    value = entry.linux("intelRdt")
    if isinstance(value, dict):
        from lab.runtime.cgroup.resctrl import Class
        from lab.runtime.config import model as config
        from lab.runtime.config import schema

        with suppress(LabError):  # no such file system any more
            Class(schema.read(config.IntelRdt, value, "linux.intelRdt", lambda _path: None), entry.id).remove()


def remove_damaged(steps: Steps, entry: Entry) -> None:
    """One whose state can't be read: its group is where the configuration says, or where it is by default."""
    from lab.runtime.cgroup import resources

    steps.enter("remove the cgroup")
    with suppress(UsageError):  # the configuration is damaged, too
        remove_group(resources.group_of(entry.group(), entry.id))
    steps.enter("forget")
    entry.remove()


def remove_group(group: Group) -> None:
    """Kill what is left in it, and remove it; parents that others made stay. Idempotent."""
    group.kill()
    remove_empty(group)


def remove_empty(group: Group) -> None:
    """The same where nothing is left to be killed."""
    group.remove(keep_parents=not group.path.startswith(OWN_PARENT))
    await_end(group)


# run


def run(call: Call) -> int:
    """``run ID``: create and start; without ``--detach`` wait for the end, pass signals on, delete.

    Returns the application's exit code, 128 + n after signal n.
    """
    from lab.runtime.oci.waiting import conversation, foreground

    detach = call.given.flag("detach")
    with Steps("run") as steps, ExitStack() as undo, foreground.signals_held(not detach):
        made = make(call, steps, undo)
        announce(call, steps, made)
        steps.enter("let it go")
        made.started.tell("EXEC_NOW", early=made.early, **made.added)
        conversation.until_executed(made.started.channel)
        undo.pop_all()
        try:
            poststart(call, made.entry, made.state)
        except LabError:
            remove(call, Steps("delete"), made.entry, made.state)
            raise
        made.entry.unlock()
        if detach:
            return 0
        keep = call.given.flag("keep")
        try:
            code = foreground.wait(
                made.started,
                made.master,
                lambda: foreground.start_again(call, made.entry.id, made.started, keep=keep),
            )
        except BaseException:
            if not keep:
                forget(call, made.entry.id)
            raise
    if not keep:
        forget(call, made.entry.id)
    return code


def forget(call: Call, identity: str) -> None:
    """Delete a container that was run, unless somebody else has done so by now."""
    with Steps("delete") as steps, suppress(store.Unknown), ExitStack() as opened:
        entry = store.Entry(call.root, identity)
        entry.lock()
        opened.callback(entry.unlock)
        remove(call, steps, entry, entry.read())
