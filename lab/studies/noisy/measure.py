"""The story of a noisy neighbour: what one instance can do to another on the same host, and what stops it.

    for each block, each backend, without limits and with the scenario's, in a random order:
    1. launch       a victim and, beside it on the same backend, an aggressor; both are the same image
    2. warm up      the victim under the scenario's load, unrecorded, until it answers no faster than before
    3. for quiet and each kind of disturbance, in a random order: the same load while the aggressor does nothing, or
       disturbs
    4. stop         both; a victim that did not survive is launched and warmed up anew before the next kind

Everything is bounded twice: each disturbance by an amount and a time of its own (`lab/inside/disturb.c`), and the
whole session by a cgroup around all its instances, "without limits" too: the host keeps memory, a part of a processor
and process ids for itself. Whether that suffices is measured: a process outside tells how late it was woken.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum

from lab.backends.site import Site
from lab.errors import LabError
from lab.experiment.measurement import Measurement
from lab.experiment.setup import Setup
from lab.experiment.stamp import failure
from lab.experiment.watch import Watch
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.delegation import group_of
from lab.host.command import run as run_command
from lab.host.survey import facts
from lab.host.units import MIB
from lab.instance import INSIDE, Backend, Instance
from lab.metrics.base import Observation
from lab.metrics.clients import wrk
from lab.metrics.clients.wrk import LoadResult
from lab.model import Kernel, Limits, Load
from lab.record import replace as replace_record
from lab.results.record import Status
from lab.results.store import RunFolder
from lab.runtime.cgroup import resources
from lab.runtime.cgroup.instances import limited
from lab.runtime.config.model import Resources

RATE, LATENCY, SURVIVED, WOKEN = "noisy.rate", "noisy.latency.p99", "noisy.survived", "noisy.host_delay"
QUIET = "quiet"
SETTLE_SECONDS = 0.5
SPARE_SECONDS = 20.0
PATIENCE = 3.0
"""So many times longer than elsewhere may it take to be ready: the host is loaded, and no boot is measured."""

FASTER = 1.25
"""Who has just started fills its caches, and what emulates it translates: until a load is answered no such factor
faster than the ones before, the victim is warming up."""
MOST_WARM_UPS = 10
WARM_UP_SECONDS = 1.0

PULSE_SECONDS = 0.01
MOST_MEMORY_BYTES = 3 << 30
LEAST_MEMORY_BYTES = 512 * MIB
MOST_PIDS = 2048
HOSTS_CPUS = 0.25
"""What of the processors stays the host's, whatever happens inside."""

DEFAULT_LIMITS = Limits(memory_bytes=256 * MIB, cpus=1.0, pids=256)
"""For what the scenario leaves open."""

PULSE = """
import json, sys, time
until, late = time.monotonic() + float(sys.argv[1]), []
while time.monotonic() < until:
    began = time.monotonic()
    time.sleep(float(sys.argv[2]))
    late.append(time.monotonic() - began - float(sys.argv[2]))
late.sort()
print(json.dumps({"p99": late[len(late) * 99 // 100], "most": late[-1], "times": len(late)}))
"""


class Neighbour(StrEnum):
    """What the aggressor does; the words are those of ``inside disturb``, but for RECEIVE: it is flooded itself."""

    CPU = "cpu"
    MEMORY = "memory"
    FORKS = "forks"
    DISK = "disk"
    CACHE = "cache"
    INODES = "inodes"
    FULL = "full"
    FILES = "files"
    WATCHES = "watches"
    SEND = "send"
    RECEIVE = "receive"


