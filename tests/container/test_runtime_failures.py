"""Whatever fails, and whoever dies: nothing of lab's is left on the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from host_state import assert_unchanged, snapshot
from running import Run, Start

from lab.errors import LabError, LaunchError, LimitError, UsageError
from lab.host.cgroup.delegation import group_of
from lab.host.cgroup.hierarchy import host_hierarchies
from lab.model import Limits, Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Hook, Hooks
from lab.runtime.launcher.launcher import Launcher, Overlay, Spec
from lab.runtime.plan import Step


def session_groups(session: str) -> list[Path]:
    path = group_of(session)
    return [mount / path for mount in host_hierarchies().joined() if (mount / path).exists()]


def layers(launcher: Launcher) -> list[str]:
    folder = launcher.scratch / "layers"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


OF_OCI = (Step.HOOKS, Step.CONSOLE, Step.START_HOOKS)  # of bundles alone: see test_runtime_oci_console


@pytest.mark.parametrize("step", [step for step in Step if step not in OF_OCI])
def test_a_failure_at_any_step_leaves_nothing(start: Start, run: Run, launcher: Launcher, step: Step) -> None:
    assert run("true").exit_code == 0
    before = snapshot()
    descriptors = open_descriptors(os.getpid()), open_descriptors(launcher.pid)
    with pytest.raises(LaunchError, match=f"{step}: .*injected") as caught:
        start("true", fail_at=step, config=bundle.container_config(Process(argv=("true",)), Limits(pids=9)))
    assert caught.value.exit_code in (125, 126)
    assert_unchanged(before)
    assert layers(launcher) == []
    assert wait_until(lambda: (open_descriptors(os.getpid()), open_descriptors(launcher.pid)) == descriptors)
    assert run("exit 4").exit_code == 4, "the launcher is still good"


def test_a_missing_layer(start: Start, launcher: Launcher, tmp_path: Path) -> None:
    before = snapshot()
    with pytest.raises(LaunchError, match=r"mount the root: .*No such file"):
        start("true", root=Overlay(lower=(tmp_path / "missing",)))
    assert_unchanged(before)
    assert layers(launcher) == []


def test_a_limit_that_can_not_be_set(start: Start, launcher: Launcher) -> None:
    before = snapshot()
    with pytest.raises(LimitError):
        start("true", limits=Limits(cpus=0.0001))
    assert_unchanged(before)


def test_the_same_name_twice(launcher: Launcher, busybox_root: Path) -> None:
    config = bundle.container_config(Process(argv=("sleep", "1000")))
    spec = Spec(name="twin", config=config, root=Overlay(lower=(busybox_root,)))
    with launcher.launch(spec, stdout=2, stderr=2) as first:
        with pytest.raises(LabError):
            launcher.launch(spec, stdout=2, stderr=2)
        assert first.wait(0.05) is None, "the first one is none the worse"


def test_a_container_that_survives_its_commands_leaves_nothing(start: Start) -> None:
    before = snapshot()
    container, _ = start("trap '' TERM INT HUP; (trap '' TERM; setsid sleep 100 &) ; sleep 100 & wait; sleep 100")
    container.close()
    assert_unchanged(before)


def test_a_frozen_container_is_removed(start: Start) -> None:
    container, _ = start("sleep 100")
    container.cgroup.freeze()
    container.close()
    assert not container.cgroup.exists()


SCRIPT = """
import os, sys, threading, time
from pathlib import Path
from lab.model import Process
from lab.runtime import bundle
from lab.runtime.launcher.launcher import Launcher, Overlay, Spec

def words(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # the go-between of `execute`, which has ended
        return b""

session, scratch, root, witness = sys.argv[1:]
launcher = Launcher.start(session, Path(scratch), cleanup=["/bin/sh", "-c", f"echo cleaned > {witness}"])
null = os.open(os.devnull, os.O_RDWR)
containers = []
for number, make in enumerate((bundle.container_config, bundle.process_config)):
    config = make(Process(argv=("sh", "-c", "sleep 1000 & sleep 1000")))
    spec = Spec(name=f"c{number}", config=config, root=Overlay(lower=(Path(root),)))
    containers.append(launcher.launch(spec, stdout=null, stderr=null))
    # one more beside the first, whose parent is the launcher too
    beside = threading.Thread(
        target=containers[-1].execute, args=(("sleep", "999"),), kwargs={"timeout_seconds": 900}, daemon=True
    )
    beside.start()
    while not any(b"999" in words(pid) for pid in containers[-1].cgroup.processes()):
        time.sleep(0.01)
print(launcher.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("victim", ["parent", "launcher"])
def test_a_killed_process_leaves_nothing(tmp_path: Path, busybox_root: Path, victim: str) -> None:
    before = snapshot()
    session, scratch, witness = uuid.uuid4().hex[:8], tmp_path / "scratch", tmp_path / "witness"
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, session, scratch, busybox_root, witness], stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        launcher_pid = int(parent.stdout.readline())
        groups = session_groups(session)
        assert groups
        assert any((group / "c0" / "cgroup.procs").read_text() for group in groups)
        if victim == "launcher":
            os.kill(launcher_pid, signal.SIGKILL)
            # A control has no pid namespace to die with its first process; its group is the parent's to kill.
            assert wait_until(lambda: not any(processes(group / "c0") for group in groups)), (
                "it outlived the launcher"
            )
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    if victim == "parent":
        assert wait_until(witness.exists), "the clean-up command has run"
        assert wait_until(lambda: not Path(f"/proc/{launcher_pid}").exists() or zombie(launcher_pid))
        assert session_groups(session) == []
        assert not scratch.exists()
    else:
        remove_groups(session)
    assert_unchanged(before)


def test_a_terminals_interrupt_does_not_reach_the_launcher(launcher: Launcher, run: Run) -> None:
    assert os.getsid(launcher.pid) != os.getsid(0)
    os.kill(launcher.pid, signal.SIGINT)
    assert run("exit 5").exit_code == 5


@pytest.mark.alone
def test_hundred_in_a_row_do_not_get_slower(run: Run) -> None:
    seconds = []
    for _ in range(100):
        began = time.monotonic()
        assert run("true").exit_code == 0
        seconds.append(time.monotonic() - began)
    assert min(seconds[-10:]) <= 1.5 * min(seconds[:10]) + 0.005, "the quickest, which a busy host delays least"


def processes(group: Path) -> list[str]:
    found: list[str] = []
    for place, _, _ in os.walk(group):
        with suppress(OSError):  # it goes meanwhile
            found += Path(place, "cgroup.procs").read_text().split()
    return [pid for pid in found if not zombie(int(pid))]


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def remove_groups(session: str) -> None:
    from lab.host.cgroup.control import ControlGroup

    group = ControlGroup.open(group_of(session))
    group.kill()
    group.remove()


def wait_until(condition: object, seconds: float = 60.0) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_what_needs_an_oci_runtime_s_caller_is_refused(start: Start) -> None:
    config = bundle.container_config(Process(argv=("true",)))
    with pytest.raises(UsageError, match=r"process\.terminal is not for lab's own instances"):
        start(config=replace(config, process=replace(config.process, terminal=True)))
    with pytest.raises(UsageError, match="hooks is not for lab's own instances"):
        start(config=replace(config, hooks=Hooks(prestart=(Hook(path="/bin/true"),))))
