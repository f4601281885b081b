"""What the measurements of all studies but the comparison have in common.

Each study tells its story in its own measure.py. This module has the parts that they share: how a copy of the
application is asked for and waited for, and how observations of it become samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from lab.backends.site import Site
from lab.backends.support.base import SiteBackend
from lab.errors import LabError
from lab.experiment.plan import PlannedArm
from lab.experiment.setup import Setup
from lab.experiment.stamp import Stamp
from lab.experiment.watch import Watch
from lab.host.clock import now
from lab.instance import Backend, LaunchRequest
from lab.metrics.base import Observation, Subject
from lab.metrics.ready.readiness import wait_ready
from lab.model import Accelerator
from lab.results.store import RunFolder

T = TypeVar("T")


class Measurement:
    """The measurement of one run, which is appended to ``folder`` as it goes on."""

    def __init__(self, site: Site, setup: Setup, folder: RunFolder, watch: Watch) -> None:
        self.site = site
        self.setup = setup
        self.folder = folder
        self.watch = watch

    def prepared(self, backends: Iterable[str]) -> Iterator[SiteBackend]:
        """Each backend once all is there that it makes once per image: disks, a guest kernel."""
        for name in backends:
            self.watch.doing(f"preparing {name}")
            backend = self.site.backend(name)
            backend.prepare(self.setup.image)
            yield backend

    def request(self, name: str) -> LaunchRequest:
        """A copy of the application as the setup has it, with a folder for its logs in the run's."""
        return request(self.setup, name, self.folder.log_directory(name))

    @contextmanager
    def serving(self, backend: Backend, wanted: LaunchRequest, *, idle_seconds: float = 0.0) -> Iterator[Subject]:
        """One copy, from when it is ready; leaving stops it. Raises LabError when there is none."""
        subject = Subject.before_launch(
            scenario=self.setup.scenario, network=self.site.network, idle_seconds=idle_seconds
        )
        with backend.launch(wanted) as instance:
            subject.launched(instance)
            wait_ready(subject)
            yield subject

    def together(
        self,
        backend: Backend,
        wanted: Sequence[LaunchRequest],
        seen: Callable[[Subject], T],
        *,
        gap_seconds: float = 0.0,
        standing: Callable[[Sequence[Subject]], None] = lambda _: None,
    ) -> list[T | LabError]:
        """Copies as they are ``wanted``, each requested ``gap_seconds`` after the one before, by a thread of its own.

        What is ``seen`` of each when it is ready, or the error that there was instead. All of them stand until the
        last is ready, and until ``standing`` has looked at those that came up; when this returns they are stopped.
        """
        subjects: list[Subject] = []
        with ExitStack() as copies, ThreadPoolExecutor(len(wanted), "lab-together") as threads:
            # each has a stack of its own: one is not safe to use from several threads
            stacks = [copies.enter_context(ExitStack()) for _ in wanted]
            begin = now()

            def start(place: int) -> T | LabError:
                try:
                    subject = stacks[place].enter_context(self.serving(backend, wanted[place]))
                    subjects.append(subject)
                    return seen(subject)
                except LabError as error:
                    return error

            futures = []
            for place in range(len(wanted)):
                time.sleep(max(0.0, begin + place * gap_seconds - now()))
                futures.append(threads.submit(start, place))
            found = [future.result() for future in futures]
            standing(subjects)
            return found

    def record(self, label: str, block: int, instance: str, *seen: Observation, position: int = 0) -> None:
        """Append what was seen of an instance of the arm ``label``, or "" of the host itself: all of it or none."""
        arm = next((arm for arm in self.folder.run.arms if arm.label == label), None)
        stamp = Stamp(
            arm=PlannedArm(label=label, backend=arm.backend if arm else ""),
            block=block,
            position=position,
            instance=instance,
            image=self.setup.image.digest,
            accelerator=arm.accelerator if arm else Accelerator.NATIVE,
            kernel=arm.kernel if arm else "",
        )
        self.folder.append(*map(stamp.sample, seen))


def request(setup: Setup, name: str, logs: Path) -> LaunchRequest:
    """What a copy of the application is asked for, that no factor touches."""
    return LaunchRequest(name=name, image=setup.image, process=setup.process, limits=setup.limits, log_directory=logs)
