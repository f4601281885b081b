"""Exit codes, signals, commands beside, limits that bite."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running import Run, Start

from lab.errors import LabError, LaunchError
from lab.model import Limits, Phase, Process
from lab.runtime import bundle
from lab.runtime.config import capabilities

MIB = 1 << 20


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_codes(either: Run, script: str, code: int) -> None:
    # runc's own PID 1 is the shell itself, which can't be killed from inside its namespace.
    assert either(f"sh -c '{script}'; exit $?").exit_code == code


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/tmp", 126), ("/nowhere/x", 127)])
def test_a_program_that_can_not_be_executed(start: Start, program: str, code: int, init: bool) -> None:
    with pytest.raises(LaunchError) as caught:
        start(argv=(program,), init=init)
    assert caught.value.exit_code == code


def test_phases_are_stamped_in_order(run: Run) -> None:
    stamps = run("true").stamps
    order = [Phase.REQUESTED, Phase.ISOLATED, Phase.INIT, Phase.EXECUTED]
    assert [phase for phase, _ in sorted(stamps.items(), key=lambda item: item[1])] == order


def test_signals_reach_the_application(start: Start) -> None:
    container, output = start("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    wait_for_process(container.cgroup.processes, 3)
    container.signal(signal.SIGTERM)
    assert container.wait(120) == 7
    container.close()
    assert "caught" in output.text()


def test_orphans_are_reaped(start: Start) -> None:
    container, _ = start("(sleep 0.05 & ); (sh -c 'sleep 0.05 &' ); sleep 30")
    wait_for_process(container.cgroup.processes, 2)
    deadline = time.monotonic() + 60
    while True:
        states = container.execute(["sh", "-c", "cat /proc/[0-9]*/stat | cut -d' ' -f3"]).stdout.split()
        if b"Z" not in states or time.monotonic() > deadline:
            break
    assert b"Z" not in states


def test_hold_stops_before_the_application(start: Start) -> None:
    container, output = start("echo ran", hold=True)
    assert container.timeline.at(Phase.ISOLATED)
    assert container.timeline.at(Phase.EXECUTED) is None
    assert container.wait(0.05) is None
    container.proceed()
    assert container.wait(120) == 0
    assert output.text() == "ran\n"


def test_many_at_once(run: Run) -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda number: run(f"exit {number}").exit_code, range(24)))
    assert codes == list(range(24))


def test_closing_is_idempotent_and_removes_everything(start: Start, launcher: object) -> None:
    container, _ = start("sleep 100 & sleep 100")
    assert container.cgroup.exists()
    container.close()
    container.close()
    assert not container.cgroup.exists()
    assert not Path(f"/proc/{container.pid}").exists()


# Commands beside


def test_execute_is_behind_the_same_boundary(start: Start) -> None:
    config = bundle.container_config(Process(argv=("sleep", "1000")), Limits(pids=50), hostname="inside")
    container, _ = start(config=config)
    done = container.execute(
        ["sh", "-c", "hostname; cat; readlink /proc/1/ns/pid; readlink /proc/self/ns/pid; cat /proc/self/status"],
        stdin=b"in\n",
    )
    lines = done.stdout.decode().splitlines()
    assert done.exit_code == 0
    assert lines[:2] == ["inside", "in"]
    assert lines[2] == lines[3], "another pid namespace than its first process's"
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(fields["CapEff"], 16) == capabilities.mask(capabilities.DOCKER_DEFAULT)
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_execute_as_another_user_and_its_exit_code(start: Start) -> None:
    container, _ = start("sleep 100")
    done = container.execute(["sh", "-c", "id -u; echo no >&2; exit 9"], uid=1000, gid=1000)
    assert (done.exit_code, done.stdout, done.stderr) == (9, b"1000\n", b"no\n")


def test_execute_of_much_data(start: Start) -> None:
    container, _ = start("sleep 100")
    block = b"0123456789abcdef" * 65536
    assert container.execute(["cat"], stdin=block).stdout == block


def test_execute_kills_on_timeout(start: Start) -> None:
    container, _ = start("sleep 100")
    before = container.cgroup.processes()
    with pytest.raises(LabError, match="did not end within"):
        container.execute(["sleep", "500"], timeout_seconds=0.2)
    deadline = time.monotonic() + 60
    while container.cgroup.processes() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert container.cgroup.processes() == before
    assert container.execute(["echo", "still here"]).stdout == b"still here\n"


def test_execute_does_not_wait_for_a_daemon_that_holds_the_pipes(start: Start) -> None:
    container, _ = start("sleep 100")
    began = time.monotonic()
    assert container.execute(["sh", "-c", "sleep 600 & echo gone"]).stdout == b"gone\n"
    assert time.monotonic() - began < 300  # half of what the daemon takes


def test_execute_of_a_missing_program(start: Start) -> None:
    container, _ = start("sleep 100")
    with pytest.raises(LaunchError) as caught:
        container.execute(["no-such-program"])
    assert caught.value.exit_code == 127


def test_execute_in_the_control(start: Start) -> None:
    container, _ = start(config=bundle.process_config(Process(argv=("sleep", "1000"))))
    assert container.execute(["ls", "/"]).stdout.split()[:2] == [b"bin", b"dev"]


# Limits


def test_limits_are_held_by_the_kernel(start: Start) -> None:
    limits = Limits(memory_bytes=64 * MIB, cpus=0.5, pids=20)
    container, _ = start("sleep 100", limits=limits)
    assert container.cgroup.effective_limits() == limits


def test_memory_beyond_the_limit_is_killed(either: Run) -> None:
    ran = either(
        "head -c 200m /dev/zero | tail | wc -c; sh -c 'exec tail /dev/zero'", limits=Limits(memory_bytes=32 * MIB)
    )
    assert ran.exit_code == 137


def test_processes_beyond_the_limit_are_refused(either: Run) -> None:
    ran = either("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo never; wait", limits=Limits(pids=8))
    assert ran.exit_code != 0
    assert "fork" in ran.output


def test_a_cpu_quota_throttles(start: Start) -> None:
    began = time.monotonic()
    container, _ = start("while :; do :; done", limits=Limits(cpus=0.2))
    deadline = began + 60
    while container.cgroup.cpu().throttled_periods < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    used = container.cgroup.cpu()
    assert used.throttled_periods >= 3
    assert used.throttled_seconds > 0
    assert used.total_seconds < 0.2 * (time.monotonic() - began) + 0.1, "one period more than its share at most"


def test_memory_is_charged_to_the_container(start: Start) -> None:
    container, _ = start("dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; echo done; sleep 100")
    deadline = time.monotonic() + 60
    while container.cgroup.memory().file_bytes < 20 * MIB and time.monotonic() < deadline:
        time.sleep(0.01)
    usage = container.cgroup.memory()
    assert 20 * MIB <= usage.file_bytes < 30 * MIB
    assert usage.usage_bytes >= usage.file_bytes


def wait_for_process(processes: object, count: int) -> None:
    assert callable(processes)
    deadline = time.monotonic() + 60
    while len(processes()) < count and time.monotonic() < deadline:
        time.sleep(0.005)
