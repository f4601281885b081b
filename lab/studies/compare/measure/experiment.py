"""The story of a measurement.

    1. prepare     what is made once per image and is no part of booting: disks, a guest kernel
    2. parity      one instance per backend, image and way to carry it prints the manifest of every file it sees
    3. warm up     one instance per arm, declared and marked; the isolation probes ask one of each backend here
    4. blocks      every arm once per block, in a random order, until the blocks or the budget end
    5. finish      why it ended is written down

Every observation is on the disk before the next one starts, so that a crash loses none and ``resume`` goes on
where it stopped. An instance that fails or never answers is recorded as that, never dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import count

from lab.backends.site import Site
from lab.errors import LabError, LaunchError, NotReady, ParityError
from lab.experiment.applications import is_job, is_silent, linger, require_success, wait_done, waiting
from lab.experiment.hostfactors.registry import host_factors
from lab.experiment.plan import MINIMUM_BLOCKS, Plan, PlannedArm
from lab.experiment.scenarios.client import Client
from lab.experiment.setup import Setup, Treatment
from lab.experiment.stamp import WARM_UP, Stamp, failure
from lab.experiment.watch import Watch
from lab.host.clock import now
from lab.host.survey.virtualisation import platform
from lab.host.units import format_seconds
from lab.images.image import Image, Origin
from lab.instance import Backend, Instance, LaunchRequest
from lab.isolation.battery import ask_all, ended
from lab.metrics.base import Observation, Subject
from lab.metrics.ready.readiness import wait_ready
from lab.results.record import PRECISE_BLOCKS, Run
from lab.results.store import RunFolder
from lab.studies.compare.measure import overhead
from lab.studies.compare.measure.parity import kernel_release, limits_seen, verify_manifest
from lab.studies.compare.measure.sentinel import Sentinel

ENDING_SECONDS = 5.0  # between an application's end and its report from a guest


class Experiment:
    """One run, from an empty or half-filled folder to its end."""

    def __init__(
        self,
        site: Site,
        setup: Setup,
        plan: Plan,
        folder: RunFolder,
        watch: Watch,
        width: Callable[[int], float] = lambda done: math.inf,
        needed: Callable[[], float] = lambda: math.inf,
        after_block: Callable[[float, float], None] = lambda seconds, left: None,
    ) -> None:
        """``width`` tells, for a plan with a precision, how wide the widest interval is after so many blocks;
        ``needed``, for one that shall detect something, how many blocks that takes, from those that are there.
        ``after_block`` is called when nothing is measured, with the seconds of that block, and of all that follow.
        """
        self.site, self.setup, self.plan = site, setup, plan
        self.folder, self.watch = folder, watch
        self.width, self.needed, self.after_block = width, needed, after_block
        self.sentinel = Sentinel(isolation=setup.isolation)
        ends = folder.run.settings.get("session_ends", [])  # the last block of each session that is complete
        self.session = len(ends) + 1
        self.before = ends[-1] if ends else 0  # blocks of earlier sessions
        self.warm_up_block = WARM_UP - len(ends)
        self.kernels: dict[str, str] = {}
        self.asked_seconds = 0.0  # of the warm-ups' time, what the isolation probes took
        self.host = {kind.name: kind(site) for kind in host_factors() if kind.name in self._host_factors()}
        self.client = Client(site, setup.image, setup.process, folder.log_directory)
        self.blocks_expected = MINIMUM_BLOCKS if plan.blocks is None else plan.blocks

    def _host_factors(self) -> set[str]:
        """What of the host the plan varies."""
        return {name for arm in self.plan.arms for name in self.setup.treatment(arm).host}

    def run(self) -> None:
        """All five steps. Whatever ends it, the folder says why; KeyboardInterrupt and errors go on up."""
        self.folder.conclude(self._all_steps)

    def _all_steps(self) -> str:
        began = now()
        try:
            self.prepare()
            self.check_parity()
            self.warm_up()
            return self.end_session(self.measure(began))
        finally:
            for factor in self.host.values():
                factor.close()

    # 1. prepare

    def prepare(self) -> None:
        """Disks, guest kernel, image manifest: made before the clock of anything starts."""
        self.watch.doing("computing the image's manifest")
        facts = {image.digest: self._manifest_facts(image) for image in self.setup.images}
        images = {digest: {**self.folder.run.images.get(digest, {}), **of} for digest, of in facts.items()}
        self.folder.update(
            image={**self.folder.run.image, **facts[self.setup.image.digest]},
            images=images if len(images) > 1 else {},
        )
        for backend, treatment, _ in self._ways():
            self.watch.doing(f"preparing {backend.name}{_at(treatment.knobs)}")
            backend.prepare(treatment.image, treatment.knobs)
        if not self.folder.run.noop:
            self.watch.doing("measuring lab's own overhead")
            self.folder.update(
                noop=overhead.measure(self.site, self._request("nothing", self.setup.treatment(self.plan.arms[0])))
            )

    def backends(self) -> list[Backend]:
        """Each backend of the plan once, the thinnest boundary first."""
        return sorted(
            (self.site.backend(name) for name in {arm.backend for arm in self.plan.arms}), key=lambda b: b.order
        )

    def _manifest_facts(self, image: Image) -> dict[str, object]:
        manifest = None if image.origin is Origin.DISK else self.site.store.manifest(image)
        return {"manifest_digest": manifest.digest, "files": manifest.file_count} if manifest else {}

    def _ways(self) -> list[tuple[Backend, Treatment, list[PlannedArm]]]:
        """Each way in which a backend carries an image, and the arms that have it in common."""
        ways: dict[tuple[object, ...], list[PlannedArm]] = {}
        for arm in self._warmed():
            treatment = self.setup.treatment(arm)
            knobs = self.site.backend(arm.backend).carrying(treatment.knobs)
            ways.setdefault((arm.backend, treatment.image.digest, *sorted(knobs.items())), []).append(arm)
        return [(self.site.backend(arms[0].backend), self.setup.treatment(arms[0]), arms) for arms in ways.values()]

    # 2. parity

    def check_parity(self) -> None:
        """Refuse to compare instances that don't see the same files. Raises ParityError."""
        for backend, treatment, arms in self._ways():
            if backend.opaque or all("manifest_digest" in self.folder.run.parity.get(arm.label, {}) for arm in arms):
                continue  # nobody inside could tell; or verified before this run was interrupted
            self.watch.doing(f"{arms[0].label}: verifying every file from inside")
            seen = verify_manifest(
                backend,
                self._request(f"parity-{arms[0].instance}", treatment),
                self.site.store.manifest(treatment.image),
                self.setup.scenario.ready_timeout_seconds,
            )
            for arm in arms:
                self._note_parity(arm.label, manifest_digest=seen)

    def _note_parity(self, arm: str, **facts: object) -> None:
        parity = {label: dict(known) for label, known in self.folder.run.parity.items()}
        parity.setdefault(arm, {}).update(facts)
        self.folder.update(parity=parity)

    # 3. warm up

    def warm_up(self) -> None:
        """One instance per arm: caches fill, limits are read back, probes ask; its samples are marked.

        Raises the first arm's error when the application does not come up on any: more of that tells nothing.
        """
        failures: list[LabError] = []
        began, warmed = now(), self._warmed()
        done = {label for block, label in self.folder.completed() if block == self.warm_up_block}
        for position, arm in enumerate(warmed):
            if arm.label not in done:
                self._progress()
                failures += self.observe(arm, self.warm_up_block, position)
        if len(failures) == len(warmed):
            raise failures[0]
        if len(warmed) > len(self.backends()) and not done:
            self._foretell(now() - began)

    def _warmed(self) -> list[PlannedArm]:
        """Every arm but the A/A twin, by backend, the thinnest boundary first."""
        arms = [arm for arm in self.plan.arms if not arm.is_twin]
        return sorted(arms, key=lambda arm: self.site.backend(arm.backend).order)

    def _foretell(self, seconds: float) -> None:
        """Say how long it will take, now that every arm was started once, in ``seconds``."""
        started, arms = len(self._warmed()), len(self.plan.arms)
        block = (seconds - self.asked_seconds) * arms / started + self.setup.seconds_watched * arms
        least = MINIMUM_BLOCKS if self.plan.blocks is None else self.plan.blocks
        some = f"{least} blocks" if self.plan.blocks else f"the {least} blocks that it takes at least"
        over = self.plan.blocks is None and least * block > self.plan.budget_seconds
        self.watch.note(
            f"a block of {len(self.plan.arms)} arms will take about {format_seconds(block)}, "
            f"{some} about {format_seconds(least * block)}" + (", more than the budget" if over else "")
        )

    # 4. blocks

    def measure(self, began: float) -> str:
        """Blocks until there are enough, the budget is used up or the intervals are narrow; returns which it was."""
        longest = 0.0
        for done in count():
            width = self.width(done) if self.plan.precision is not None and done >= PRECISE_BLOCKS else math.inf
            needed = self._plan_from_pilot(done, now() - began, longest)
            if ending := self.plan.ending(done, now() - began, longest, width, needed):
                return ending
            started = now()
            self.run_block(self.before + done + 1)
            longest = max(longest, seconds := now() - started)
            self.blocks_expected = self._foresee(done + 1, now() - began, longest)
            others = self.blocks_expected * (1 + self.plan.sessions - self.session) - (done + 1)
            self.after_block(seconds, others * seconds)
        raise AssertionError("every plan ends")

    def _plan_from_pilot(self, done: int, spent: float, longest: float) -> float:
        """How many blocks it takes to show what the plan wants to; known, once and for all, after the pilot."""
        share, settings = self.plan.detect, self.folder.run.settings
        if share is None or done < PRECISE_BLOCKS:
            return math.inf
        if "pilot" not in settings:
            needed = self.needed()
            blocks = int(needed) if math.isfinite(needed) else None
            self.folder.update(settings={**settings, "pilot": {"blocks": done, "needed": blocks}})
            fitting = done + max(0, int((self.plan.budget_seconds - spent) / max(longest, 1e-3)))
            enough = blocks is not None and blocks <= fitting
            self.watch.note(
                f"the pilot of {done} blocks says: a difference of {100 * share:g} % takes "
                f"{'blocks that can not be told' if blocks is None else f'{blocks} blocks'}"
                + ("" if enough else f"; the budget allows about {fitting}")
            )
            return needed
        told = settings["pilot"]["needed"]
        return math.inf if told is None else float(told)

    def end_session(self, ending: str) -> str:
        """Note where this session ended; returns why the run did, which it has not when a further session follows."""
        planned = self.plan.sessions
        if self.session >= planned:
            return ending
        last = max((block for block, _ in self.folder.completed()), default=0)
        settings = self.folder.run.settings
        self.folder.update(settings={**settings, "session_ends": [*settings.get("session_ends", []), last]})
        return f"session {self.session} of {planned} done"

    def run_block(self, block: int) -> None:
        """Every arm once, in the block's own order; those done before an interruption are skipped."""
        completed = self.folder.completed()
        order = self.plan.order(block)
        if any((block, arm.label) not in completed for arm in order):
            self.watch.doing(f"block {block}: timing the bare host")
            self._note_host(block, 0, self.sentinel.compute())
        for position, arm in enumerate(order):
            if (block, arm.label) not in completed:
                self._progress()
                self.observe(arm, block, position)
        self._progress()

    def _foresee(self, done: int, spent: float, longest: float) -> int:
        """How many blocks it will be, if the others take as long as the longest until now."""
        further = 0
        pilot = self.folder.run.settings.get("pilot") or {}
        needed = float(pilot.get("needed") or math.inf)
        while self.plan.ending(done + further, spent + further * longest, longest, needed=needed) is None:
            further += 1
        return done + further

    def _progress(self) -> None:
        done = len(self.folder.completed())
        blocks = self.before + self.blocks_expected
        planned = self.session * len(self._warmed()) + blocks * len(self.plan.arms)
        self.watch.progress(done, max(done, planned))

    # one instance

    def observe(self, arm: PlannedArm, block: int, position: int) -> list[LabError]:
        """Launch one instance, watch its whole life, append what was seen, success or not; returns its failure."""
        failures: list[LabError] = []
        warm_up = "warmup" if block == WARM_UP else f"warmup{self.session}"
        name = f"{warm_up if block <= WARM_UP else f'b{block}'}-{arm.instance}"
        backend = self.site.backend(arm.backend)
        known = next(described for described in self.folder.run.arms if described.label == arm.label)
        stamp = Stamp(
            arm=arm,
            block=block,
            position=position,
            instance=name,
            image=self.setup.treatment(arm).image.digest,
            session=self.session,
            accelerator=known.accelerator,
            kernel=known.kernel,
        )
        self._note_host(block, position, self.sentinel.look())
        try:
            self._live(backend, stamp)
        except ParityError:
            raise
        except LabError as error:
            self.watch.note(error.message if name in error.message else f"{name}: {error.message}")
            self._append(stamp, self._failures(error, backend))
            failures.append(error)
        self.folder.complete(block, arm.label)
        return failures

    def _failures(self, error: LabError, backend: Backend) -> Iterator[Observation]:
        """Of what there is no time now: the headline of a batch job too."""
        exit_code = error.exit_code if isinstance(error, LaunchError) and not isinstance(error, NotReady) else None
        for quantity in ("boot.total", *(["job.total"] if is_job(self.setup.scenario) else [])):
            yield failure(quantity, "seconds", error, kernel=backend.kernel.value, exit_code=exit_code)

    def _note_host(self, block: int, position: int, seen: Iterable[Observation]) -> None:
        """What was observed of the host itself: of no arm, no backend and no instance."""
        nobody = PlannedArm(label="", backend="")
        stamp = Stamp(arm=nobody, block=block, position=position, instance="", image="", session=self.session)
        self._append(stamp, seen)

    def _live(self, backend: Backend, stamp: Stamp) -> None:
        treatment = self.setup.treatment(stamp.arm)
        request = self._request(stamp.instance, treatment)
        label = f"{'warm-up' if stamp.block <= WARM_UP else f'block {stamp.block}'}, {stamp.arm.label}"
        self.watch.doing(f"{label}: making ready")
        backend.rehearse(request)
        with ExitStack() as host:
            for name, level in treatment.host.items():
                self.watch.doing(f"{label}: setting {name} to {level}")
                request = self.host[name].asked(level, request)
                self._append(stamp, host.enter_context(self.host[name].at(level, backend, request)))
            subject = Subject.before_launch(
                scenario=self.setup.scenario,
                network=self.site.network,
                idle_seconds=self.setup.idle_seconds,
                beside=self.client.run,
            )
            self.watch.doing(f"{label}: booting")
            with backend.launch(request) as instance:
                self._accompany(backend, instance, subject, stamp, label)
            self._append(stamp, (o for metric in self.setup.metrics for o in metric.ended(subject)))

    def _accompany(self, backend: Backend, instance: Instance, subject: Subject, stamp: Stamp, label: str) -> None:
        """From the launch until all is observed that is observed of a running instance."""
        subject.launched(instance)
        wait_ready(subject)
        stamp.accelerator = instance.accelerator
        if is_job(self.setup.scenario):
            self._accompany_job(backend, instance, subject, stamp, label)
        elif is_silent(self.setup.scenario):
            self._accompany_silent(backend, instance, subject, stamp, label)
        else:
            stamp.kernel = self._kernel(backend, instance)
            self._append(stamp, self._ready(subject))
            self._append(stamp, self._observe(backend, instance, subject, stamp, label))

    def _accompany_silent(
        self, backend: Backend, instance: Instance, subject: Subject, stamp: Stamp, label: str
    ) -> None:
        """One that is asked nothing: nothing counts before it is seen not to fail, its start included."""
        ready = list(self._ready(subject))
        try:
            if linger(instance, self.setup.linger_seconds):
                stamp.kernel = self._kernel(backend, instance)
                seen = list(self._observe(backend, instance, subject, stamp, label))
                require_success(instance, None if ended(seen) else instance.wait(0.0))
                self._append(stamp, (*ready, *seen))
                return
        except (LabError, OSError):
            code = instance.wait(ENDING_SECONDS)
            if code is None:
                raise
            require_success(instance, code)
        self.watch.note(f"{instance.name} ended by itself (exit code 0): only its start was measured")
        self._append(stamp, ready)

    def _accompany_job(
        self, backend: Backend, instance: Instance, subject: Subject, stamp: Stamp, label: str
    ) -> None:
        """One that ends by itself: its time counts once it has. Another copy, which waits, is asked in its place."""
        ready = list(self._ready(subject))
        self.watch.doing(f"{label}: until it is done")
        wait_done(instance, platform().patience * self.setup.scenario.ready_timeout_seconds)
        self._append(stamp, (*ready, *(o for metric in self.setup.metrics for o in metric.done(subject))))
        if stamp.block <= WARM_UP:
            with self._waiting(backend, stamp, "asked") as asked:
                asked.wait_executed()
                stamp.kernel = self._kernel(backend, asked)
                self._append(stamp, self._ask(backend, asked, stamp, label))

    def _waiting(self, backend: Backend, stamp: Stamp, word: str) -> Instance:
        request = self._request(f"{word}-{stamp.instance}", waiting(self.setup.treatment(stamp.arm)))
        return backend.launch(replace(request, knobs=backend.carrying(request.knobs)))

    def _ready(self, subject: Subject) -> Iterator[Observation]:
        return (o for metric in self.setup.metrics for o in metric.ready(subject))

    def _observe(
        self, backend: Backend, instance: Instance, subject: Subject, stamp: Stamp, label: str
    ) -> Iterator[Observation]:
        """What is observed of one that runs: of a warm-up what it answers, else how it idles and works."""
        if stamp.block <= WARM_UP:
            return self._ask(backend, instance, stamp, label)
        return self._work(subject, label)

    def _ask(self, backend: Backend, instance: Instance, stamp: Stamp, label: str) -> Iterator[Observation]:
        """What is asked once: each arm's limits as they are seen; of each backend, in one session, the probes."""
        self._note_parity(stamp.arm.label, limits=limits_seen(instance, backend.kernel))
        if self.setup.isolation and not backend.opaque and self.session == 1 and stamp.arm.is_reference:
            self.watch.doing(f"{label}: isolation probes")
            began = now()
            yield from ask_all(instance, backend, again=lambda: self._waiting(backend, stamp, "again"))
            self.asked_seconds += now() - began

    def _work(self, subject: Subject, label: str) -> Iterator[Observation]:
        """Idle, load, after load."""
        self.watch.doing(f"{label}: idle")
        for metric in self.setup.metrics:
            yield from metric.idle(subject)
        self.watch.doing(f"{label}: under load")
        for metric in self.setup.metrics:
            yield from metric.loaded(subject)

    def _append(self, stamp: Stamp, observations: Iterable[Observation]) -> None:
        for observation in observations:
            self.folder.append(stamp.sample(observation))

    def _request(self, name: str, treatment: Treatment) -> LaunchRequest:
        return LaunchRequest(
            name=name,
            image=treatment.image,
            process=treatment.process,
            limits=treatment.limits,
            log_directory=self.folder.log_directory(name),
            knobs=treatment.knobs,
        )

    def _kernel(self, backend: Backend, instance: Instance) -> str:
        """The release of the kernel that serves the instance; asked once per backend, where that can be asked."""
        if backend.name not in self.kernels:
            self.kernels[backend.name] = "" if backend.opaque else kernel_release(instance).strip()
            arms = tuple(
                replace(arm, kernel=self.kernels[backend.name], accelerator=instance.accelerator)
                if arm.backend == backend.name
                else arm
                for arm in self.folder.run.arms
            )
            self.folder.update(arms=arms)
        return self.kernels[backend.name]


def _at(levels: Mapping[str, str]) -> str:
    """``, firmware=ovmf``; nothing without levels."""
    return "".join(f", {name}={level}" for name, level in levels.items())


__all__ = ["WARM_UP", "Experiment", "Run", "Setup"]
