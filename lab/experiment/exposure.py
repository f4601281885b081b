"""The story of an attack surface counted: how much of the host's kernel an instance can reach, and how much it does.

    1. warm up      one instance per backend, untraced: every system call is made from inside, harmlessly, and set
                    beside what the filter says. What is done once per session only is done then
    2. idle host    what the kernel does anyway, if its functions can be traced
    3. for each round, each backend, in a random order:
       start        traced from before there is an instance, until its first correct answer
       idle         the same while nobody asks
       load         the same under the scenario's load, all of whose requests must be answered correctly

What does not come up, or answers wrongly, is recorded as that: a start that fails reaches little of a kernel.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from lab.backends.site import Site
from lab.errors import LabError
from lab.experiment.lineage import Side
from lab.experiment.run import WARM_UP
from lab.experiment.setup import Setup
from lab.experiment.surface import (
    SKIPPED,
    Call,
    Outcome,
    compare,
    in_force,
    observe,
    observe_host,
    tell_answer,
)
from lab.experiment.tracing import Counts, Observer, own_threads, threads_of
from lab.experiment.watch import Watch
from lab.host.ledger import start_time
from lab.host.tracing import Tracing
from lab.instance import Backend, Instance, LaunchRequest
from lab.metrics.base import Subject
from lab.metrics.readiness import wait_ready
from lab.metrics.wrk import LoadResult, offer
from lab.model import Accelerator, Kernel, Phase
from lab.results.record import Sample, Status
from lab.results.store import RunFolder
from lab.runtime.profile import default_profile
from lab.runtime.seccomp import native

KIND = METRIC = "surface"
CALLS, HOST_CALLS, EXITS, FUNCTIONS = "surface.calls", "surface.host_calls", "surface.exits", "surface.functions"
START, IDLE, LOADED = "start", "idle", "loaded"
IDLE_SECONDS = 1.0
SETTLE_SECONDS = 0.3  # until processes that only answered whether it is ready have gone
THROUGH = (Outcome.ALLOWED, Outcome.ARGUMENTS, Outcome.PRIVILEGE)
"""The outcomes of a call that reaches the kernel's code for it, at least with some arguments."""


