"""What is made of an attack surface's observations: idle subtracted, medians, what was not measured, the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import surface_run, surface_sample
from told import tells
from typer.testing import CliRunner

from lab.analysis.loaded import Loaded, load
from lab.cli.app import app
from lab.errors import LabError
from lab.experiment.watch import Silent
from lab.metrics.clients.wrk import LoadResult
from lab.model import Accelerator, Kernel, Phase
from lab.results.record import Status
from lab.results.store import RunFolder
from lab.runtime.seccomp.calls import numbers
from lab.runtime.seccomp.compiler import native
from lab.studies.registry import study_of
from lab.studies.surface import measure as exposure
from lab.studies.surface.analyse import (
    IDLE,
    INSTANCE,
    KERNEL,
    LOADED,
    SETUP,
    START,
    SUBSYSTEMS,
    Exposed,
    medians,
    scaled,
)
from lab.studies.surface.lineage import Side
from lab.studies.surface.measure import assert_answered
from lab.studies.surface.reach import Outcome
from lab.studies.surface.report import REPORT, SurfaceReport, markdown, not_to_conclude, story
from lab.studies.surface.tracing import Counts, TooSlow
from lab.studies.surface.words import LOOKS


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return load(surface_run(tmp_path).path)


def test_idle_is_subtracted_and_medians_are_of_rounds(loaded: Loaded) -> None:
    found = Exposed(loaded)
    container = next(arm for arm in loaded.all_arms if arm.label == "container")
    setup, busy = found.work(container, START, SETUP), found.work(container, LOADED)
    assert setup is not None
    assert (setup.n, setup.total, setup.low, setup.high, setup.calls["mount"]) == (3, 21, 11, 31, 20)
    assert busy is not None
    assert busy.calls == {"read": pytest.approx(2.2)}, "poll comes as often as in idle: 2 per second for 3 seconds"
    idle = found.work(container, IDLE)
    assert idle is not None
    assert idle.calls == {"poll": 2.0}
    assert busy.exits is None, "this kernel has no event for them"


def test_a_load_that_was_not_answered_is_a_failure_and_no_number(loaded: Loaded) -> None:
    vm = loaded.all_arms[-1]
    work = Exposed(loaded).work(vm, LOADED)
    assert work is not None
    assert (work.n, work.distinct) == (0, 0)
    (failure,) = work.failures
    assert tells(failure, "3 of 9")
    with pytest.raises(LabError, match="2 of 7 requests"):
        assert_answered(LoadResult(requests=5, duration_seconds=1, latency_seconds={},
                                   errors={"read": 2}))  # fmt: skip


def test_functions_leave_out_what_an_idle_host_does(loaded: Loaded) -> None:
    found = {(each.arm.label, each.side): each for each in Exposed(loaded).functions}
    assert found["process", KERNEL].names == ("net_rx_action",)
    assert found["container", KERNEL].names == ()
    assert found["container", INSTANCE].beyond == ("seccomp_run_filters",)
    assert found["process", INSTANCE].beyond == ()


def test_where_both_ways_differ_the_reason_is_told(loaded: Loaded) -> None:
    container = Exposed(loaded).reaches[1]
    assert container.agreeing == (2, 3)
    (differing,) = container.disagreements
    assert differing.names == ("open_tree_attr",)
    assert "libseccomp" in differing.reason
    assert "read back" in differing.reason, "which of the two is right was looked up"
    assert {name: count for name, count in container.outcomes.items() if count} == {"allowed": 1, "refused": 2}


def test_a_machine_has_its_guest_s_calls_and_its_monitor_s(loaded: Loaded) -> None:
    guest, monitor = Exposed(loaded).reaches[2:]
    assert (guest.own_kernel, monitor.own_kernel) == (True, False)
    assert monitor.arm.title == "monitor of the vm"
    assert [(call.name, call.outcome) for call in monitor.calls] == [
        ("read", "allowed"),
        ("open_tree_attr", "refused"),
    ]
    assert monitor.agreeing == (0, 0), "they are not made"
    assert str(monitor.in_force) == "1 in force, of 4 instructions"


def test_a_kernel_that_is_a_program_has_both_as_well(tmp_path: Path) -> None:
    folder = surface_run(tmp_path)
    *others, vm = folder.run.arms
    with folder:
        folder.update(arms=(*others, replace(vm, accelerator=Accelerator.NATIVE, user_kernel=True)))
    found = Exposed(load(folder.path))
    own, program = found.reaches[2:]
    assert (own.own_kernel, program.own_kernel) == (True, False)
    assert program.arm.title == "kernel of the vm"
    assert "| vm | its own |" in "\n".join(markdown(found))


def test_the_page_says_all_of_it_and_ranks_nothing(loaded: Loaded) -> None:
    assert study_of(loaded.run.settings).kind == "surface"
    done = CliRunner().invoke(app, ["report", str(loaded.path)])
    assert done.exit_code == 0, done.output
    page, text = (loaded.path / "report.html").read_text(), (loaded.path / "report.md").read_text()
    for said in ("seccomp_run_filters", "no such event", "both ways differ", "3 of 9 requests", "security and keys"):
        assert said in page, said
    for said in ("| container | the host's | 1 |", "3 of 9", "open_tree_attr", "no such event"):
        assert said in text, said
    assert any("ranking of security" in each for each in not_to_conclude(Exposed(loaded)))
    assert any("TCG" in each for each in not_to_conclude(Exposed(loaded)))
    assert any(tells(each, "2 of 3") for each in story(Exposed(loaded)))
    REPORT.write(loaded.path)
    assert (loaded.path / "report.html").read_text() == page, "rebuilt from the folder alone"
    names = {path.name for path in loaded.path.iterdir()}
    assert {"surface-calls.csv", "surface-host-calls.csv", "surface-functions.csv"} <= names
    assert (loaded.path / "plots/surface.png").stat().st_size > 10_000
    assert "container,loaded,instance,seccomp_run_filters,True" in (loaded.path / "surface-functions.csv").read_text()


def test_a_run_of_which_nothing_came_up_says_so(loaded: Loaded) -> None:
    folder = RunFolder.open(loaded.path)
    (loaded.path / "samples.jsonl").write_text("")
    with folder:
        folder.append(surface_sample("process", 0, "surface.calls", "", None))
        folder.append(surface_sample("process", 1, "surface.host_calls", START, None, side=INSTANCE))
    with pytest.raises(LabError, match="no instance came up"):
        SurfaceReport(each_call=True).conclude(RunFolder.open(loaded.path), "")
    assert "3 of 9 requests" in (loaded.path / "report.html").read_text()


def test_every_system_call_has_a_subsystem_and_every_outcome_a_look() -> None:
    assert set(native()) | set(numbers("SCMP_ARCH_AARCH64")) <= set(SUBSYSTEMS)
    assert set(LOOKS) == set(Outcome)


counted = st.dictionaries(st.sampled_from(["read", "write", "poll", "futex"]), st.integers(0, 1000))


@given(counted, counted, st.floats(0.5, 60), st.floats(0.5, 60), st.integers(1, 10_000))
def test_no_rate_is_negative_and_none_comes_from_nothing(
    busy: dict[str, int], idle: dict[str, int], seconds: float, idle_seconds: float, requests: int
) -> None:
    found = scaled(
        {"calls": busy, "seconds": seconds, "requests": requests}, LOADED, {"calls": idle, "seconds": idle_seconds}
    )
    assert set(found) <= set(busy)
    assert all(0 < rate <= busy[name] / requests for name, rate in found.items())


@given(st.lists(counted, min_size=1, max_size=5))
def test_a_median_of_calls_lies_among_its_rounds(rounds: list[dict[str, int]]) -> None:
    found = medians(rounds)
    assert set(found) >= {name for name in rounds[0] if all(each.get(name) for each in rounds)}
    for name, value in found.items():
        seen = [each.get(name, 0) for each in rounds]
        assert min(seen) <= value <= max(seen)


class Functions:
    """An observer of a host that lets its functions be traced, on which nothing happens but what is known."""

    why_no_functions = ""
    counts_exits = True

    @contextmanager
    def window(self, threads: frozenset[int]) -> Iterator[Functions]:
        yield self

    def steady(self) -> Counts:
        entered = {Side.KERNEL: frozenset({"tick"}), Side.INSTANCE: frozenset({"vfs_read"})}
        made = {Side.INSTANCE: {"read": 3}}
        return Counts(calls=made, exits={Side.INSTANCE: 7}, functions=entered, lost=0, seconds=1.0)


def test_functions_and_exits_are_recorded_where_they_can_be_traced(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.open(loaded.path)
    monkeypatch.setattr(exposure, "Tracing", SimpleNamespace(make=lambda session: nullcontext()))
    monkeypatch.setattr(exposure, "Observer", lambda tracing, scratch, functions: Functions())
    monkeypatch.setattr(exposure, "IDLE_SECONDS", 0)
    site: Any = SimpleNamespace(session=None, scratch=loaded.path)
    setup: Any = SimpleNamespace(image=SimpleNamespace(digest="sha256:0"))
    backend: Any = SimpleNamespace(name="container", slug="container")
    run = exposure.Exposure(site, setup, folder, Silent(), seed=1, rounds=1)
    before = len(list(folder.samples()))
    with folder, run._observed() as observer:
        assert observer is not None
        run._count(backend, 4, "container-4", IDLE, Functions().steady())
    added = list(folder.samples())[before:]
    assert [(each.arm, each.quantity, each.value) for each in added] == [
        ("", "surface.functions", 1), ("container", "surface.host_calls", 3), ("container", "surface.exits", 7),
        ("container", "surface.functions", 1), ("container", "surface.functions", 1),
    ]  # fmt: skip
    settings = RunFolder.open(loaded.path).run.settings
    assert (settings["not_traced"], settings["no_functions"], settings["no_exits"]) == ("", "", "")


class Slow(Functions):
    """An observer of a host on which nothing ends in time while functions are traced."""

    def __init__(self) -> None:
        self.why_no_functions = ""
        self.windows = 0

    @contextmanager
    def window(self, threads: frozenset[int]) -> Iterator[Functions]:
        self.windows += 1
        yield self
        if not self.why_no_functions:
            raise TooSlow("it was not done within 60 s")

    def drop_functions(self, why: str) -> None:
        self.why_no_functions = why

    def steady(self) -> Counts:
        return Counts(calls={Side.INSTANCE: {"read": 3}}, exits={}, functions={}, lost=0, seconds=1.0)

    def start(self, members: object, program: str, kernel: int | None, between: object) -> Counts:
        return self.steady()


def test_where_functions_take_too_long_they_are_given_up_and_the_start_is_counted_without(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.open(loaded.path)
    monkeypatch.setattr(exposure, "IDLE_SECONDS", 0)
    monkeypatch.setattr(exposure, "SETTLE_SECONDS", 0)
    stamps = {Phase.REQUESTED: 1.0, Phase.RESPONDED: 2.0}
    instance = SimpleNamespace(
        name="container-1", cgroup=SimpleNamespace(processes=set),
        timeline=SimpleNamespace(stamps=lambda: stamps),
    )  # fmt: skip
    site: Any = SimpleNamespace(session=None, scratch=loaded.path)
    setup: Any = SimpleNamespace(
        image=SimpleNamespace(digest="sha256:0"), scenario=SimpleNamespace(load=None, port=None)
    )
    run = exposure.Exposure(site, setup, folder, Silent(), seed=1, rounds=1)
    process = SimpleNamespace(argv=["app"])
    monkeypatch.setattr(run, "request", lambda name: SimpleNamespace(name=name, process=process))
    monkeypatch.setattr(run, "serving", lambda backend, wanted: nullcontext(SimpleNamespace(instance=instance)))
    observer, backend = Slow(), SimpleNamespace(name="container", slug="container", kernel=Kernel.HOST)
    before = len(list(folder.samples()))
    with folder:
        run._observe(backend, 4, observer)  # type: ignore[arg-type]
    added = list(folder.samples())[before:]
    assert {(each.state, each.quantity, each.status) for each in added} == {
        (state, quantity, Status.OK)
        for state in (START, IDLE)
        for quantity in ("surface.host_calls", "surface.exits")
    }
    assert observer.windows == 3, "one in vain"
    found = Exposed(load(loaded.path))
    assert "60 s" in found.not_measurable["functions of the host's kernel"]
    assert found.functions == [], "those of some backends only would compare what was not treated alike"


def test_a_host_that_lets_nobody_trace_says_why(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(session: object) -> None:
        raise LabError("this kernel has no tracefs", hint="one with CONFIG_FTRACE has")

    monkeypatch.setattr(exposure, "Tracing", SimpleNamespace(make=refuse))
    site: Any = SimpleNamespace(session=None, scratch=loaded.path)
    setup: Any = SimpleNamespace(image=SimpleNamespace(digest="sha256:0"))
    folder = RunFolder.open(loaded.path)
    with folder, exposure.Exposure(site, setup, folder, Silent(), seed=1, rounds=1)._observed() as observer:
        assert observer is None
    found = Exposed(load(loaded.path)).not_measurable
    assert found["system calls made of the host"] == "this kernel has no tracefs (one with CONFIG_FTRACE has)"
    assert set(found) == {"system calls made of the host", "functions of the host's kernel", "exits to KVM"}
