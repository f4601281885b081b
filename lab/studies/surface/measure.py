"""The story of an attack surface counted: how much of the host's kernel an instance can reach, and how much it does.

    1. warm up      one instance per backend, untraced: every system call is made from inside, harmlessly, and set
                    beside what the filter says. What is done once per session only is done then
    2. idle host    what the kernel does anyway, if its functions can be traced
    3. for each round, each backend, in a random order:
       start        traced from before there is an instance, until it is ready
       idle         the same while nobody asks
       load         the same under the scenario's load, all of whose requests must be answered correctly

What does not come up, or answers wrongly, is recorded as that: a start that fails reaches little of a kernel.
"""

from __future__ import annotations

import errno
import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.backends.site import Site
from lab.errors import LabError
from lab.experiment.measurement import Measurement
from lab.experiment.setup import Setup
from lab.experiment.stamp import WARM_UP, failure
from lab.experiment.watch import Watch
from lab.host.tracing.recording import Tracing
from lab.instance import Backend, Instance
from lab.metrics.base import Observation
from lab.metrics.clients.wrk import LoadResult, offer
from lab.model import Kernel, Phase
from lab.results.store import RunFolder
from lab.runtime.config.model import Seccomp, from_json
from lab.runtime.seccomp.compiler import native
from lab.runtime.seccomp.profile import default_profile
from lab.studies.surface.lineage import Side
from lab.studies.surface.reach import (
    SKIPPED,
    Call,
    Outcome,
    compare,
    in_force,
    observe,
    observe_host,
    tell_answer,
)
from lab.studies.surface.tracing import Counts, Observer, TooSlow, Window, own_threads, threads_of

CALLS, HOST_CALLS, EXITS, FUNCTIONS = "surface.calls", "surface.host_calls", "surface.exits", "surface.functions"
START, IDLE, LOADED = "start", "idle", "loaded"
IDLE_SECONDS = 1.0
SETTLE_SECONDS = 0.3  # until processes that only answered whether it is ready have gone
THROUGH = (Outcome.ALLOWED, Outcome.ARGUMENTS, Outcome.PRIVILEGE)
"""The outcomes of a call that reaches the kernel's code for it, at least with some arguments."""


