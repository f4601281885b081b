"""A sweep carried out: dask.distributed hands each host its tasks, one at a time; this notes what becomes of them.

An image first, then the runs of it. A result counts once it lies whole in the sweep's folder; then its host may
forget it. Whatever ends this process at any moment, ``lab sweep --resume`` goes on: what has arrived is not asked for
again, what a host has measured is fetched, and what was interrupted there goes on where it was.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import dask

from lab.commands.output import say
from lab.commands.polite import LAB
from lab.commands.sweeping.engine import SETTINGS, Client, LocalCluster, hush
from lab.commands.sweeping.host import lab_digest
from lab.commands.sweeping.ledger import Sweep, Task
from lab.commands.sweeping.links import LOOPBACK, Link, make_keys
from lab.commands.sweeping.wire import Do, Request, State
from lab.commands.sweeping.worker import ENDS_WITHIN_SECONDS, TOPIC, Keys, TaskFailed, ask, resource_of, voice_of
from lab.errors import LabError, ResultsError, UsageError
from lab.host.home import home
from lab.host.identity import private

SAME_IMAGE = "docs/sweeping.md tells how all get the same image"
MOST_DEATHS = 3
"""So many workers may end while they measure a task, before it counts as failed."""
LOOK_SECONDS = 0.5
ARRIVALS = 2
"""So often a result is fetched that did not arrive as it was sent."""
JOIN_SECONDS = 15.0


@dataclass(slots=True)
class Driver:
    """``scheduler`` is one of somebody else's, at a tls:// address, with its workers; empty: one of its own."""

    sweep: Sweep
    keys: Keys
    scheduler: str = ""
    _client: Any = None
    _inbox: queue.Queue[Callable[[], None]] = field(default_factory=queue.Queue)
    _futures: set[Any] = field(default_factory=set)
    _measuring: dict[str, Any] = field(default_factory=dict)
    _left: dict[str, Task] = field(default_factory=dict)
    _images: dict[str, str] = field(default_factory=dict)
    _deaths: dict[str, int] = field(default_factory=dict)
    _spoilt: dict[str, int] = field(default_factory=dict)
    _given_up: dict[str, str] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Until each task has an end, or none of those that are left can be reached. Raises LabError."""
        if self.sweep.lab != lab_digest():
            raise UsageError(
                "this sweep was begun by another lab", hint="check that commit out, or start a new sweep"
            )
        private.make_folder(home())
        settings = {**SETTINGS, "temporary-directory": str(home())}
        with self.sweep.held(), dask.config.set(settings):
            standings = self.sweep.standings()
            self._left = {each.id: each for each in self.sweep.tasks if standings[each.id].state is not State.DONE}
            self._images = self.sweep.images()
            unconfirmed = [
                each
                for each in self.sweep.tasks
                if standings[each.id].state is State.DONE and each.id not in self.sweep.confirmed()
            ]
            if not self._left and not unconfirmed:
                return
            with ExitStack() as stack:
                self._client = stack.enter_context(self._connected())
                self._client.subscribe_topic(TOPIC, lambda event: self._inbox.put(lambda: self._hear(event[1])))
                stack.enter_context(self._links())
                for task in unconfirmed:
                    self._confirm(task)
                for host, scenario in dict.fromkeys((each.host, each.scenario) for each in self._left.values()):
                    self._prepare(host, scenario)
                self._attend()

    def _attend(self) -> None:
        while self._futures and not self._all_given_up():
            with suppress(queue.Empty):
                self._inbox.get(timeout=LOOK_SECONDS)()

    def _all_given_up(self) -> bool:
        """Whether what is left is on hosts alone that can't be reached."""
        waiting = {each.host for each in self._left.values()}
        return bool(self._given_up) and waiting <= set(self._given_up) and not self._reachable_futures()

    def _reachable_futures(self) -> bool:
        return any(future.key.split("/")[1] not in self._given_up for future in self._futures)

    def _ask(
        self, host: str, request: Request, name: str, resource: str, then: Callable[[Any], None], after: int = 0
    ) -> Any:
        """Let dask ask ``host`` as soon as its ``resource`` is free, those with a low ``after`` first."""
        retries = 0 if request.do is Do.FORGET else self.sweep.plan.retries
        future = self._client.submit(
            ask, request.line(), name, key=f"{request.do}/{host}/{name}/{time.time_ns()}", resources={resource: 1},
            retries=retries, pure=False, priority=-after,
        )  # fmt: skip
        self._futures.add(future)
        future.add_done_callback(lambda done: self._inbox.put(lambda: self._take(done, then)))
        return future

    def _take(self, future: Any, then: Callable[[Any], None]) -> None:
        if future in self._futures:
            self._futures.discard(future)
            if future.status in ("cancelled", "lost"):  # by nobody here
                raise LabError("the scheduler is gone", hint=f"lab sweep --resume {self.sweep.path}")
            then(future)
            future.release()

    def _request(self, do: Do, name: str, scenario: str) -> Request:
        plan = self.sweep.plan
        return Request(
            do=do, ids=(name,), scenario=scenario, options=plan.options, lab=self.sweep.lab,
            files=self.sweep.files[scenario], image=self._images.get(scenario, ""), busy=plan.busy,
            patience_seconds=plan.patience_seconds,
        )  # fmt: skip

    def _prepare(self, host: str, scenario: str) -> None:
        tasks = [each for each in self._left.values() if (each.host, each.scenario) == (host, scenario)]

        def then(future: Any) -> None:
            state, why, found = _outcome(future)
            image = str(found.get("image", ""))
            if state is State.DONE:
                if scenario not in self._images:
                    self._images[scenario] = image
                    self.sweep.note("", State.DONE, f"{host} settles it", scenario=scenario, image=image)
                if image != self._images[scenario]:
                    state = State.REFUSED
                    why = f"{host} builds {scenario} as {image} and not {self._images[scenario]}: {SAME_IMAGE}"
            for task in tasks:
                if state is State.DONE:
                    self._measure(task)
                else:
                    self._end(task, State.FAILED if state is State.PENDING else state, why)

        name = f"{tasks[0].id}-image"
        self._ask(host, self._request(Do.PREPARE, name, scenario), name, resource_of(host), then)

    def _measure(self, task: Task) -> None:
        def then(future: Any) -> None:
            self._measuring.pop(task.id, None)
            state, why, found = _outcome(future)
            if state is State.DONE:
                try:
                    self.sweep.place(task, found["files"], found["data"])
                except (LabError, KeyError, TypeError, ValueError) as error:
                    state, why = State.PENDING, str(error)
            if state is State.PENDING:
                self._spoilt[task.id] = self._spoilt.get(task.id, 0) + 1
                if self._spoilt[task.id] < ARRIVALS:
                    say(f"lab: {task.id}: {why}; fetching it again")
                    self._measure(task)
                    return
                state = State.FAILED
            self._end(task, state, why)
            if state is State.DONE:
                self._confirm(task)

        request = self._request(Do.MEASURE, task.id, task.scenario)
        self._measuring[task.id] = self._ask(task.host, request, task.id, resource_of(task.host), then, task.number)

    def _confirm(self, task: Task) -> None:
        """Its host may forget it. If that can't be said now, the next ``--resume`` does."""

        def then(future: Any) -> None:
            if _outcome(future)[0] is State.DONE:
                self.sweep.note(task.id, State.DONE, confirmed=True)

        self._ask(task.host, Request(do=Do.FORGET, ids=(task.id,)), task.id, voice_of(task.host), then)

    def _end(self, task: Task, state: State, why: str) -> None:
        if self._left.pop(task.id, None) is not None:
            self.sweep.note(task.id, state, why)
            done = len(self.sweep.tasks) - len(self._left)
            say(f"lab: [{done}/{len(self.sweep.tasks)}] {task.id}: {state}{why and ': '}{why}")

    def _hear(self, event: Mapping[str, str]) -> None:
        """What a worker says of a task."""
        if (name := event["task"]) in self._left and self._told.get(name) != event["state"]:
            self._told[name] = event["state"]
            self.sweep.note(name, State(event["state"]), event["why"])
            say(f"lab: {name}: {event['state']} {event['why']}".rstrip())

    def _lose(self, host: str, why: str, given_up: bool) -> None:
        """A host's worker has ended, or did not begin."""
        news = given_up or self._told.get(host) != why
        if news:
            self._told[host] = why
            say(f"lab: {host}: {why}{'; given up' if given_up else ''}")
        if given_up:
            self._given_up[host] = why
        for name, task in list(self._left.items()):
            if task.host != host:
                continue
            if state := self._told.pop(name, ""):
                self._deaths[name] = self._deaths.get(name, 0) + (state == State.MEASURING)
                self.sweep.note(name, State.PENDING, f"its worker ended: {why}")
            elif news:
                self.sweep.note(name, State.PENDING, f"{host} is not there: {why}")
            if self._deaths.get(name, 0) > MOST_DEATHS and (future := self._measuring.pop(name, None)) is not None:
                self._futures.discard(future)
                future.cancel()
                self._end(task, State.FAILED, f"{self._deaths[name]} workers ended while measuring it: {why}")

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        hush()
        with ExitStack() as stack:
            where: Any = self.scheduler
            security = self.keys.security()
            if not where:
                where = stack.enter_context(
                    LocalCluster(
                        n_workers=0, host=LOOPBACK, protocol="tls://", security=security,
                        dashboard_address=f"{LOOPBACK}:0", silence_logs=logging.CRITICAL,
                    )
                )  # fmt: skip
            try:
                client = stack.enter_context(Client(where, security=security, timeout=JOIN_SECONDS))
            except OSError as error:
                raise LabError(
                    f"{self.scheduler} can't be reached: {error}", hint="are the keys its own, and is it up?"
                ) from error
            yield client

    @contextmanager
    def _links(self) -> Iterator[None]:
        """A worker for each host, and an end to all of them and what they measure, before this ends."""
        if self.scheduler:
            try:
                yield
            finally:
                self._client.cancel(list(self._futures), force=True)
            return
        local = (*LAB, "sweep", "host", "--scenarios", self.sweep.plan.folder)
        where = self._client.scheduler.address
        links = [Link(host, where, self.keys, local, self._heard_of) for host in self.sweep.hosts]
        try:
            for link in links:
                link.start()
            yield
        finally:
            for link in links:
                link.stop()
            for link in links:
                if link.ident is not None:
                    link.join(ENDS_WITHIN_SECONDS + 20)

    def _heard_of(self, host: str, why: str, given_up: bool) -> None:
        self._inbox.put(lambda: self._lose(host, why, given_up))


def _outcome(future: Any) -> tuple[State, str, Mapping[str, Any]]:
    """What became of a question: an end, why, and the whole answer. Pending: there is one, which did not arrive."""
    if future.status == "finished":
        try:
            found = future.result(timeout=600)
            return State(found["state"]), str(found["why"]), found
        except (OSError, TimeoutError, KeyError, TypeError, ValueError, ResultsError) as error:
            return State.PENDING, f"its result did not arrive: {error or type(error).__name__}", {}
    failure = future.exception(timeout=60) if future.status == "error" else future.status
    told = str(failure) if isinstance(failure, TaskFailed | str) else f"{type(failure).__name__}: {failure}"
    return State.FAILED, told, {}


def begin(sweep: Sweep, scheduler: str = "", keys: Keys | None = None) -> None:
    """Carry out what is left of ``sweep``. Raises LabError."""
    Driver(sweep, keys or make_keys(), scheduler).run()
