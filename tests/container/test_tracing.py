"""Trace events of lab's own: every call of a workload known by construction is counted, and nothing is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host_state import assert_unchanged, mountinfo, snapshot, wait_until

from lab.errors import LabError
from lab.host.kernel import tracefs
from lab.host.session import ledger
from lab.host.session.ledger import Session
from lab.host.tracing import recording
from lab.host.tracing.recording import Tracing
from lab.runtime.seccomp.compiler import native
from lab.studies.surface.lineage import Side
from lab.studies.surface.tracing import Observer, own_threads, threads_of

KNOWN = """
import os, sys, threading
def call(times):
    for _ in range(times):
        os.getppid()
sys.stdin.readline()
call(1000)
thread = threading.Thread(target=call, args=(200,))
thread.start()
thread.join()
child = os.fork()
if child == 0:
    call(30)
    os._exit(0)
os.waitpid(child, 0)
os.execv(sys.executable, [sys.executable, "-S", "-c", "import os; [os.getppid() for _ in range(4)]"])
"""
DIES = """
import os, sys, tempfile, time
from lab.host.session.ledger import Session
from lab.host.tracing.recording import Tracing
with Session.open() as session, Tracing.make(session) as tracing, tempfile.TemporaryFile() as spool:
    with tracing.record(["raw_syscalls/sys_enter"], [os.getpid()], spool):
        print(session.id, flush=True)
        while True:
            time.sleep(0.01)
"""


@pytest.fixture
def session() -> Iterator[Session]:
    before, mounts = snapshot(), mountinfo()
    with Session.open() as opened:
        yield opened
    assert mountinfo() == mounts
    assert not tracefs.exists(f"lab-{opened.id}")
    assert_unchanged(before)


@pytest.fixture
def observer(session: Session, tmp_path: Path, missing: Callable[[str], None]) -> Iterator[Observer]:
    try:
        made = Tracing.make(session)
    except LabError as error:
        missing(f"trace events ({error.message})")
        raise
    with made:
        yield Observer(made, tmp_path, functions=False)


def known() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", KNOWN], stdin=subprocess.PIPE)


def test_every_call_is_counted_those_of_threads_children_and_later_programs_too(observer: Observer) -> None:
    process = known()
    with observer.window(threads_of([process.pid])) as window:
        process.communicate(b"go\n", timeout=250)
    counts = window.steady()
    assert counts.lost == 0
    assert set(counts.calls) == {Side.INSTANCE}, "nobody else was traced"
    calls = counts.calls[Side.INSTANCE]
    assert calls["getppid"] == 1000 + 200 + 30 + 4
    assert calls["execve"] == 1
    assert calls["wait4"] == 1


def test_who_does_nothing_makes_no_call(observer: Observer) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        asleep = Path(f"/proc/{process.pid}/syscall")  # proc_pid_syscall(5): the call in which it waits
        number = str(native()["clock_nanosleep"])
        assert wait_until(lambda: asleep.read_text().split()[0] == number)
        with observer.window(threads_of([process.pid])) as window:
            time.sleep(0.2)
        process.kill()
    assert window.steady().calls == {}


def test_what_found_no_place_in_the_trace_is_counted(observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads until the end, and the buffer is small."""
    drain = recording._Reader._drain

    def later(reader: recording._Reader) -> None:
        if select.select([reader._stop], [], [], 1)[0]:
            drain(reader)

    monkeypatch.setattr(recording._Reader, "_drain", later)
    monkeypatch.setattr(recording, "BUFFER_KIB", 16)
    process = known()
    with observer.window(threads_of([process.pid])) as window:
        process.communicate(b"go\n", timeout=250)
    counts = window.steady()
    # a thread whose birth found no place is nobody's that is known
    counted = sum(made.get("getppid", 0) for made in counts.calls.values())
    assert counts.lost > 0
    assert counted < 1234 <= counted + counts.lost


def test_a_start_without_an_instance_is_no_start(observer: Observer) -> None:
    with observer.window(own_threads()) as window:
        subprocess.run(["true"], check=True)
    with pytest.raises(LabError, match="no execve"):
        window.start({1}, "nothing", None, (0.0, 1.0))
    with pytest.raises(LabError, match="nobody to trace"), observer.window(()):
        pass


@pytest.mark.alone
def test_killed_it_stops_at_once_and_the_next_lab_removes_it(session: Session, observer: Observer) -> None:
    process = subprocess.Popen([sys.executable, "-c", DIES], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    other = process.stdout.readline().strip()
    assert tracefs.exists(f"lab-{other}")
    process.send_signal(signal.SIGKILL)
    process.wait()
    root = tracefs.open_root()
    try:
        left = Path(f"/proc/self/fd/{root}/instances/lab-{other}")
        assert wait_until(lambda: (left / "tracing_on").read_text().strip() == "0"), "the kernel stopped it"
        removed, errors = ledger.clean_session(ledger.runtime_root() / other)
        assert errors == []
        assert f"session {other}: trace lab-{other}" in removed
        assert not left.exists()
    finally:
        os.close(root)
    process.stdout.close()


def test_a_ledger_removes_no_trace_but_its_own(session: Session) -> None:
    with pytest.raises(LabError, match="not a trace of this session"):
        ledger._refuse_foreign(session.directory, ledger.Resource(kind=ledger.ResourceKind.TRACE, name="of-the-host"))