class Exposure:
    """One run, appended to ``folder`` as it is made."""

    def __init__(
        self,
        site: Site,
        setup: Setup,
        folder: RunFolder,
        watch: Watch,
        *,
        seed: int,
        rounds: int,
        functions: bool = True,
    ) -> None:
        self.site = site
        self.setup = setup
        self.folder = folder
        self.watch = watch
        self.rounds = rounds
        self.functions = functions
        self._random = random.Random(seed)
        self._done = 0
        self._bare: Sequence[int | None] = ()

    def run(self, backends: Sequence[str]) -> None:
        """All of it. Whatever ends it, the folder says why."""
        because = "error"
        try:
            chosen = [self.site.backend(name) for name in backends]
            for backend in chosen:
                self.watch.doing(f"preparing {backend.name}")
                backend.prepare(self.setup.image)
            self._bare = observe_host()
            for backend in chosen:
                self.watch.doing(f"{backend.name}: every system call")
                self._call(backend)
            with self._observed() as observer:
                if observer is not None:
                    self._rounds(chosen, observer)
            because = "done"
        except KeyboardInterrupt:
            because = "interrupted"
            raise
        except LabError as error:
            because = f"error: {error.message}"
            raise
        finally:
            self.folder.finish(because)

    def _rounds(self, chosen: Sequence[Backend], observer: Observer) -> None:
        for block in range(1, self.rounds + 1):
            for backend in self._random.sample(chosen, len(chosen)):
                self.watch.progress(self._done, self.rounds * len(chosen))
                self._observe(backend, block, observer)
                self._done += 1

    @contextmanager
    def _observed(self) -> Iterator[Observer | None]:
        """Who traces for the time of the run; None where the host does not let anybody. Why stands in the run."""
        with ExitStack() as stack:
            observer, why, hint = None, "", ""
            try:
                tracing = stack.enter_context(Tracing.make(self.site.session))
                observer = Observer(tracing, self.site.scratch, functions=self.functions)
            except LabError as error:
                why, hint = error.message, error.hint or ""
            self._tell(
                not_traced=f"{why} ({hint})" if hint else why,
                no_functions=observer.why_no_functions if observer else why,
                no_exits="" if observer and observer.counts_exits else "this kernel has no event kvm:kvm_exit",
                not_called=SKIPPED,
            )
            if observer and not observer.why_no_functions:
                self.watch.doing("tracing the idle host")
                with observer.window(own_threads()) as window:
                    time.sleep(IDLE_SECONDS)
                self._record(None, WARM_UP, "", FUNCTIONS, IDLE, *_functions(window.steady()))
            yield observer

    def _tell(self, **facts: Any) -> None:
        self.folder.update(settings={**self.folder.run.settings, "kind": KIND, **facts})

    def _observe(self, backend: Backend, block: int, observer: Observer) -> None:
        """One instance, from its start to its end."""
        request, subject = self._request(backend, block)
        with ExitStack() as stack:
            try:
                self.watch.doing(f"{backend.name}: start")
                with observer.window(own_threads()) as window:
                    instance = stack.enter_context(backend.launch(request))
                    subject.launched(instance)
                    wait_ready(subject)
                    members = instance.cgroup.processes()
                stamps = instance.timeline.stamps()
                between = stamps[Phase.REQUESTED], stamps.get(Phase.RESPONDED) or max(stamps.values())
                counts = window.start(members, request.process.argv[0], between)
            except LabError as error:
                self._fail(backend, block, request.name, START, error)
                return
            self._count(backend, block, request.name, START, counts)
            self._steady(backend, block, instance, observer)

    def _request(self, backend: Backend, block: int) -> tuple[LaunchRequest, Subject]:
        name = f"{backend.name}-{block}"
        request = LaunchRequest(
            name=name, image=self.setup.image, process=self.setup.process, limits=self.setup.limits,
            log_directory=self.folder.log_directory(name),
        )  # fmt: skip
        return request, Subject.before_launch(
            scenario=self.setup.scenario, network=self.site.network, idle_seconds=0.0
        )

    def _steady(self, backend: Backend, block: int, instance: Instance, observer: Observer) -> None:
        """Idle first, then the load."""
        load, port = self.setup.scenario.load, self.setup.scenario.port
        state = IDLE
        try:
            time.sleep(SETTLE_SECONDS)
            self.watch.doing(f"{backend.name}: idle")
            with observer.window(threads_of(instance.cgroup.processes())) as window:
                time.sleep(IDLE_SECONDS)
            self._count(backend, block, instance.name, IDLE, window.steady())
            if load is None or port is None:
                return
            state = LOADED
            self.watch.doing(f"{backend.name}: load")
            with observer.window(threads_of(instance.cgroup.processes())) as window:
                answered = offer(self.site.network, instance.address, port, load)
            assert_answered(answered)
            self._count(backend, block, instance.name, LOADED, window.steady(), requests=answered.requests)
        except LabError as error:
            self._fail(backend, block, instance.name, state, error)

    def _call(self, backend: Backend) -> None:
        """Every system call from inside an instance that nobody traces."""
        request, subject = self._request(backend, WARM_UP)
        try:
            with backend.launch(request) as instance:
                subject.launched(instance)
                wait_ready(subject)
                confined = self._filter(backend, instance)
                seen = observe(instance)
        except LabError as error:
            self._record(
                backend, WARM_UP, request.name, CALLS, "", None, {}, status=Status.FAILED, text=error.message
            )
            return
        on_host = backend.kernel is Kernel.HOST
        profile = default_profile() if on_host and backend.confines else None
        calls = compare(profile, seen, self._bare if on_host else seen)
        through = sum(call.outcome in THROUGH for call in calls)
        detail = {"calls": [described(call) for call in calls], "kernel": str(backend.kernel), "in_force": confined}
        self._record(backend, WARM_UP, request.name, CALLS, "", float(through), detail)

    def _filter(self, backend: Backend, instance: Instance) -> dict[str, Any]:
        """The filter in force for the application, its newest process, or a machine's monitor, its oldest."""
        ages = sorted(instance.cgroup.processes(), key=lambda pid: start_time(pid) or 0)
        try:
            found = in_force(ages[-1] if backend.kernel is Kernel.HOST else ages[0])
        except LabError as error:
            return {"not_read": error.message}
        table = native()
        absent = {name for name, number in table.items() if self._bare[number] == errno.ENOSYS}
        return {
            "filters": found.filters,
            "instructions": found.instructions,
            "calls": {
                name: [
                    str(Outcome.ABSENT if outcome is Outcome.ALLOWED and name in absent else outcome),
                    tell_answer(found.answers[name]),
                    table[name],
                ]
                for name, outcome in found.outcomes.items()
            },
        }

    def _count(
        self, backend: Backend, block: int, name: str, state: str, counts: Counts, *, requests: int = 0
    ) -> None:
        """Append what one window held, a sample for each side that did anything."""
        about = {"seconds": counts.seconds, "requests": requests, "lost": counts.lost}
        for side in Side:
            calls = counts.calls.get(side, {})
            if calls or side is Side.INSTANCE:
                detail = {"side": str(side), "calls": dict(sorted(calls.items())), **about}
                self._record(backend, block, name, HOST_CALLS, state, float(sum(calls.values())), detail)
        exits = float(counts.exits.get(Side.INSTANCE, 0))
        self._record(backend, block, name, EXITS, state, exits, {"side": str(Side.INSTANCE), **about})
        for side in (Side.SETUP, Side.INSTANCE, Side.KERNEL):
            if side in counts.functions:
                value, detail = _functions(counts, side)
                self._record(backend, block, name, FUNCTIONS, state, value, {**detail, **about})

    def _fail(self, backend: Backend, block: int, name: str, state: str, error: LabError) -> None:
        self._record(
            backend, block, name, HOST_CALLS, state, None, {"side": str(Side.INSTANCE)}, status=Status.FAILED,
            text=error.message,
        )  # fmt: skip

    def _record(
        self,
        backend: Backend | None,
        block: int,
        instance: str,
        quantity: str,
        state: str,
        value: float | None,
        detail: Mapping[str, Any],
        *,
        status: Status = Status.OK,
        text: str = "",
    ) -> None:
        label = backend.name if backend else ""
        arm = next((arm for arm in self.folder.run.arms if arm.label == label), None)
        self.folder.append(
            Sample(
                metric=METRIC,
                quantity=quantity,
                value=value,
                unit="1",
                backend=label,
                arm=label,
                block=block,
                position=self._done,
                warmup=block < 1,
                instance=instance,
                status=status,
                state=state,
                accelerator=arm.accelerator if arm else Accelerator.NATIVE,
                kernel=arm.kernel if arm else "",
                image=self.setup.image.digest,
                at=time.time(),
                text=text,
                detail=detail,
            )
        )


def assert_answered(result: LoadResult) -> None:
    """Raises LabError unless every request was answered correctly: who fails early looks lean."""
    if result.failed or not result.requests:
        raise LabError(f"{result.failed} of {result.requests + result.failed} requests were not answered correctly")


def described(call: Call) -> dict[str, Any]:
    """A call as it is kept in a run."""
    return {
        "number": call.number, "name": call.name, "outcome": str(call.outcome), "filter": str(call.filtered),
        "seen": call.told, "agrees": call.agrees,
    }  # fmt: skip


def _functions(counts: Counts, side: Side = Side.KERNEL) -> tuple[float, dict[str, Any]]:
    names: Collection[str] = counts.functions.get(side, frozenset())
    return float(len(names)), {"side": str(side), "functions": sorted(names)}
