"""The story of a measurement, told over instances that only pretend: order, failures, interruption, resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from local_instance import LocalGroup

from lab.errors import LaunchError, NotReady, ParityError
from lab.experiment.factors import Factor, Scope
from lab.experiment.hostfactors.base import HostFactor
from lab.experiment.plan import Plan, PlannedArm, arms
from lab.experiment.setup import Setup, Treatment, treat
from lab.experiment.watch import Silent
from lab.host.clock import Timeline
from lab.images.image import Origin
from lab.instance import NO_KNOBS, LaunchRequest
from lab.metrics.base import Metric, Observation, Subject
from lab.model import Accelerator, DoneReadiness, Kernel, Limits, Process, Scenario
from lab.results.record import Arm, Run, Sample, Status
from lab.results.store import RunFolder
from lab.studies.compare.measure import experiment as story
from lab.studies.compare.measure.experiment import Experiment

BACKENDS = ("process", "container")


@dataclass
class FakeInstance:
    request: LaunchRequest
    backend: str
    stopped: list[str]
    timeline: Timeline = field(default_factory=Timeline)
    accelerator: Accelerator = Accelerator.NATIVE

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def cgroup(self) -> LocalGroup:
        return LocalGroup(os.getpid())

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        return None

    def wait_executed(self) -> None:
        pass

    def __enter__(self) -> FakeInstance:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.append(self.name)


@dataclass
class FakeBackend:
    name: str
    order: int
    kernel: Kernel = Kernel.HOST
    opaque: bool = False
    launched: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    prepared: int = 0
    rehearsed: list[str] = field(default_factory=list)
    trouble: Callable[[str], None] = lambda name: None
    knobs: dict[str, Mapping[str, str]] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)

    def prepare(self, image: object, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        self.prepared += 1

    def carrying(self, knobs: Mapping[str, str]) -> dict[str, str]:
        return {name: level for name, level in knobs.items() if name != "start"}

    def rehearse(self, request: LaunchRequest) -> None:
        self.rehearsed.append(request.name)

    def launch(self, request: LaunchRequest) -> FakeInstance:
        assert request.name in self.rehearsed or request.name.startswith("asked-")
        self.trouble(request.name)
        self.launched.append(request.name)
        self.knobs[request.name], self.limits[request.name] = request.knobs, request.limits
        return FakeInstance(request, self.name, self.stopped)


class FakeManifest:
    digest = "m" * 64
    file_count = 3


class FakeSite:
    network = None

    def __init__(self) -> None:
        self.backends = {name: FakeBackend(name, order) for order, name in enumerate(BACKENDS)}
        self.store = self

    def backend(self, name: str) -> FakeBackend:
        return self.backends[name]

    def manifest(self, image: object) -> FakeManifest:
        return FakeManifest()

    @property
    def launched(self) -> set[str]:
        return {name for backend in self.backends.values() for name in backend.launched}

    @property
    def stopped(self) -> set[str]:
        return {name for backend in self.backends.values() for name in backend.stopped}


class Counting(Metric):
    """One observation per hook. Not found by the registry, which looks below lab/metrics alone."""

    name: ClassVar[str] = "counting"
    order: ClassVar[int] = 1

    def ready(self, subject: Subject) -> Iterator[Observation]:
        yield Observation(quantity="counting.ready", value=1.0, unit="1")

    def idle(self, subject: Subject) -> Iterator[Observation]:
        yield Observation(quantity="counting.idle", value=subject.idle_seconds, unit="1", state="idle")

    def done(self, subject: Subject) -> Iterator[Observation]:
        yield Observation(quantity="counting.done", value=1.0, unit="1")

    def loaded(self, subject: Subject) -> Iterator[Observation]:
        yield Observation(quantity="counting.loaded", value=1.0, unit="1", state="after-load")

    def ended(self, subject: Subject) -> Iterator[Observation]:
        yield Observation(quantity="counting.ended", value=1.0, unit="1")


class FakeSentinel:
    def __init__(self, *, isolation: bool = False) -> None:
        self.isolation = isolation

    def compute(self) -> Iterator[Observation]:
        yield Observation(quantity="host.compute", value=0.2, unit="seconds")

    def look(self) -> Iterator[Observation]:
        yield Observation(quantity="host.load", value=0.1, unit="1")


class FakeImage:
    digest = "sha256:" + "d" * 64
    origin = Origin.BUILT


def make_folder(root: Path, planned: tuple[PlannedArm, ...] = arms(BACKENDS)) -> RunFolder:
    run = Run(
        name="r",
        scenario="s",
        title="t",
        started="2026-01-01T00:00:00+00:00",
        command_line=("lab",),
        seed=1,
        blocks_planned=2,
        budget_seconds=None,
        limits={},
        metrics=("counting",),
        arms=tuple(
            Arm(
                label=arm.label,
                backend=arm.backend,
                title=arm.label,
                mechanism="",
                order=0,
                accelerator=Accelerator.NATIVE,
                kernel="",
            )
            for arm in planned
        ),
        image={},
        host={},
        versions={},
    )
    return RunFolder.create(root, run)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> FakeSite:
    def seen(*_: object) -> str:
        return FakeManifest.digest

    monkeypatch.setattr(story.overhead, "measure", lambda site, request: {"nothing": 0.001})
    monkeypatch.setattr(story, "Sentinel", FakeSentinel)
    monkeypatch.setattr(story, "wait_ready", lambda subject: None)
    monkeypatch.setattr(story, "verify_manifest", seen)
    monkeypatch.setattr(story, "limits_seen", lambda instance, kernel: {"pids": 1})
    monkeypatch.setattr(story, "kernel_release", lambda instance: "6.1.0\n")
    return FakeSite()


def experiment(site: FakeSite, folder: RunFolder, *, blocks: int = 2) -> Experiment:
    setup = Setup(
        scenario=Scenario(name="s", title="t", directory=Path(), dockerfile=Path()),
        image=FakeImage(),  # type: ignore[arg-type]
        process=Process(argv=("/bin/true",)),
        limits=Limits(),
        metrics=(Counting(),),
        isolation=False,
        idle_seconds=0.01,
    )
    plan = Plan(arms=arms(BACKENDS), seed=1, blocks=blocks, budget_seconds=0.0)
    return Experiment(site, setup, plan, folder, Silent())  # type: ignore[arg-type]


def by_arm(samples: Iterable[Sample]) -> dict[tuple[int, str], list[Any]]:
    found: dict[tuple[int, str], list[Any]] = {}
    for sample in samples:
        if sample.arm:  # what was observed of the host itself is of no arm
            found.setdefault((sample.block, sample.arm), []).append(sample)
    return found


def test_every_arm_is_observed_once_per_block(site: FakeSite, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    experiment(site, folder).run()
    found = by_arm(folder.samples())
    measured = {(block, arm.label) for block in (1, 2) for arm in arms(BACKENDS)}
    assert set(found) == measured | {(0, "process"), (0, "container")}
    whole = ["counting.ready", "counting.idle", "counting.loaded", "counting.ended"]
    for label in ("process", "process#aa", "container"):
        assert [sample.quantity for sample in found[1, label]] == whole
    assert all(sample.warmup == (block == 0) for (block, _), group in found.items() for sample in group)
    assert {sample.kernel for group in found.values() for sample in group} == {"6.1.0"}
    assert site.launched == site.stopped
    assert folder.run.ended_because == "blocks done"
    assert folder.run.noop == {"nothing": 0.001}
    assert folder.run.parity["process"] == {"manifest_digest": FakeManifest.digest, "limits": {"pids": 1}}


@pytest.mark.parametrize("opaque", ["container", "process"])
def test_nobody_is_asked_in_what_can_t_be_asked(
    site: FakeSite, tmp_path: Path, opaque: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """… and everybody in the other: the control."""
    asked: dict[str, set[str]] = {"manifest": set(), "isolation": set(), "kernel": set()}

    def verify(backend: FakeBackend, *_: object) -> str:
        asked["manifest"].add(backend.name)
        return FakeManifest.digest

    def ask(instance: FakeInstance, *_: object, **__: object) -> Iterator[Observation]:
        asked["isolation"].add(instance.backend)
        yield from ()

    def read(instance: FakeInstance) -> str:
        asked["kernel"].add(instance.backend)
        return "6.1.0\n"

    monkeypatch.setattr(story, "verify_manifest", verify)
    monkeypatch.setattr(story, "ask_all", ask)
    monkeypatch.setattr(story, "kernel_release", read)
    site.backends[opaque].opaque = True
    folder = make_folder(tmp_path)
    run = experiment(site, folder)
    run.setup = replace(run.setup, isolation=True)
    run.run()
    assert all(names == {*BACKENDS} - {opaque} for names in asked.values()), asked
    assert {sample.kernel for sample in folder.samples() if sample.backend == opaque} == {""}
    assert folder.run.parity[opaque] == {"limits": {"pids": 1}}
    assert folder.run.ended_because == "blocks done"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LaunchError("it fell over", detail="last words"), Status.FAILED),
        (NotReady("no answer"), Status.TIMEOUT),
    ],
)
def test_a_failure_is_recorded_and_the_run_goes_on(
    site: FakeSite, tmp_path: Path, error: LaunchError, status: Status
) -> None:
    def trouble(name: str) -> None:
        if name == "b1-container":
            raise error

    site.backends["container"].trouble = trouble
    folder = make_folder(tmp_path)
    experiment(site, folder).run()
    found = by_arm(folder.samples())
    (failed,) = found[1, "container"]
    assert (failed.status, failed.value, failed.quantity) == (status, None, "boot.total")
    assert failed.text == error.message
    assert failed.detail["tail"] == error.detail
    assert len(found[2, "container"]) == 4


def test_an_interrupted_run_resumes_where_it_stopped(site: FakeSite, tmp_path: Path) -> None:
    def interrupt(name: str) -> None:
        if name == "b2-container":
            raise KeyboardInterrupt

    site.backends["container"].trouble = interrupt
    folder = make_folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        experiment(site, folder).run()
    assert folder.run.ended_because == "interrupted"
    before = folder.completed()
    assert (2, "container") not in before
    folder.close()

    again, later = RunFolder.open(folder.path), FakeSite()
    again.abandon_incomplete()
    experiment(later, again).run()
    assert again.run.ended_because == "blocks done"
    expected = {
        ("warmup" if block == 0 else f"b{block}") + f"-{arm.label.replace('#', '-')}"
        for block in (0, 1, 2)
        for arm in arms(BACKENDS)
        if (block, arm.label) not in before and not (block == 0 and arm.is_twin)
    }
    assert later.launched == expected
    found = by_arm(again.samples())
    assert all(len(group) == 4 for (block, _), group in found.items() if block)


def test_the_host_is_watched_in_every_block_and_before_every_instance(site: FakeSite, tmp_path: Path) -> None:
    def interrupt(name: str) -> None:
        if name == "b2-container":
            raise KeyboardInterrupt

    site.backends["container"].trouble = interrupt
    folder = make_folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        experiment(site, folder).run()
    folder.close()
    again = RunFolder.open(folder.path)
    before = [sample for sample in again.samples() if not sample.arm]
    again.abandon_incomplete()
    assert [sample for sample in again.samples() if not sample.arm] == before  # never half of anything
    experiment(FakeSite(), again).run()
    host = [sample for sample in again.samples() if not sample.arm]
    assert {(sample.metric, sample.backend, sample.instance) for sample in host} == {("host", "", "")}
    assert [sample.block for sample in host if sample.quantity == "host.compute"] == [1, 2, 2]  # again on resuming
    looks = {(sample.block, sample.position) for sample in host if sample.quantity == "host.load"}
    assert looks == {(0, 0), (0, 1), *((block, position) for block in (1, 2) for position in range(3))}


def test_narrow_intervals_end_the_run(site: FakeSite, tmp_path: Path) -> None:
    folder, asked = make_folder(tmp_path), []

    def width(done: int) -> float:
        asked.append(done)
        return 0.2 if done < 8 else 0.04

    whole = experiment(site, folder)
    whole.plan = replace(whole.plan, blocks=None, precision=0.05, budget_seconds=3600.0)
    whole.width = width
    whole.run()
    assert folder.run.ended_because == "precision"
    assert asked == [6, 7, 8]
    assert max(block for block, _ in folder.completed()) == 8


@pytest.mark.parametrize(("sessions", "told"), [(1, [2, 1, 0]), (2, [5, 4, 3])])
def test_after_each_block_it_is_told_how_long_the_others_will_take(
    sessions: int, told: list[int], site: FakeSite, tmp_path: Path
) -> None:
    heard: list[float] = []
    whole = experiment(site, make_folder(tmp_path), blocks=3)
    whole.plan = replace(whole.plan, sessions=sessions)
    whole.after_block = lambda seconds, left: heard.append(left / seconds)
    whole.run()
    assert heard == pytest.approx(told)


def test_each_session_goes_on_where_the_last_one_ended_with_warm_ups_of_its_own(
    site: FakeSite, tmp_path: Path
) -> None:
    folder, endings = make_folder(tmp_path), []
    for _ in range(3):
        whole = experiment(FakeSite(), folder, blocks=2)
        whole.plan = replace(whole.plan, sessions=3)
        whole.run()
        endings.append(folder.run.ended_because)
    assert endings == ["session 1 of 3 done", "session 2 of 3 done", "blocks done"]
    sessions = {(sample.session, sample.block) for sample in folder.samples()}
    assert sessions == {(1, 0), (1, 1), (1, 2), (2, -1), (2, 3), (2, 4), (3, -2), (3, 5), (3, 6)}
    found = by_arm(folder.samples())
    assert all(sample.warmup == (block <= 0) for (block, _), group in found.items() for sample in group)
    assert {sample.instance for sample in found[-1, "process"]} == {"warmup2-process"}


def test_an_interrupted_session_is_resumed_as_the_same_one(site: FakeSite, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)

    def session(site: FakeSite) -> None:
        whole = experiment(site, folder, blocks=2)
        whole.plan = replace(whole.plan, sessions=2)
        whole.run()

    def interrupt(name: str) -> None:
        if name == "b4-process":
            raise KeyboardInterrupt

    session(site)
    broken = FakeSite()
    broken.backends["process"].trouble = interrupt
    with pytest.raises(KeyboardInterrupt):
        session(broken)
    folder.abandon_incomplete()
    session(FakeSite())
    assert folder.run.ended_because == "blocks done"
    assert {sample.session for sample in folder.samples() if sample.block in (3, 4)} == {2}
    assert {block for block, _ in folder.completed()} == {-1, 0, 1, 2, 3, 4}


def test_unequal_files_refuse_the_comparison(site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differ(*_: object) -> str:
        raise ParityError("container sees other files than the image holds")

    monkeypatch.setattr(story, "verify_manifest", differ)
    folder = make_folder(tmp_path)
    with pytest.raises(ParityError):
        experiment(site, folder).run()
    assert not list(folder.samples())
    assert folder.run.ended_because.startswith("error: container sees other files")


def test_an_application_that_comes_up_nowhere_ends_the_run_in_the_warm_up(site: FakeSite, tmp_path: Path) -> None:
    def trouble(name: str) -> None:
        raise LaunchError(f"{name} ended with exit code 1 before it became ready", detail="no database")

    for backend in site.backends.values():
        backend.trouble = trouble
    folder = make_folder(tmp_path)
    with pytest.raises(LaunchError, match="warmup-process ended") as caught:
        experiment(site, folder).run()
    assert caught.value.detail == "no database"
    assert [sample.status for sample in folder.samples() if sample.arm] == [Status.FAILED] * 2
    assert folder.run.ended_because.startswith("error: warmup-process ended")


@pytest.mark.parametrize("during", ["the first second", "idle"])
@pytest.mark.parametrize(("code", "seen"), [(0, {"counting.ready", "counting.ended"}), (3, {"boot.total"})])
def test_of_a_program_that_ends_by_itself_the_start_counts_if_it_has_not_failed(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, seen: set[str], during: str
) -> None:
    """One that crashes has no boot time, and nothing else that was seen of it before counts."""
    ended: set[str] = set()

    def wait(instance: FakeInstance, timeout_seconds: float | None = None) -> int | None:
        if instance.name.startswith("b") and (during != "idle" or instance.name in ended):
            return code
        return None

    def idle(self: Counting, subject: Subject) -> Iterator[Observation]:
        yield Observation(quantity="counting.idle", value=1.0, unit="1", state="idle")
        ended.add(subject.instance.name)
        raise LaunchError("the container has ended")

    monkeypatch.setattr(FakeInstance, "wait", wait)
    monkeypatch.setattr(Counting, "idle", idle)
    folder = make_folder(tmp_path)
    experiment(site, folder).run()
    measured = [sample for sample in folder.samples() if sample.arm and not sample.warmup]
    assert {sample.quantity for sample in measured} == seen
    assert {sample.status for sample in measured} == ({Status.FAILED} if code else {Status.OK})
    if code:
        assert {sample.detail["exit_code"] for sample in measured} == {code}
    assert folder.run.ended_because == "blocks done"


@pytest.mark.parametrize("code", [0, 3])
def test_a_batch_job_is_measured_until_it_is_done_and_another_copy_is_asked(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    waited: list[str] = []

    def wait(instance: FakeInstance, timeout_seconds: float | None = None) -> int | None:
        assert timeout_seconds, "a job may take its time, and not for ever"
        waited.append(instance.name)
        return code if instance.name.startswith("b") else 0

    monkeypatch.setattr(FakeInstance, "wait", wait)
    folder = make_folder(tmp_path)
    whole = experiment(site, folder)
    whole.setup = replace(whole.setup, scenario=replace(whole.setup.scenario, readiness=DoneReadiness()))
    whole.run()
    measured = [sample for sample in folder.samples() if sample.arm and not sample.warmup]
    done = {"counting.ready", "counting.done", "counting.ended"}
    assert {sample.quantity for sample in measured} == (done if code == 0 else {"boot.total", "job.total"})
    asked = {name for name in site.launched if name.startswith("asked-")}
    assert asked == {"asked-warmup-process", "asked-warmup-container"}
    assert not asked & set(waited)


def test_what_is_left_is_known_from_the_first_instance_on(site: FakeSite, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    class Recorder(Silent):
        def progress(self, done: int, expected: int) -> None:
            told.append((done, expected))

    story_of = experiment(site, make_folder(tmp_path))
    story_of.watch = Recorder()
    story_of.run()
    instances = len(BACKENDS) + 2 * len(arms(BACKENDS))
    assert {expected for _, expected in told} == {instances}
    assert sorted({done for done, _ in told}) == list(range(instances + 1))


def test_factors_reach_the_instances_and_each_way_to_carry_an_image_is_verified_once(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []

    def verify(backend: object, request: LaunchRequest, *_: object) -> str:
        verified.append(request.name)
        return FakeManifest.digest

    class Weather(HostFactor):
        name, levels, tells = "weather", ("fair", "foul"), ""

        @contextmanager
        def at(self, level: str, backend: object, request: LaunchRequest) -> Iterator[list[Observation]]:
            told.append((level, request.name))
            yield [Observation(quantity="weather.seen", value=1.0, unit="1", text=level)]
            assert request.name in site.stopped  # restored after its life
            told.append(("", request.name))

    told: list[tuple[str, str]] = []
    monkeypatch.setattr(story, "verify_manifest", verify)
    monkeypatch.setattr(story, "host_factors", lambda: (Weather,))
    both = {"process": ("fair", "foul"), "container": ("fair", "foul")}
    factors = (
        Factor(name="weather", scope=Scope.HOST, levels=("fair", "foul"), tells="", of=both),
        Factor(name="disk", scope=Scope.KNOB, levels=("a", "b"), tells="", of={"container": ("a", "b")}),
        Factor(
            name="start",
            scope=Scope.KNOB,
            levels=("boot", "restore"),
            tells="",
            of={"container": ("boot", "restore")},
        ),
        Factor(name="cpus", scope=Scope.LIMIT, levels=("1", "2"), tells="", of={"process": ("1", "2")}),
    )  # fmt: skip
    planned = arms(BACKENDS, factors)
    folder = make_folder(tmp_path, planned)
    whole = experiment(site, folder, blocks=1)
    whole.plan = replace(whole.plan, arms=planned, factors=factors)
    setup = whole.setup
    same = Treatment(image=setup.image, process=setup.process, limits=setup.limits)
    setup = replace(setup, treatments={arm.label: treat(same, arm.factors, factors) for arm in planned})
    whole = Experiment(whole.site, setup, whole.plan, folder, Silent())
    whole.run()
    assert verified == ["parity-process-fair-1", "parity-container-fair-a-boot", "parity-container-fair-b-boot"]
    assert set(folder.run.parity) == {arm.label for arm in planned if not arm.is_twin}
    assert all(seen == {"manifest_digest": "m" * 64, "limits": {"pids": 1}} for seen in folder.run.parity.values())
    assert site.backends["container"].prepared == 2
    assert len(planned) == 13
    seen = [s for s in folder.samples() if s.quantity == "weather.seen"]
    assert {(s.arm, s.text) for s in seen} == {(arm.label, arm.factors["weather"]) for arm in planned}
    assert len(told) == 2 * (12 + 13)
    (fast,) = [limits for name, limits in site.backends["process"].limits.items() if name == "b1-process-foul-2"]
    assert fast.cpus == 2.0
    assert site.backends["container"].knobs["b1-container-fair-b-restore"] == {"disk": "b", "start": "restore"}
    assert folder.run.ended_because == "blocks done"


def test_how_long_it_will_take_is_told_once_every_arm_was_started(site: FakeSite, tmp_path: Path) -> None:
    notes: list[str] = []

    class Recorder(Silent):
        def note(self, sentence: str) -> None:
            notes.append(sentence)

    factor = Factor(name="cpus", scope=Scope.LIMIT, levels=("1", "2"), tells="", of={"container": ("1", "2")})
    planned = arms(BACKENDS, (factor,))
    folder = make_folder(tmp_path, planned)
    whole = experiment(site, folder)
    whole.plan = replace(whole.plan, arms=planned, factors=(factor,), blocks=None, budget_seconds=1e-6)
    whole.watch = Recorder()
    whole.run()
    assert notes == [
        "a block of 4 arms will take about 1 s, the 3 blocks that it takes at least about 1 s, more than the budget"
    ]
    again = experiment(site, folder)  # its warm-ups are done, and tell nothing any more
    again.plan, again.watch = whole.plan, whole.watch
    again.warm_up()
    assert len(notes) == 1


def test_the_twin_is_treated_like_what_it_repeats(site: FakeSite, tmp_path: Path) -> None:
    """It idled not at all once, so that its memory, load and CPU were of another treatment."""
    folder = make_folder(tmp_path)
    experiment(site, folder).run()
    idled = {(sample.arm, sample.value) for sample in folder.samples() if sample.quantity == "counting.idle"}
    assert {arm for arm, _ in idled} >= {"process", "process#aa"}
    assert {seconds for _, seconds in idled} == {0.01}


def test_a_pilot_plans_how_many_blocks_there_are(site: FakeSite, tmp_path: Path) -> None:
    """Asked once, after six blocks; a run that is resumed keeps to what its own pilot said."""
    folder, asked = make_folder(tmp_path), []

    def needed() -> float:
        asked.append(len({block for block, _ in folder.completed()}) - 1)  # less the warm-up
        return 8.0

    planned = experiment(site, folder)
    planned.plan = replace(planned.plan, blocks=None, budget_seconds=600.0, detect=0.1)
    planned.needed = needed
    planned.run()
    assert asked == [6]
    assert {block for block, _ in folder.completed()} == set(range(9))
    assert folder.run.settings["pilot"] == {"blocks": 6, "needed": 8}
    assert folder.run.ended_because == "enough to detect"