class Exposure(Measurement):
    """One count of attack surfaces."""

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
        super().__init__(site, setup, folder, watch)
        self.rounds = rounds
        self.functions = functions
        self._random = random.Random(seed)
        self._done = 0
        self._bare: Sequence[int | None] = ()

    def run(self, backends: Sequence[str]) -> None:
        """All of it. Whatever ends it, the folder says why."""
        self.folder.conclude(lambda: self._measure(backends))

    def _measure(self, backends: Sequence[str]) -> str:
        chosen = list(self.prepared(backends))
        self._bare = observe_host()
        for backend in chosen:
            self.watch.doing(f"{backend.name}: every system call")
            self._call(backend)
        with self._observed() as observer:
            if observer is not None:
                self._rounds(chosen, observer)
        return "done"

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
                window = self._window(observer, own_threads, lambda: time.sleep(IDLE_SECONDS), "the idle host")
                self.record("", WARM_UP, "", _functions(window.steady(), Side.KERNEL, IDLE))
            yield observer

    def _window(
        self, observer: Observer, threads: Callable[[], Collection[int]], action: Callable[[], None], what: str
    ) -> Window:
        """What ``action`` did; tried once more without functions where tracing them takes too long."""
        try:
            with observer.window(threads()) as window:
                action()
        except TooSlow as error:
            self._give_up_functions(observer, what, error)
            with observer.window(threads()) as window:
                action()
        return window

    def _give_up_functions(self, observer: Observer, what: str, error: TooSlow) -> None:
        """For the rest of the run, and say so: half of a comparison is worse than none."""
        why = f"tracing them takes too long on this host: {what}: {error.message}"
        observer.drop_functions(why)
        self._tell(no_functions=why)
        self.watch.doing("going on without functions, which take too long to trace here")

    def _tell(self, **facts: Any) -> None:
        self.folder.update(settings={**self.folder.run.settings, **facts})

    def _observe(self, backend: Backend, block: int, observer: Observer) -> None:
        """One instance, from its start to its end; its start again, without functions, where they take too long."""
        name = f"{backend.slug}-{block}"
        try:
            self._start(backend, block, observer)
        except TooSlow as error:
            self._give_up_functions(observer, f"a start of {backend.name}", error)
            self._observe(backend, block, observer)
        except LabError as error:
            self._fail(backend, block, name, START, error)

    def _start(self, backend: Backend, block: int, observer: Observer) -> None:
        wanted = self.request(f"{backend.slug}-{block}")
        with ExitStack() as stack:
            self.watch.doing(f"{backend.name}: start")
            with observer.window(own_threads()) as window:
                instance = stack.enter_context(self.serving(backend, wanted)).instance
                members = instance.cgroup.processes()
            stamps = instance.timeline.stamps()
            between = stamps[Phase.REQUESTED], stamps.get(Phase.RESPONDED) or max(stamps.values())
            kernel = None if backend.kernel is Kernel.HOST else backend.facing(instance)
            counts = window.start(members, wanted.process.argv[0], kernel, between)
            self._count(backend, block, wanted.name, START, counts)
            self._steady(backend, block, instance, observer)

    def _steady(self, backend: Backend, block: int, instance: Instance, observer: Observer) -> None:
        """Idle first, then the load."""
        load, port = self.setup.scenario.load, self.setup.scenario.port

        def threads() -> Collection[int]:
            return threads_of(instance.cgroup.processes())

        state = IDLE
        try:
            time.sleep(SETTLE_SECONDS)
            self.watch.doing(f"{backend.name}: idle")
            window = self._window(observer, threads, lambda: time.sleep(IDLE_SECONDS), f"{backend.name} idle")
            self._count(backend, block, instance.name, IDLE, window.steady())
            if load is None or port is None:
                return
            state = LOADED
            self.watch.doing(f"{backend.name}: load")
            answers: list[LoadResult] = []
            window = self._window(
                observer, threads, lambda: answers.append(offer(self.site.network, instance.address, port, load)),
                f"{backend.name} under load",
            )  # fmt: skip
            assert_answered(answers[-1])
            self._count(backend, block, instance.name, LOADED, window.steady(), requests=answers[-1].requests)
        except LabError as error:
            self._fail(backend, block, instance.name, state, error)

    def _call(self, backend: Backend) -> None:
        """Every system call from inside an instance that nobody traces."""
        wanted = self.request(f"{backend.slug}-{WARM_UP}")
        try:
            with self.serving(backend, wanted) as subject:
                confined = self._filter(backend, subject.instance)
                held = in_force(backend.facing(subject.instance)) if backend.own_filter else None
                seen = observe(subject.instance)
                profile = asked_for(type(backend), subject.instance.bundle)
        except LabError as error:
            self.record(backend.name, WARM_UP, wanted.name, failure(CALLS, "1", error))
            return
        on_host = backend.kernel is Kernel.HOST
        calls = compare(profile, seen, self._bare if on_host else seen, held)
        through = sum(call.outcome in THROUGH for call in calls)
        detail = {"calls": [described(call) for call in calls], "kernel": str(backend.kernel), "in_force": confined}
        reached = Observation(quantity=CALLS, value=float(through), unit="1", detail=detail)
        self.record(backend.name, WARM_UP, wanted.name, reached)

    def _filter(self, backend: Backend, instance: Instance) -> dict[str, Any]:
        """The filter in force for the application, or for the process that runs its kernel."""
        try:
            found = in_force(backend.facing(instance))
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
        seen = []
        for side in Side:
            calls = counts.calls.get(side, {})
            if calls or side is Side.INSTANCE:
                detail = {"side": str(side), "calls": dict(sorted(calls.items()))}
                seen.append(_counted(HOST_CALLS, sum(calls.values()), state, detail))
        seen.append(_counted(EXITS, counts.exits.get(Side.INSTANCE, 0), state, {"side": str(Side.INSTANCE)}))
        traced = (side for side in (Side.SETUP, Side.INSTANCE, Side.KERNEL) if side in counts.functions)
        seen += [_functions(counts, side, state) for side in traced]
        told = (replace(each, detail={**each.detail, **about}) for each in seen)
        self.record(backend.name, block, name, *told, position=self._done)

    def _fail(self, backend: Backend, block: int, name: str, state: str, error: LabError) -> None:
        failed = replace(failure(HOST_CALLS, "1", error, side=str(Side.INSTANCE)), state=state)
        self.record(backend.name, block, name, failed, position=self._done)


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


def _counted(quantity: str, count: int, state: str, detail: Mapping[str, Any]) -> Observation:
    return Observation(quantity=quantity, value=float(count), unit="1", state=state, detail=detail)


def _functions(counts: Counts, side: Side, state: str) -> Observation:
    names = sorted(counts.functions.get(side, ()))
    return _counted(FUNCTIONS, len(names), state, {"side": str(side), "functions": names})


def asked_for(backend: type[Backend], bundle: Path | None) -> Seccomp | None:
    """The filter that a container was to have: lab's default, or the one of ``bundle``, another's config.json.

    None where there is no filter on the host's kernel, or one that was not asked for.
    """
    if backend.kernel is not Kernel.HOST or not backend.confines or not backend.filtered or backend.own_filter:
        return None
    return from_json(json.loads(bundle.read_text()), lambda _: None).linux.seccomp if bundle else default_profile()
