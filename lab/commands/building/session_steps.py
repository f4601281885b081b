"""RUN for a build that may need none: the session and its launcher are made for the first step that runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lab.errors import LabError
from lab.host.session.ledger import clean_stale
from lab.model import Process

if TYPE_CHECKING:
    from lab.commands.building.container_steps import ContainerSteps
    from lab.images.runner import StepMount

log = logging.getLogger(__name__)


class SessionSteps:
    """Implements `lab.images.runner.StepRunner`. A context manager: leaving it ends the session, if there is one."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._steps: ContainerSteps | None = None

    def run(
        self,
        process: Process,
        *,
        lower_directories: Sequence[Path],
        upper_directory: Path,
        work_directory: Path,
        output: Callable[[bytes], None],
        mounts: Sequence[StepMount] = (),
        network: bool = True,
    ) -> int:
        """See `StepRunner`."""
        return self._opened().run(
            process,
            lower_directories=lower_directories,
            upper_directory=upper_directory,
            work_directory=work_directory,
            output=output,
            mounts=mounts,
            network=network,
        )

    def stop(self) -> None:
        """See `StepRunner`."""
        if self._steps is not None:
            self._steps.stop()

    def _opened(self) -> ContainerSteps:
        with self._lock:
            if self._steps is None:
                from lab.backends.site import Site
                from lab.commands.building.container_steps import ContainerSteps

                site = self._stack.enter_context(Site.open())
                self._steps = ContainerSteps(site.launcher)
            return self._steps

    def __enter__(self) -> Self:
        """Remove what dead sessions left, as every command does; what can't be is no reason not to build."""
        try:
            for line in clean_stale():
                log.info("removed what a dead session left: %s", line)
        except LabError as error:
            log.error("lab: %s: %s", error.message, error.detail)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
