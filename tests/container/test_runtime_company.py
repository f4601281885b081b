"""One launcher has many containers: what one of them waits for, or does wrong, the others don't notice."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from host_state import descendants, told_of, wait_until
from roots import open_folder
from running import Start

from lab.errors import LabError, LaunchError
from lab.host.cgroup.delegation import group_of
from lab.host.clock import Timeline
from lab.model import Limits, Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.cgroup.instances import limited
from lab.runtime.launcher import execs
from lab.runtime.launcher import handle as handle_module
from lab.runtime.launcher.handle import Handle
from lab.runtime.launcher.launcher import Container, Launcher, Overlay, Spec
from lab.runtime.launcher.spec import plan_of
from lab.runtime.plan import Plan
from lab.runtime.rootfs import layers


@pytest.fixture
def plan(launcher: Launcher, busybox_root: Path, tmp_path: Path) -> Iterator[Plan]:
    """A container's, for the small process itself: `Launcher` refuses hooks for lab's own instances."""
    config = bundle.container_config(Process(argv=("true",)))
    spec = Spec(name=uuid.uuid4().hex[:8], config=config, root=Overlay(lower=(busybox_root,)), init=False)
    with ExitStack() as undo:
        cgroup = limited(group_of(launcher.session, spec.name), Limits())
        undo.callback(cgroup.remove, keep_parents=True)
        root = layers.prepare(spec.root, spec.name, config.mounts, launcher.scratch, undo)
        yield plan_of(spec, config, root, cgroup)


@contextmanager
def launched(launcher: Launcher, plan: Plan) -> Iterator[Handle]:
    handle = launcher.register(plan.name, Timeline())
    null = os.open(os.devnull, os.O_RDWR)
    try:
        launcher.send("LAUNCH", id=plan.name, plan=plan.to_json(), descriptors=[null] * 3)
        yield handle
    finally:
        os.close(null)
        launcher.forget(handle)


def with_hook(plan: Plan, *words: str) -> Plan:
    return replace(plan, hooks={"createRuntime": [{"path": words[0], "args": list(words)}]})


def test_a_slow_hook_keeps_nobody_waiting(launcher: Launcher, plan: Plan, start: Start, tmp_path: Path) -> None:
    """The other is started and ended while the hook still runs; and then that one is started as well."""
    os.mkfifo(tmp_path / "go-on")
    hook = ("/bin/sh", "-c", f"read word < {tmp_path}/go-on")
    with launched(launcher, with_hook(plan, *hook)) as slow:
        container, output = start("echo other")
        assert container.wait(120) == 0
        assert not slow.executed
        container.close()
        assert output.text() == "other\n"
        (tmp_path / "go-on").write_text("now\n")
        slow.wait_started(isolated_is_enough=False)
        assert slow.wait(120) == 0


def test_a_hook_that_fails_is_told_and_nothing_is_left(launcher: Launcher, plan: Plan, start: Start) -> None:
    before = settled(launcher, start)
    failed = pytest.raises(LaunchError, match="createRuntime hook /bin/false: exit code 1")
    with launched(launcher, with_hook(plan, "/bin/false")) as handle, failed:
        handle.wait_started(isolated_is_enough=False)
    assert children(launcher) == before, "the child, or its companion"


def test_a_hook_keeps_the_small_process_from_nothing(plan: Plan, busybox_root: Path) -> None:
    """When its client has gone it ends, whoever has copies of its descriptors."""
    config = bundle.container_config(Process(argv=("true",)))
    null = os.open(os.devnull, os.O_RDWR)
    with open_folder() as folder, Launcher.start(uuid.uuid4().hex[:8], folder / "own") as own:
        with own.launch(
            Spec(name="one", config=config, root=Overlay(lower=(busybox_root,))), stdout=null, stderr=null
        ) as container:
            container.wait(120)
        bearer = children(own)
        assert bearer
        with launched(own, with_hook(plan, "/bin/sleep", "600")):
            assert wait_until(lambda: hooks_of(own), 60)
            (hook,) = hooks_of(own)
            own._channel.hang_up()
            assert own._process.wait(120) is not None
            os.kill(hook, signal.SIGKILL)
    os.close(null)


def test_a_container_that_lets_nobody_in_keeps_no_other_waiting(start: Start) -> None:
    """A command joins it as fast as its groups let it: those stand still, as without a processor they nearly do."""
    shut, _ = start("sleep 1000")
    other, _ = start("sleep 1000")
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(shut.execute(["echo", "in"], timeout_seconds=120).stdout))
    shut.cgroup.group.freeze()
    try:
        thread.start()
        assert wait_until(lambda: len(shut.cgroup.processes()) > 2, 60), "the command is on its way"
        assert other.execute(["echo", "other"], timeout_seconds=20).stdout == b"other\n"
        other.kill()
        assert other.wait(20) == 128 + signal.SIGKILL
        assert not found
    finally:
        shut.cgroup.group.thaw()
        thread.join(120)
    assert found == [b"in\n"]


def test_a_command_that_came_in_too_late_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle_module, "START_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(execs, "END_TIMEOUT_SECONDS", 0.1)
    shut, _ = start("sleep 1000")
    before = shut.cgroup.processes()
    shut.cgroup.group.freeze()
    try:
        with pytest.raises(LaunchError, match="did not start"):
            shut.execute(["sleep", "1000"])
        assert shut.cgroup.processes() != before
    finally:
        shut.cgroup.group.thaw()
    assert wait_until(lambda: shut.cgroup.processes() == before, 60)
    monkeypatch.undo()
    assert shut.execute(["echo", "in"]).stdout == b"in\n"


def test_a_command_that_comes_in_outlives_no_session(busybox_root: Path) -> None:
    config = bundle.container_config(Process(argv=("sleep", "1000")))
    spec = Spec(name="shut", config=config, root=Overlay(lower=(busybox_root,)))
    null = os.open(os.devnull, os.O_RDWR)
    with open_folder() as folder, Launcher.start(uuid.uuid4().hex[:8], folder / "own") as own:
        shut = own.launch(spec, stdout=null, stderr=null)
        shut.cgroup.group.freeze()
        thread = threading.Thread(target=_refused, args=(shut,))
        thread.start()
        assert wait_until(lambda: len(shut.cgroup.processes()) > 2, 60), "the command is on its way"
        left = descendants(own.pid)
        own._channel.hang_up()
        time.sleep(0.3)
        with suppress(LabError, OSError):  # older kernels let nothing frozen die; on others it is gone by now
            shut.cgroup.group.thaw()
        assert own._process.wait(120) is not None
        thread.join(120)
        assert wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in left), 60)
        own._containers.clear()  # the small process has removed its folder
    os.close(null)


def _refused(container: Container) -> None:
    with suppress(LabError):
        container.execute(["sleep", "1000"])


def hooks_of(launcher: Launcher) -> list[int]:
    told = told_of(descendants(launcher.pid), "cmdline")
    return [pid for pid, words in told.items() if words.startswith("/bin/sleep")]


def settled(launcher: Launcher, start: Start) -> str:
    """Its children when it has no container: the process that bears them."""
    container, _ = start("true")
    container.wait(120)
    container.close()
    return children(launcher)


def children(launcher: Launcher) -> str:
    return Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()


BAD = {
    "too long": b'{"message": "LAUNCH", "id": "x", "plan": "' + b"x" * (1 << 20) + b'"}',
    "no JSON": b"{",
    "no plan": b'{"message": "LAUNCH", "id": "x", "plan": {}}',
    "no request": b'{"message": "LAUNCH"}',
    "no descriptors": b'{"message": "EXECUTE", "id": "x", "process": {}, "cgroups": {}, "namespaces": "?"}',
}


@pytest.mark.parametrize("packet", BAD.values(), ids=BAD)
def test_a_bad_message_costs_no_container(launcher: Launcher, start: Start, packet: bytes) -> None:
    container, output = start("read line; echo $line", stdin=(pipe := os.pipe())[0])
    os.close(pipe[0])
    with socket.socket(fileno=os.dup(launcher._channel.fileno())) as raw:
        raw.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)  # SO_SNDBUFFORCE
        raw.send(packet)
    os.write(pipe[1], b"lives\n")
    os.close(pipe[1])
    assert container.wait(120) == 0
    container.close()
    assert output.text() == "lives\n"


def test_a_request_that_is_too_long_is_refused_with_a_reason(start: Start) -> None:
    config = bundle.container_config(Process(argv=("true",), environment={"A": "x" * (1 << 20)}))
    with pytest.raises(LaunchError, match="too much for one instance"):
        start(config=config)
    container, _ = start("true")
    assert container.wait(120) == 0


def test_where_no_descriptor_is_left_no_child_is(launcher: Launcher, start: Start) -> None:
    """A pidfd that can't be had is told before there is a child (CLONE_PIDFD)."""
    borne_by = settled(launcher, start)
    before = resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE)
    opened = len(list(Path(f"/proc/{launcher.pid}/fd").iterdir()))
    try:
        for more in range(4, 14):
            resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, (opened + more, before[1]))
            try:
                container, _ = start("true")
            except LaunchError:
                continue
            container.wait(120)
            container.close()
    finally:
        resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, before)
    deadline = time.monotonic() + 60
    while children(launcher) != borne_by and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert children(launcher) == borne_by
    container, _ = start("true")
    assert container.wait(120) == 0
