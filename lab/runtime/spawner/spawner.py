"""The small single-threaded process that forks containers for a big threaded one.

Forking copies page tables, and a process with threads can neither be forked safely nor enter a user namespace.
So lab starts this one, by the bare interpreter, before it imports anything heavy; it stays small, and everything
it imports is from the standard library. `lab.runtime.launcher.launcher` is its client and only peer.

It outlives its parent by what it takes to leave nothing behind: when the channel reaches its end, it kills
what it started, removes the session's cgroups and scratch folder, runs the clean-up command it was given, and
exits. Signals of a terminal don't reach it. When it is killed itself, the kernel kills its containers.

A detached instance is told it by KEEP, and is the exception: it survives both. While only the client is gone, the
spawner goes on as its parent, holds its network, writes down its exit code, and waits for a new client, which
asks for it by CLAIM; when the instance has ended without one, it removes the session as above.

Client to spawner: LAUNCH, EXECUTE, PROCEED, ABANDON, KEEP, CLAIM, QUIT. Back: READY once; ISOLATED, EXECUTED,
RESTORED, FAILED, EXITED, and STEP if a start is to be explained, each with ``id``; times are CLOCK_MONOTONIC.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import sys

from lab.host import syscalls
from lab.host.cgroup import descent
from lab.runtime import container
from lab.runtime.channel import BadMessage, Channel, ChannelClosed, Message
from lab.runtime.plan import Instead, Plan, StepFailed
from lab.runtime.process import account
from lab.runtime.scripts.bearer import Bearer
from lab.runtime.spawner.child import MOST_STATUS_BYTES, Child, now, readable
from lab.runtime.spawner.joining import Joining
from lab.shims import signal, suppress

INHERITED = (account,)
"""Modules that most children need and find imported: nobody says HOME for lab's own containers."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.runtime.plan import Tell
    from lab.runtime.spawner.companion import Companion
    from lab.runtime.spawner.detached import DetachedInstance


