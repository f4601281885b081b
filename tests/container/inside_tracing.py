"""A kernel's functions traced for real. Not collected by itself: tests/vm/test_cgroup_v2.py runs it in a guest.

The same application with and without a boundary: whoever puts a container up enters functions that nobody else does,
the filter is entered at each call of what is behind it, and the rest is alike.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.host.clock import Timeline, now
from lab.host.kernel import tracefs
from lab.host.session.ledger import Session
from lab.host.tracing.recording import Tracing
from lab.model import Process
from lab.runtime import bundle
from lab.runtime.launcher.launcher import Launcher, Overlay, Spec
from lab.studies.surface.lineage import Side
from lab.studies.surface.tracing import Counts, Observer, TooSlow, own_threads, threads_of

APPLICATION = "echo up; read word; cat /proc/self/stat >/dev/null; echo $word; read word"
SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One run of the application: its start and its work."""

    start: Counts
    work: Counts


class Pipes:
    """What the application reads, and what it says: to a terminal, which a thread of the kernel's hands on.

    So a word has arrived only when flush_to_ldisc() of drivers/tty/tty_buffer.c has run, whatever else is going on.
    """

    def __init__(self) -> None:
        self.stdin, self._feed = os.pipe()
        self._told, self.stdout = os.openpty()

    def say(self, word: str) -> None:
        os.write(self._feed, f"{word}\n".encode())

    def expect(self, word: str) -> None:
        told = b""
        while not told.endswith(b"\n"):
            told += os.read(self._told, 100)
        assert told.decode().strip() == word

    def close(self) -> None:
        for descriptor in (self.stdin, self._feed, self._told, self.stdout):
            os.close(descriptor)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def observer(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observer]:
    with Tracing.make(session) as tracing:
        yield Observer(tracing, tmp_path_factory.mktemp("spool"))
    assert not tracefs.exists(tracing.name)


@contextmanager
def piped() -> Iterator[Pipes]:
    pipes = Pipes()
    try:
        yield pipes
    finally:
        pipes.close()


def observe(observer: Observer, pipes: Pipes, begin: Callable[[], Callable[[], set[int]]]) -> Seen:
    """``begin`` starts the application; what it returns says which processes it has."""
    with observer.window(own_threads()) as window:
        began = now()
        members = begin()
        pipes.expect("up")
        ended, processes = now(), members()
    start = window.start(processes, "sh", (began, ended))
    with observer.window(threads_of(processes)) as window:
        pipes.say("done")
        pipes.expect("done")
    return Seen(start=start, work=window.steady())


def test_functions_show_what_a_boundary_is(
    observer: Observer, launcher: Launcher, busybox_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert observer.why_no_functions == ""
    with observer.window(own_threads()) as window:
        time.sleep(0.1)
    idle = window.steady().functions[Side.KERNEL]
    with piped() as pipes, ExitStack() as stack:

        def bare() -> Callable[[], set[int]]:
            process = subprocess.Popen(
                ["sh", "-c", APPLICATION], stdin=pipes.stdin, stdout=pipes.stdout, cwd="/", env={"PATH": "/bin"}
            )
            stack.callback(process.wait)
            stack.callback(pipes.say, "end")
            return lambda: {process.pid}

        alone = observe(observer, pipes, bare)
    with piped() as pipes, ExitStack() as stack:

        def contained() -> Callable[[], set[int]]:
            config = bundle.container_config(Process(argv=("sh", "-c", APPLICATION)), None)
            spec = Spec(name="traced", config=config, root=Overlay(lower=(busybox_root,)))
            stdio = {"stdin": pipes.stdin, "stdout": pipes.stdout, "stderr": pipes.stdout}
            container = stack.enter_context(launcher.launch(spec, **stdio, timeline=Timeline()))
            return container.cgroup.processes

        behind = observe(observer, pipes, contained)

    with capsys.disabled():
        for name, seen in (("bare", alone), ("contained", behind)):
            for state, counts in (("start", seen.start), ("work", seen.work)):
                sizes = {str(side): len(names) for side, names in counts.functions.items()}
                calls = {str(side): sum(made.values()) for side, made in counts.calls.items()}
                print(f"\nfunctions, {name}, {state}: {sizes}; calls {calls}; lost {counts.lost}")  # noqa: T201

    assert [each.lost for seen in (alone, behind) for each in (seen.start, seen.work)] == [0] * 4
    walls = behind.start.functions[Side.SETUP]
    assert {"__x64_sys_pivot_root", "path_mount", "create_new_namespaces"} <= walls
    assert not {"__x64_sys_pivot_root", "path_mount", "create_new_namespaces"} & behind.work.functions[Side.INSTANCE]
    assert "create_new_namespaces" not in alone.start.functions[Side.SETUP]
    for seen in (alone, behind):
        assert {"__x64_sys_read", "vfs_read", "vfs_write"} <= seen.work.functions[Side.INSTANCE]
        assert "flush_to_ldisc" in seen.work.functions[Side.KERNEL] - idle, "somebody else's doing on its behalf"
    filtered = behind.work.functions[Side.INSTANCE] - alone.work.functions[Side.INSTANCE]
    assert "__seccomp_filter" in filtered
    # the filter and the cgroups are passed on the way; what is asked of the kernel is the same, save that the shell
    # may wait for the word already when its start ends, or only then
    asked, alike = (
        {call: made for call, made in seen.work.calls[Side.INSTANCE].items() if call != "poll"}
        for seen in (behind, alone)
    )
    assert asked == alike


def test_functions_that_take_too_long_are_cut_and_given_up(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last here: the observer has none afterwards."""
    monkeypatch.setattr(observer, "_function_seconds", 0.2)
    with pytest.raises(TooSlow), observer.window(own_threads()):
        time.sleep(2)

    def fail() -> None:
        time.sleep(2)
        raise LabError("refused")

    with pytest.raises(TooSlow, match="refused"), observer.window(own_threads()):
        fail()
    observer.drop_functions("they take too long")
    with observer.window(own_threads()) as window:
        os.getppid()
    counts = window.steady()
    assert counts.functions == {}
    assert counts.calls[Side.INSTANCE]["getppid"] == 1
    assert observer.why_no_functions == "they take too long"
