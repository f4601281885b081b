"""One build in progress: what its stages share, and the threads they run in.

Every stage that the target needs gets a thread, and waits for another stage where it needs it: at its FROM, or at the
first instruction that takes files from it. The first error ends the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from lab.images.dockerfile.graph import Stages
from lab.images.dockerfile.instructions import Dockerfile, Stage
from lab.images.layers import Layer
from lab.images.ociconfig import Step
from lab.images.progress import Event, Progress
from lab.images.runner import StepRunner
from lab.images.stages.bases import resolve_base
from lab.images.stages.cache import Cache
from lab.images.stages.copy_sources import CopySource
from lab.images.stages.mounts import Offer
from lab.images.store import Base, Image, Store
from lab.model import ImageConfig

AGAIN_SECONDS = 0.2


class Stopped(Exception):
    """This stage ends because another one failed, or somebody interrupted the build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``lab build`` is asked for besides context, Dockerfile and name.

    ``cache_from`` are names of images whose history may hold layers; ``labels`` are put on top of the Dockerfile's.
    """

    target: str = ""
    use_cache: bool = True
    pull: bool = False
    offer: Offer = field(default_factory=Offer)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a stage came to."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    history: tuple[Step, ...]
    base: Base | None


BuildStage = Callable[["Job", Stage], Built]
BuildRecipe = Callable[[str, str], Image]


@dataclass(slots=True, kw_only=True)
class Job:
    """The parts of one build. ``arguments`` are the global ones; ``titled`` says that events name their stage."""

    parsed: Dockerfile
    stages: Stages
    context: CopySource | None
    build_args: Mapping[str, str]
    arguments: Mapping[str, str]
    options: Options
    store: Store
    runner: StepRunner
    cache: Cache
    listener: Progress
    build_stage: BuildStage
    build_recipe: BuildRecipe
    titled: bool = False
    _futures: dict[int, Future[Built]] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _bases: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None

    def run(self, target: Stage) -> Built:
        """Build ``target`` and what it needs. Raises the first error of any stage; no thread is left then."""
        needed = self.stages.needed(target)
        self.titled = len(needed) > 1
        try:
            for stage in needed:
                self.request(stage)
            wanted = self.request(target)
            while not wait([wanted], AGAIN_SECONDS).done:
                self._stop_steps()
            try:
                return wanted.result()
            except Stopped:
                assert self._error is not None, "a stage stops for a reason"
                raise self._error from None
        finally:
            self._end()

    def request(self, stage: Stage) -> Future[Built]:
        """The stage's result, begun if it was not yet: the trigger of a base image may need one nobody foresaw."""
        with self._lock:
            if stage.number not in self._futures:
                future: Future[Built] = Future()
                self._futures[stage.number] = future
                thread = threading.Thread(
                    target=self._work, args=(stage, future), name=f"lab-{stage.title}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
            return self._futures[stage.number]

    def _work(self, stage: Stage, future: Future[Built]) -> None:
        try:
            future.set_result(self.build_stage(self, stage))
        except BaseException as error:  # for whoever waits, in another thread
            with self._lock:
                if self._error is None and not isinstance(error, Stopped):
                    self._error = error
            self._stop.set()
            self._stop_steps()
            future.set_exception(Stopped() if error is not self._error else error)

    def check(self) -> None:
        """Raises Stopped when the build is to end."""
        if self._stop.is_set():
            raise Stopped

    def _end(self) -> None:
        """No thread outlives the build: whatever still runs after an error or an interruption is killed."""
        if any(not future.done() for future in self._futures.values()):
            self._stop.set()
        for thread in self._threads:
            while thread.is_alive():
                self._stop_steps()
                thread.join(AGAIN_SECONDS)

    def _stop_steps(self) -> None:
        """Kill what runs if the build is to end: not once but again and again, since a step may just have begun."""
        if self._stop.is_set():
            self.runner.stop()

    def progress(self, event: Event) -> None:
        """Tell whoever listens, one event at a time."""
        with self._lock:
            self.listener(event)

    def base(self, name: str) -> Image:
        """An image that is not a stage; one at a time, since two stages may ask for the same."""
        with self._bases:
            return resolve_base(
                name, store=self.store, progress=self.progress, build_recipe=self.build_recipe, pull=self.options.pull
            )

    def directories(self, layers: tuple[Layer, ...]) -> tuple[Path, ...]:
        """The layers as overlayfs wants them, the top one first."""
        return self.store.directories(layers)