class Spawner:
    """The event loop: a table from descriptor to what to do when it is readable."""

    def __init__(self, client: Channel) -> None:
        self.client = client
        self.poll = select.poll()
        self.handlers: dict[int, Callable[[float], None]] = {}
        self.children: dict[str, Child] = {}
        self.detached: DetachedInstance | None = None
        self.abandoned = False  # the client is gone, what it told us to keep is not
        self.finished = False
        self.bearer = Bearer(self.watch, self.unwatch)
        self.watch(client.fileno(), self.on_request)

    def watch(self, descriptor: int, handler: Callable[[float], None]) -> None:
        self.handlers[descriptor] = handler
        self.poll.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None):
            self.poll.unregister(descriptor)

    def serve(self) -> None:
        """Until the client is gone, and what it told us to keep."""
        while not self.finished:
            ready = self.poll.poll()
            at = now()
            for descriptor, _ in ready:
                handler = self.handlers.get(descriptor)
                if handler is not None:
                    handler(at)

    # Requests

    def on_request(self, _at: float) -> None:
        try:
            message, descriptors = self.client.receive()
        except ChannelClosed:
            self.lose_client()
            return
        except BadMessage as error:
            self.refuse(error.message, f"{error}")
            return
        try:
            self.answer(message, descriptors)
        except StepFailed as failure:
            self.fail(str(message["id"]), failure)
        except Exception as error:
            self.refuse(message, f"{type(error).__name__}: {error}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def refuse(self, message: Message, text: str) -> None:
        """A request that can't be understood. It must not cost the others their containers."""
        sys.stderr.write(f"refused: {text}\n")
        sys.stderr.flush()
        if "id" in message:
            self.send("FAILED", id=message["id"], step="request", number=0, text=text, code=125)

    def answer(self, message: Message, descriptors: list[int]) -> None:
        """One request, carried out. Raises StepFailed, or anything for what is none."""
        if message["message"] == "LAUNCH":
            self.launch(message, descriptors)
        elif message["message"] == "EXECUTE":
            self.execute(message, descriptors)
        elif message["message"] == "PROCEED":
            self.proceed(message)
        elif message["message"] == "ABANDON":
            if (child := self.children.get(str(message["id"]))) is not None:
                child.kill()
        elif message["message"] == "KEEP":
            self.keep(message, descriptors)
        elif message["message"] == "CLAIM":
            self.claim(str(message["id"]))
        elif message["message"] == "QUIT":
            raise SystemExit

    def launch(self, message: Message, descriptors: list[int]) -> None:
        value = message["plan"]
        assert isinstance(value, dict)
        plan = Plan.from_json(value)
        identity = str(message["id"])
        borne = self.bearer.bear(plan, descriptors)
        if borne is None:
            self.start(identity, plan, descriptors)
            return
        child = Child(identity, borne, plan.process, plan)
        try:
            for number in descriptors:
                child.kept.append(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0))
        except OSError:
            child.let_go()
            container.abandon(borne)
            raise
        self.adopt(child)

    def start(self, identity: str, plan: Plan, descriptors: list[int]) -> None:
        """The story of `lab.runtime.container`, which is for every plan. Raises StepFailed."""
        tell = self.teller(identity) if plan.explain else None
        started = container.begin(plan, descriptors, tell)
        child = self.children[identity] = Child(identity, started, plan.process, plan)
        try:
            if plan.trees or plan.hooks:
                from lab.runtime.spawner.companion import Companion  # few have any use for one

                companion = child.companion = Companion(plan, started, tell)
                self.watch(companion.pidfd, lambda at: self.on_company(child, companion))
            else:
                container.accompany(plan, started, tell)
                self.adopt(child)
        except Exception:
            self.abandon(child)
            raise

    def on_company(self, child: Child, companion: Companion) -> None:
        """The parent's half of the start is through."""
        self.unwatch(companion.pidfd)
        message = companion.outcome()
        child.companion = None
        if message["message"] == "DONE":
            self.adopt(child)
            return
        self.abandon(child)
        step, number, text = (message[name] for name in ("step", "number", "text"))
        self.send("FAILED", id=child.identity, code=125, step=step, number=number, text=text)

    def abandon(self, child: Child) -> None:
        """Nothing is left of it."""
        del self.children[child.identity]
        container.abandon(child.started)

    def execute(self, message: Message, descriptors: list[int]) -> None:
        joining = Joining(message, descriptors)
        self.children[joining.child.identity] = joining.child
        self.watch(joining.pidfd, lambda _at: self.on_joined(joining))

    def on_joined(self, joining: Joining) -> None:
        """The go-between is through."""
        self.unwatch(joining.pidfd)
        try:
            joining.finish()
            self.adopt(joining.child)
        except StepFailed as failure:
            del self.children[joining.child.identity]
            self.fail(joining.child.identity, failure)

    def proceed(self, message: Message) -> None:
        child = self.children.get(str(message["id"]))
        if child is not None:
            child.started.tell("EXEC_NOW")

    # A detached instance

    def keep(self, message: Message, descriptors: list[int]) -> None:
        """From now on the instance survives the client: its first process is a pidfd, its network what follows.

        Told again, it is to be kept with what is said then: a network that was made anew.
        """
        from lab.runtime.spawner.detached import DetachedInstance  # few have any use for it

        if self.detached is not None:
            self.unwatch(self.detached.first)
            self.detached.close()
        locks = message["locks"]
        assert isinstance(locks, list)
        self.detached = DetachedInstance(
            str(message["id"]),
            descriptors[0],
            descriptors[1:],
            locks=[str(path) for path in locks],
            socket_path=str(message["socket_path"]),
            exit_path=str(message["exit_path"]),
        )
        self.watch(self.detached.first, self.on_kept_end)

    def lose_client(self) -> None:
        """End, or wait for a new client; a command that ran for the old one has lost whoever wanted its result."""
        self.unwatch(self.client.fileno())
        self.client.close()
        self.abandoned = True
        self.bearer.close()
        if self.detached is None or self.detached.exit is not None:
            self.finished = True
            return
        for child in self.children.values():
            if child.identity != self.detached.identity:
                child.kill()
        self.watch(self.detached.listener.fileno(), self.on_client)

    def on_client(self, _at: float) -> None:
        """A new supervisor: it gets the network, and on CLAIM the child."""
        assert self.detached is not None
        self.unwatch(self.detached.listener.fileno())
        end, _ = self.detached.listener.accept()
        self.client = Channel(end)
        self.client.allow_large_messages()
        self.abandoned = False
        self.watch(self.client.fileno(), self.on_request)
        self.send("READY", id="", pid=os.getpid(), descriptors=self.detached.held)

    def claim(self, identity: str) -> None:
        """Tell a new client of a child what the old one was told."""
        child = self.children.get(identity)
        if child is not None:
            started = child.started
            self.tell(child, "EXECUTED", descriptors=[started.pidfd], pid=started.pid, stamps=started.stamps)
        elif self.detached is not None and self.detached.identity == identity and self.detached.exit is not None:
            self.send("EXITED", id=identity, code=self.detached.exit["code"])
        else:
            self.send("FAILED", id=identity, step="claim", number=0, text="no such child", code=125)

    def on_kept_end(self, _at: float) -> None:
        """The instance has ended. A child's exit code `on_exit` knows, and nobody that of another's child."""
        assert self.detached is not None
        self.unwatch(self.detached.first)
        if self.detached.identity not in self.children:
            self.detached.ended(None)
            self.finished = self.abandoned

    # What children do

    def adopt(self, child: Child) -> None:
        self.children[child.identity] = child
        started = child.started
        self.watch(started.channel.fileno(), lambda at: self.on_channel(child, at))
        self.watch(started.status, lambda at: self.on_status(child, at))
        self.watch(started.pidfd, lambda at: self.on_exit(child, at))

    def on_channel(self, child: Child, at: float) -> None:
        """ISOLATED, EXECUTING or FAILED; the end of file is execve, of lab's helper or of the application."""
        started = child.started
        try:
            message, _ = started.channel.receive()
        except BadMessage as error:  # a child of ours that is out of its mind
            child.failure = {"step": "message", "number": 0, "text": f"{error}"}
            started.kill()
            return
        except ChannelClosed:
            self.unwatch(started.channel.fileno())
            if child.executing and child.failure is None:
                started.stamps["criu" if child.pid_file else "init"] = at
                if not child.init and not child.pid_file:
                    self.on_executed(child, at)
            return
        if message["message"] == "FAILED":
            child.failure = message
        elif message["message"] == "UNFIT":
            child.unfit = True
        elif message["message"] == "EXECUTING":
            child.executing = True
        elif message["message"] == "STEP":
            self.tell(child, "STEP", taken=message["taken"])
        else:
            started.stamps["isolated"] = at
            if child.hold:
                self.tell(child, "ISOLATED", descriptors=[started.pidfd], pid=started.pid, stamps=started.stamps)

    def on_status(self, child: Child, at: float) -> None:
        """lab's helper writes an errno if it can't execute the application; the end of file means it has."""
        text = os.read(child.started.status, 64)
        child.status_text = (child.status_text + text)[:MOST_STATUS_BYTES]
        if text:
            return
        self.unwatch(child.started.status)
        # The channel closed before, at the helper's execve; but poll may report both at once, messages and all.
        channel = child.started.channel.fileno()
        while channel in self.handlers and readable(channel):
            self.on_channel(child, at)
        if child.status_text:
            child.failure = child.not_executed()
        elif child.init and child.failure is None and "init" in child.started.stamps:
            self.on_executed(child, at)

    def on_executed(self, child: Child, at: float) -> None:
        if not child.executed:
            child.executed = True
            child.let_go()
            started = child.started
            started.stamps["executed"] = at
            self.tell(child, "EXECUTED", descriptors=[started.pidfd], pid=started.pid, stamps=started.stamps)

    def on_exit(self, child: Child, at: float) -> None:
        """Whatever it still said is heard first; then the one EXITED or FAILED that ends its story."""
        started = child.started
        for descriptor in (started.channel.fileno(), started.status):
            while descriptor in self.handlers and readable(descriptor):
                self.handlers[descriptor](at)
        for descriptor in (started.channel.fileno(), started.status, started.pidfd):
            self.unwatch(descriptor)
        _, status = os.waitpid(started.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if child.unfit:
            self.start_anew(child)
            return
        child.let_go()
        if child.pid_file and child.failure is None:
            complaint = f"criu ended with {code}"
            try:
                if code == 0:
                    self.on_restored(child, at)
                    return
            except (OSError, ValueError) as error:
                complaint = f"what it restored can't be found: {error}"
            child.failure = {"step": Instead.CRIU, "number": 0, "text": complaint}
            code = 125
        del self.children[child.identity]
        self.end_orphans(child)
        code = 128 - code if code < 0 else code
        if self.detached is not None and self.detached.identity == child.identity:
            self.detached.ended(code)
            self.finished = self.abandoned
        if child.failure is not None:
            step, number, text = (child.failure[name] for name in ("step", "number", "text"))
            self.tell(child, "FAILED", code=code, step=step, number=number, text=text)
        elif not child.executed:
            self.tell(child, "FAILED", code=125, step="start", number=0, text=f"killed, exit code {code}")
        else:
            self.tell(child, "EXITED", code=code, at=at)
        started.close()

    def end_orphans(self, child: Child) -> None:
        """Of an ordinary user's last instance: what its end has left to this process, and no control group holds."""
        if child.plan is not None and not any(one.plan for one in self.children.values()):
            descent.end_orphans({self.bearer.pid, *(one.started.pid for one in self.children.values())})

    def start_anew(self, child: Child) -> None:
        """Its script did not work out. Whatever the reason was, it will be told by the way that tells reasons."""
        sys.stderr.write(f"the script for {child.identity} failed\n")
        sys.stderr.flush()
        del self.children[child.identity]
        child.started.close()
        assert child.plan is not None
        try:
            self.start(child.identity, child.plan, child.kept)
        except StepFailed as failure:
            self.fail(child.identity, failure)
        finally:
            child.let_go()

    def on_restored(self, child: Child, at: float) -> None:
        """criu has ended well; the first of those that it restored is our child now, and may have ended as well."""
        started = child.started
        with open(child.pid_file) as file:
            started.pid = int(file.read())
        child.pid_file = ""
        os.close(started.pidfd)
        started.pidfd = os.pidfd_open(started.pid)
        child.executed = True
        if child.explain:
            began = started.stamps.pop("criu", at)
            taken = {"side": "criu", "step": Instead.CRIU, "began": began, "ended": at, "parts": []}
            self.tell(child, "STEP", taken=taken)
        started.stamps["restored"] = at
        self.tell(child, "RESTORED", descriptors=[started.pidfd], pid=started.pid, stamps=started.stamps)
        self.watch(started.pidfd, lambda at: self.on_exit(child, at))

    def teller(self, identity: str) -> Tell:
        """Tells the client of each step of this half of a start."""
        return lambda taken: self.send("STEP", id=identity, taken={"side": "launcher"} | taken)

    def fail(self, identity: str, failure: StepFailed) -> None:
        self.send("FAILED", id=identity, code=125, step=failure.step, number=failure.number, text=failure.text)

    def tell(self, child: Child, name: str, *, descriptors: Sequence[int] = (), **fields: object) -> None:
        self.send(name, id=child.identity, descriptors=descriptors, **fields)

    def send(self, name: str, *, descriptors: Sequence[int] = (), **fields: object) -> None:
        """To the client, if there is one; that it has just died the event loop will see."""
        if not self.abandoned:
            with suppress(ChannelClosed):
                self.client.send(name, descriptors=descriptors, **fields)


def main(descriptor: int, session: str, scratch: str, command: list[str]) -> None:
    """Serve the client at ``descriptor`` until it is gone, then clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):  # the client unwinds, not we
        signal.signal(number, signal.SIG_IGN)
    client = Channel.inherited(descriptor)
    os.set_inheritable(descriptor, False)
    for first, last in ((3, descriptor - 1), (descriptor + 1, 0xFFFFFFFF)):  # `lab.runtime.readonly` left its own
        if first <= last:
            syscalls.close_range(first, last)
    spawner = Spawner(client)
    gc.collect()
    gc.freeze()
    gc.disable()
    client.send("READY", id="")
    with descent.Gathering():
        spawner.serve()
    from lab.runtime.spawner import cleanup  # what it imports, every fork would copy

    cleanup.clean_up(spawner.children.values(), session, scratch, command)


def command() -> None:
    """The command line that `lab.runtime.launcher.launcher` starts: descriptor, session, scratch folder, clean-up
    command.
    """
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
