"""Whatever becomes of the process that bears containers, none is lost, started twice, or left behind."""

from __future__ import annotations

import os
import resource
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from oci import until
from roots import open_folder
from running import Output
from tracing_calls import Traced

from lab.model import Process
from lab.runtime import bundle
from lab.runtime.launcher.launcher import Launcher, Overlay, Spec
from lab.runtime.seccomp import calls

CLONE3, SENDMSG = (calls.numbers("SCMP_ARCH_X86_64")[name] for name in ("clone3", "sendmsg"))


class Site:
    """A launcher, what it says, and starts in it."""

    def __init__(self, launcher: Launcher, root: Path) -> None:
        self.launcher = launcher
        self._root = root
        self._workers = ThreadPoolExecutor(1)

    def run(self) -> str:
        """What a container says that says one word."""
        config = bundle.container_config(Process(argv=("echo", "once")))
        spec = Spec(name="one", config=config, root=Overlay(lower=(self._root,)))
        output = Output()
        try:
            container = self.launcher.launch(spec, stdout=output.descriptor, stderr=output.descriptor)
        finally:
            output.handed_over()
        with container:
            assert container.wait(120) == 0
        return output.text()

    def begin(self) -> Future[str]:
        """The same meanwhile."""
        return self._workers.submit(self.run)

    def bearer(self) -> int:
        """The one child of the launcher's when no container runs; one is begun if there is none."""
        if not self.children():
            assert self.run() == "once\n"
        (bearer,) = self.children()
        return bearer

    def children(self) -> list[int]:
        """Of the launcher, those that are not waited for included."""
        pid = self.launcher.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def log(self) -> str:
        return (self.launcher.scratch / "launcher.log").read_text()


@pytest.fixture
def site(busybox_root: Path) -> Iterator[Site]:
    with open_folder() as folder, Launcher.start(uuid.uuid4().hex[:8], folder / "own") as own:
        yield Site(own, busybox_root)


def test_killed_at_any_of_its_system_calls(site: Site) -> None:
    """Before there is a child, the start goes by the reference; then the child is the launcher's all the same."""
    ways = []
    while True:
        traced, before = Traced(site.bearer()), site.log()
        start = site.begin()
        for _ in range(2 * len(ways) + 1):  # what it does between a call's exit and the next one's entry is its own
            call = traced.go_on_to_call(start.done)
            assert call is not None, "there is one that ends the wait for its answer"
        traced.kill()
        assert start.result(120) == "once\n", ways
        if call == SENDMSG:
            break  # it had answered
        if site.children():
            assert site.children() != [traced.pid]
            continue  # it was missed before it was asked, and another one was
        ways.append("script" if site.log() == before else "reference")
    first = ways.index("script")
    assert set(ways[:first]) == {"reference"}
    assert set(ways[first:]) == {"script"}
    assert len(ways) - first > 2, "it closes what it was sent, before it answers"


def test_killed_while_nothing_starts(site: Site) -> None:
    """Nobody waits for an answer of it, and it is waited for all the same."""
    bearer = site.bearer()
    os.kill(bearer, signal.SIGKILL)
    until(lambda: site.children() == [], "the bearer is waited for")
    assert site.run() == "once\n"
    assert site.bearer() != bearer


@pytest.mark.parametrize("borne", [False, True], ids=["before it has read", "between birth and answer"])
def test_stopped_while_a_start_waits(site: Site, *, borne: bool) -> None:
    """It is missed for a second, and then ended."""
    bearer, before = site.bearer(), site.log()
    if borne:
        traced = Traced(bearer)
        start = site.begin()
        for _ in range(2):  # its entry, its exit
            while traced.go_on_to_call(start.done) != CLONE3:
                assert not start.done()
        traced.leave_stopped()
    else:
        os.kill(bearer, signal.SIGSTOP)
        start = site.begin()
    assert start.result(120) == "once\n"
    assert (site.log() == before) == borne, "by the script, or by the reference"
    assert site.children() == []
    assert site.bearer() != bearer


def test_without_room_for_a_descriptor_more(site: Site) -> None:
    """Wherever it is missing, in the bearer or in the child, the start goes by the reference."""
    ways = set()
    for most in range(14, 30):
        bearer, before = site.bearer(), site.log()
        _, hard = resource.prlimit(bearer, resource.RLIMIT_NOFILE)
        resource.prlimit(bearer, resource.RLIMIT_NOFILE, (most, hard))
        assert site.run() == "once\n", f"{most} descriptors"
        assert site.children() in ([], [bearer])
        ways.add((site.log() == before, site.children() == [bearer]))
    assert ways == {(False, False), (False, True)}, "it ended, or the child was unfit"
