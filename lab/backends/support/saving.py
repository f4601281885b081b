"""Restoring as a way to start: an instance that was booted once, saved while it served, and goes on as many.

The first request of its kind boots one, which is in no sample: it is waited for until it serves and has come to rest,
then saved. That happens before the clock of that request starts. The files are the session's and end with it.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from lab.backends.support.base import raise_as_launch_error
from lab.errors import LabError, LaunchError
from lab.instance import Instance, Knob, LaunchRequest

if TYPE_CHECKING:
    from lab.backends.support.shared import SharedParts


class Saved(Protocol):
    """What instances go on from: a machine's `Snapshot`, a container's `Checkpoint`."""

    @property
    def files(self) -> tuple[Path, ...]: ...


S = TypeVar("S", bound=Saved)


class Savable(Instance, Generic[S]):
    """An instance that others can go on from."""

    @abstractmethod
    def save(self, directory: Path) -> S:
        """Write it as it is into ``directory``, and end it. Raises LabError."""


BOOT, RESTORE, MAP = "boot", "restore", "map"
START = Knob(
    name="start",
    levels=(BOOT, RESTORE),
    tells="what is saved by not booting: it goes on from a snapshot, taken once while its application served",
    application_only=True,
)

MACHINE_START = replace(
    START,
    levels=(BOOT, RESTORE, MAP),
    tells="what is saved by not booting: it goes on from a snapshot, taken once while its application served, whose "
    "memory it reads or maps",
)
"""A machine's memory can also be mapped from what was saved, and a page copied when the guest writes to it."""

SERVE_SECONDS = 60.0  # for one of the image's ports to accept; then it is saved as it is
REST_SECONDS = 15.0  # … and to come to rest
LOOK_SECONDS = 0.25
RESTS = 0.2  # of one CPU, had or waited for: an idle guest wants a few hundredths, emulated too
LOOKS_AT_REST = 2  # in a row
KNOCK_SECONDS = 0.5


class Snapshots(Generic[S]):
    """The saved instances of one backend in one session. Thread-safe: whoever needs one that is being made waits.

    ``launch`` boots one to be saved, told the level of the knob ``start`` that it is saved for. ``keeps_streams``:
    what goes on can write to such streams only as there were when it was saved, a log file or a pipe beside one.
    """

    def __init__(
        self,
        site: SharedParts,
        backend: str,
        launch: Callable[[LaunchRequest, str], Savable[S]],
        *,
        keeps_streams: bool = False,
    ) -> None:
        self._site = site
        self._keeps_streams = keeps_streams
        self._backend = backend
        self._launch = launch
        self._lock = threading.Lock()
        self._made: dict[str, S] = {}
        self._numbers = itertools.count(1)

    def of(self, request: LaunchRequest) -> S | None:
        """What ``request`` shall be restored from, made if it is the first of its kind; None when it shall boot.

        Of one kind are requests for the same process of the same image with the same limits and knobs. Raises
        LaunchError when there can be none.
        """
        if request.knobs.get(START.name, BOOT) == BOOT:
            return None
        if request.stdin is not None or request.terminal is not None:
            raise LaunchError(
                f"{request.name} reads what is typed, and one that is restored can't: it was saved with nobody there",
                hint="start=boot",
                exit_code=125,
            )
        piped = self._piped(request)
        kind = repr((request.image.digest, request.process, request.limits, sorted(request.knobs.items()), piped))
        with self._lock:
            if kind not in self._made:
                try:
                    self._made[kind] = self._make(request)
                except LabError as error:
                    raise_as_launch_error(error)
                    raise
                except OSError as error:
                    raise LaunchError(
                        f"no {self._backend} can be saved: {error}", hint="start=boot", exit_code=125
                    ) from error
            return self._made[kind]

    def files(self, knobs: Mapping[str, str]) -> list[Path]:
        """What those with such ``knobs`` read, as far as it has been made."""
        if knobs.get(START.name, BOOT) == BOOT:
            return []
        with self._lock:
            return [path for snapshot in self._made.values() for path in snapshot.files]

    def _piped(self, request: LaunchRequest) -> tuple[bool, bool]:
        """For each of its two outputs, whether it goes to a second place besides, where that matters."""
        if not self._keeps_streams:
            return False, False
        return request.stdout is not None, request.stderr is not None

    def _make(self, request: LaunchRequest) -> S:
        name = f"{self._backend}-saved-{next(self._numbers)}"
        folder = self._site.scratch / f"{name}.d"
        logs = folder / "logs"
        logs.mkdir(parents=True)
        first = LaunchRequest(
            name=name,
            image=request.image,
            process=request.process,
            limits=request.limits,
            log_directory=logs,
            knobs={**request.knobs, START.name: BOOT},
        )
        with ExitStack() as opened:
            if any(piped := self._piped(request)):
                nowhere = opened.enter_context(Path(os.devnull).open("wb")).fileno()
                stdout, stderr = (nowhere if each else None for each in piped)
                first = replace(first, stdout=stdout, stderr=stderr)
            instance = opened.enter_context(self._launch(first, request.knobs[START.name]))
            instance.wait_executed()
            self._until_it_serves(instance)
            _until_it_rests(instance)
            return instance.save(folder)

    def _until_it_serves(self, instance: Instance) -> None:
        """Until one of the ports that the image exposes accepts; at once when it exposes none."""
        ports = instance.request.image.config.exposed_ports
        deadline = time.monotonic() + SERVE_SECONDS
        while ports and time.monotonic() < deadline:
            _require_life(instance)
            if any(self._accepts(str(instance.address), port) for port in ports):
                return
            time.sleep(LOOK_SECONDS)

    def _accepts(self, address: str, port: int) -> bool:
        with self._site.network.socket() as client:
            client.settimeout(KNOCK_SECONDS)
            return client.connect_ex((address, port)) == 0


def _until_it_rests(instance: Instance) -> None:
    """Until all that comes after is an instance that waits: no units are being started, no caches being filled."""
    deadline = time.monotonic() + REST_SECONDS
    at_rest = 0
    before, at = _wanted_seconds(instance), time.monotonic()
    while at_rest < LOOKS_AT_REST and at < deadline:
        time.sleep(LOOK_SECONDS)
        _require_life(instance)
        used, later = _wanted_seconds(instance), time.monotonic()
        at_rest = at_rest + 1 if used - before < RESTS * (later - at) else 0
        before, at = used, later


def _wanted_seconds(instance: Instance) -> float:
    """The CPU time that its threads have had, and that they have waited for: on a busy host a guest that starves is
    not at rest (/proc/PID/task/TID/schedstat: nanoseconds on a CPU, and in a queue for one; the kernel's
    Documentation/scheduler/sched-stats.rst).
    """
    nanoseconds = 0
    for pid in instance.cgroup.processes():
        with suppress(OSError):  # it has just ended
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    nanoseconds += sum(map(int, (thread / "schedstat").read_text().split()[:2]))
    return nanoseconds / 1e9


def _require_life(instance: Instance) -> None:
    if (code := instance.wait(0.0)) is not None:
        raise LaunchError(
            f"the application ended with exit code {code} before it could be saved",
            hint="start=boot: what ends by itself can't be restored",
            exit_code=125,
        )