class Confined(StrEnum):
    """Whether victim and aggressor have limits of their own, inside the bound around both."""

    NOT = "without limits"
    BY_LIMITS = "with limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What all instances of the session may use together."""

    limits: Limits

    @classmethod
    def of_this_host(cls, wanted: Limits) -> Bound:
        """Half of the free memory at most, and a part of a processor less than there are; what one instance is
        limited to fits in twice, for memory.
        """
        available = int(facts.memory()["available_bytes"])
        memory = max(LEAST_MEMORY_BYTES, min(available // 2, MOST_MEMORY_BYTES))
        cpus = max((os.cpu_count() or 1) - HOSTS_CPUS, wanted.cpus or 0.0)
        if wanted.memory_bytes is not None and 2 * wanted.memory_bytes > available // 2:
            raise LabError(
                f"two instances of {wanted.memory_bytes // MIB} MiB are more than half of the free memory",
                hint="give a smaller --memory",
            )
        memory = max(memory, 2 * (wanted.memory_bytes or 0) + LEAST_MEMORY_BYTES)
        return cls(limits=Limits(memory_bytes=memory, cpus=cpus, pids=MOST_PIDS))

    def amount(self, kind: Neighbour, *, machine: bool) -> int:
        """How much of it the aggressor wants: more than any limit allows, less than would hurt the host. A machine's
        /dev/shm is in its own RAM, which the bound holds.
        """
        memory = self.limits.memory_bytes or LEAST_MEMORY_BYTES
        return {
            Neighbour.CPU: 2 * (os.cpu_count() or 1),
            Neighbour.MEMORY: memory * 5 // 4,
            Neighbour.FORKS: MOST_PIDS // 2,
            Neighbour.DISK: 256 * MIB,
            Neighbour.CACHE: memory * 5 // 4,
            Neighbour.INODES: 20_000,
            Neighbour.FULL: memory if machine else 64 * MIB,
            Neighbour.FILES: 20_000,
            Neighbour.WATCHES: 32,
            Neighbour.SEND: 1,
            Neighbour.RECEIVE: 1,
        }[kind]


def without_limits(kernel: Kernel, memory_bytes: int | None) -> Limits:
    """None; but a machine has some size in any case: all processors of the host's, and no more memory than with
    limits, since two of them must fit in the bound. User-mode Linux has one processor, of which a limit is a quota.
    """
    if not kernel.is_guest:
        return Limits()
    processors = float(os.cpu_count() or 1) if kernel is Kernel.OWN else None
    return Limits(memory_bytes=memory_bytes, cpus=processors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What to do: kinds of disturbance, how long each is looked at, and how often all of it is repeated."""

    kinds: tuple[Neighbour, ...]
    seconds: int
    blocks: int
    seed: int
    confined: tuple[Confined, ...] = (Confined.NOT, Confined.BY_LIMITS)


@dataclass(slots=True, kw_only=True)
class _Pair:
    """A victim and its neighbour while they stand."""

    backend: Backend
    confined: Confined
    block: int
    victim: Instance
    aggressor: Instance
    stack: ExitStack = field(default_factory=ExitStack)


class Noisy(Measurement):
    """One measurement of victims and their neighbours."""

    def __init__(
        self, site: Site, setup: Setup, wishes: Wishes, folder: RunFolder, watch: Watch, engines: Sequence[str] = ()
    ) -> None:
        """``engines`` are the backends whose programs live beside their instances: within the bound, too."""
        load = setup.scenario.load
        if load is None or setup.scenario.port is None:
            raise LabError(f"{setup.scenario.name} has no load", hint="a [load] table in its scenario.toml")
        patient = replace(setup.scenario, ready_timeout_seconds=PATIENCE * setup.scenario.ready_timeout_seconds)
        super().__init__(site, replace(setup, scenario=patient), folder, watch)
        self.wishes = wishes
        self.load: Load = load
        self.limits = fill(setup.limits)
        self.bound = Bound.of_this_host(self.limits)
        self.engines = tuple(engines)
        self._done = 0
        self._random = random.Random(wishes.seed)

    def run(self, backends: Sequence[str]) -> None:
        """All of it. Whatever ends it, the folder says why."""
        self.folder.conclude(lambda: self._all_blocks(backends))

    def _all_blocks(self, backends: Sequence[str]) -> str:
        with self._bounded() as around:
            chosen = list(self.prepared(backends))
            for block in range(1, self.wishes.blocks + 1):
                places = [(backend, confined) for backend in chosen for confined in self.wishes.confined]
                self._random.shuffle(places)
                for backend, confined in places:
                    expected = self._done + 1 + len(self.wishes.kinds)
                    try:
                        self._one_place(backend, confined, block, around, len(places))
                    except LabError as error:  # the others can tell something still
                        self._failed(backend, confined, block, error)
                    self._done = expected
        return "done"

    @contextmanager
    def _bounded(self) -> Iterator[ControlGroup]:
        """The cgroup around all instances of the session, limited. It stays while one below it does. The programs of
        an Engine live in it, too, as long as the session does.
        """
        wanted = _around_others(self.bound.limits)
        around = ControlGroup.open(group_of(self.site.session.id))
        with ExitStack() as stack:
            if self.engines and around.exists():
                resources.update(around.group, wanted)
            else:
                if around.exists():  # by the copy that was looked at beforehand, and empty now
                    around.remove()
                around = limited(group_of(self.site.session.id), wanted)
            if not self.engines:
                stack.callback(around.remove)
            keeper = limited(group_of(self.site.session.id, "keeper"), Limits())
            stack.callback(keeper.remove, keep_parents=True)
            yield around

    def _one_place(self, backend: Backend, confined: Confined, block: int, around: ControlGroup, places: int) -> None:
        """One pair: quiet and each kind, in a random order."""
        kinds = [None, *self.wishes.kinds]
        self._random.shuffle(kinds)
        whole = self.wishes.blocks * places * len(kinds)
        pair = self._start(backend, confined, block)
        try:
            for kind in kinds:
                self.watch.progress(self._done, whole)
                self.watch.doing(f"{backend.name} {confined}: {kind or QUIET}")
                self._done += 1
                if not self._observe(pair, kind, around):
                    pair.stack.close()
                    pair = self._start(backend, confined, block)
        finally:
            pair.stack.close()

    def _start(self, backend: Backend, confined: Confined, block: int) -> _Pair:
        """Victim and aggressor, both of which have answered, the victim warm. One after the other: two emulated
        machines that boot at once on few processors are slower than the readiness of one allows.
        """
        limits = (
            self.limits
            if confined is Confined.BY_LIMITS
            else without_limits(backend.kernel, self.limits.memory_bytes)
        )
        with ExitStack() as stack:
            instances = []
            for role in ("victim", "aggressor"):
                name = f"{backend.slug}-{role}-{self._done}"
                wanted = replace(self.request(name), limits=limits)
                instances.append(stack.enter_context(self.serving(backend, wanted)).instance)
            victim, aggressor = instances
            warm_up(lambda: self._offer(victim, WARM_UP_SECONDS).requests_per_second)
            pair = _Pair(backend=backend, confined=confined, block=block, victim=victim, aggressor=aggressor)
            pair.stack = stack.pop_all()
        return pair

    def _offer(self, victim: Instance, seconds: float) -> LoadResult:
        load = replace(self.load, duration_seconds=seconds)
        return wrk.offer(self.site.network, victim.address, self.setup.scenario.port or 0, load)

    def _observe(self, pair: _Pair, kind: Neighbour | None, around: ControlGroup) -> bool:
        """The load, maybe beside a disturbance; whether the victim answers afterwards."""
        for group in (pair.aggressor.cgroup, around):
            group.forget_peak()
        before, outer = pair.aggressor.cgroup.limit_hits(), around.limit_hits()
        why, seen = "", None
        told: Mapping[str, object] = {}
        with ThreadPoolExecutor(2, "lab-noisy") as threads:
            disturbing = threads.submit(self._disturb, pair, kind) if kind else None
            if kind:
                time.sleep(SETTLE_SECONDS)
            pulse = threads.submit(feel_pulse, self.wishes.seconds)
            try:
                seen = self._offer(pair.victim, self.wishes.seconds)
            except LabError as error:
                why = error.message
            late = pulse.result()
            told = disturbing.result() if disturbing else {}
        well = seen is not None and seen.requests > 0 and not any(seen.errors.values())
        survived = pair.victim.wait(0) is None and (well or self._answers(pair))
        hits = {
            **_risen(before, pair.aggressor.cgroup.limit_hits()),
            **{f"bound {name}": count for name, count in _risen(outer, around.limit_hits()).items()},
        }
        detail = {
            "kind": kind or QUIET,
            "limits": str(pair.confined),
            "hits": hits,
            "aggressor": told,
            "aggressor_lives": pair.aggressor.wait(0) is None,
            "machine": pair.backend.kernel.is_guest,
        }
        observed = observations(seen, why, survived, late)
        self._append(pair.backend, pair.block, pair.victim.name, detail, *observed)
        return survived and pair.aggressor.wait(0) is None

    def _disturb(self, pair: _Pair, kind: Neighbour) -> Mapping[str, object]:
        """What the aggressor says it could do; a failure is an answer, since limits may kill it or refuse it."""
        seconds = self.wishes.seconds + 1
        if kind is Neighbour.RECEIVE:
            return self._flood(pair.aggressor, seconds)
        amount = self.bound.amount(kind, machine=pair.backend.kernel.is_guest)
        words = [str(kind), str(seconds), str(amount)]
        if kind is Neighbour.SEND:
            words.append(str(pair.victim.address))
        try:
            done = pair.aggressor.inside("disturb", *words, timeout_seconds=seconds + SPARE_SECONDS)
        except LabError as error:
            return {"failed": error.message}
        with suppress(ValueError):
            found: Mapping[str, object] = json.loads(done.stdout)
            return found
        return {"failed": done.stderr.decode(errors="replace").strip() or f"exit code {done.exit_code}"}

    def _flood(self, receiver: Instance, seconds: int) -> Mapping[str, object]:
        """Datagrams to the aggressor, from a third instance without a boundary; inside the bound around all."""
        name = f"sender-{self._done}"
        words = (INSIDE, "disturb", str(Neighbour.SEND), str(seconds), "1", str(receiver.address))
        process = replace(self.setup.process, argv=words)
        wanted = replace(self.request(name), process=process, limits=Limits())
        try:
            with self.site.backend("process").launch(wanted) as sender:
                sender.wait(seconds + SPARE_SECONDS)
            found: Mapping[str, object] = json.loads((wanted.log_directory / "stdout.log").read_bytes())
        except (LabError, ValueError) as error:
            return {"failed": str(error)}
        return found

    def _answers(self, pair: _Pair) -> bool:
        """Whether the victim serves its load again, now that nobody disturbs it."""
        with suppress(LabError):
            return self._offer(pair.victim, 1.0).requests > 0
        return False

    def _failed(self, backend: Backend, confined: Confined, block: int, error: LabError) -> None:
        """A pair that does not stand, or falls, is a result; what was not asked of it is missing."""
        self.watch.note(f"{backend.name} {confined}: {error.message}")
        detail = {"kind": QUIET, "limits": str(confined), "fell": True}
        failed = failure(RATE, "requests/s", error)
        self._append(backend, block, f"{backend.slug}-victim-{self._done}", detail, failed)

    def _append(
        self, backend: Backend, block: int, instance: str, detail: Mapping[str, object], *seen: Observation
    ) -> None:
        told = (replace(each, state="loaded", detail={**detail, **each.detail}) for each in seen)
        self.record(backend.name, block, instance, *told, position=self._done)


def warm_up(rate: Callable[[], float]) -> None:
    """Ask for a rate, which a load measures, until it is no longer much faster than before."""
    best = 0.0
    for _ in range(MOST_WARM_UPS):
        found = rate()
        if found <= FASTER * best:
            return
        best = found


def _around_others(limits: Limits) -> Resources:
    """Limits that bind groups below, too: old kernels of v1 want to be told."""
    wanted = resources.of_limits(limits)
    return replace_record(wanted, memory=wanted.memory and replace_record(wanted.memory, use_hierarchy=True))


def fill(limits: Limits) -> Limits:
    """``limits`` with the defaults for what they leave open."""
    return Limits(
        memory_bytes=limits.memory_bytes or DEFAULT_LIMITS.memory_bytes,
        cpus=limits.cpus or DEFAULT_LIMITS.cpus,
        pids=limits.pids or DEFAULT_LIMITS.pids,
    )


def observations(
    seen: LoadResult | None, failure: str, survived: bool, late: Mapping[str, float]
) -> tuple[Observation, ...]:
    """What is recorded of one load."""
    answered = seen is not None and seen.requests > 0
    status, text = (Status.OK, "") if answered else (Status.FAILED, failure or "no request was answered")
    return (
        Observation(
            quantity=RATE,
            value=seen.requests_per_second if seen is not None and answered else None,
            unit="requests/s",
            status=status,
            text=text,
            detail={"errors": dict(seen.errors) if seen else {}},
        ),
        Observation(
            quantity=LATENCY,
            value=seen.latency_seconds["p99"] if seen is not None and answered else None,
            unit="seconds",
            status=status,
            text=text,
        ),
        Observation(quantity=SURVIVED, value=float(survived), unit="1"),
        Observation(quantity=WOKEN, value=late["p99"], unit="seconds", detail={"most": late["most"]}),
    )


def feel_pulse(seconds: float) -> Mapping[str, float]:
    """How late a process outside all bounds is woken: the 99th percentile and the most, in seconds."""
    argv = [sys.executable, "-IS", "-c", PULSE, str(seconds), str(PULSE_SECONDS)]
    done = run_command(argv, timeout_seconds=seconds + 60.0)
    found: Mapping[str, float] = json.loads(done.stdout)
    return found


def _risen(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: after[name] - before.get(name, 0) for name in after if after[name] > before.get(name, 0)}
