"""The client of a scenario that brings its own: a second copy of the image beside the instance that is measured.

It runs on the backend ``process`` whatever is measured, without limits, on the same bridge: the same program with
the same way to every instance. Its own CPU and memory are in a cgroup of its own, and in no figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lab.backends.site import Site
from lab.errors import LabError
from lab.host.clock import now
from lab.images.store import Image
from lab.instance import LaunchRequest
from lab.metrics.clients.jobs import Done
from lab.model import Completed, Limits, Phase, Process

BACKEND = "process"
MOST_BYTES = 64 << 20
"""Of what a client may say."""


class Client:
    """Starts one client after the other; nothing of one is left when `run` returns."""

    def __init__(
        self, site: Site, image: Image, process: Process, log_directory: Callable[[str], Path], name: str = "client"
    ) -> None:
        self._site = site
        self._image = image
        self._process = process
        self._log_directory = log_directory
        self._name = name
        self._numbers = itertools.count(1)

    def run(self, argv: Sequence[str], timeout_seconds: float) -> Done:
        """Run ``argv`` to its end. Raises LaunchError when it can't be executed, LabError when the time runs out."""
        name = f"{self._name}-{next(self._numbers)}"
        logs = self._log_directory(name)
        request = LaunchRequest(
            name=name,
            image=self._image,
            process=replace(self._process, argv=tuple(argv)),
            limits=Limits(),
            log_directory=logs,
        )
        with self._site.backend(BACKEND).launch(request) as instance:
            code = instance.wait(timeout_seconds)
            ended = now()
        if code is None:
            raise LabError(
                f"the scenario's client {argv[0]} did not end within {timeout_seconds:g} s",
                hint=f"its logs are in {logs}; a longer work.timeout_seconds in scenario.toml",
            )
        return Done(
            completed=Completed(exit_code=code, stdout=_said(logs / "stdout.log"), stderr=_said(logs / "stderr.log")),
            seconds=ended - (instance.timeline.at(Phase.EXECUTED) or ended),
        )


def _said(log: Path) -> bytes:
    """All of it. Raises LabError where that is no answer of a client: its file can be as long as it likes."""
    with log.open("rb") as file:
        said = file.read(MOST_BYTES + 1)
    if len(said) > MOST_BYTES:
        raise LabError(f"the scenario's client wrote more than {MOST_BYTES >> 20} MiB to {log}")
    return said
