"""``lab run -d``: reserve a name, have a supervisor launch the instance, print the name."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import BackendUnavailable, LabError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.images.store import Image
    from lab.model import Limits, Process, PublishedPort, Scenario
    from lab.supervisor.record import Record

ATTEMPTS = 20  # at a name that nobody has


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    what: str
    command: list[str]
    backend: str
    ports: tuple[PublishedPort, ...]
    environment: Mapping[str, str]
    memory: str
    cpus: str
    pids: int | None
    name: str
    remove: bool
    knobs: Mapping[str, str]


def run_detached(wanted: Wanted) -> str:
    """Start it and return its name. Raises what `lab run` in the foreground would raise, and then nothing is left."""
    from lab.backends.registry import find
    from lab.cli.run import find_image, merge
    from lab.images.process import resolve
    from lab.images.store import Store
    from lab.supervisor import client

    for check in find(wanted.backend).check():
        if not check.ok:
            raise BackendUnavailable(
                f"{wanted.backend} can't run here: {check.name}: {check.found}", hint=check.remedy
            )
    find(wanted.backend).settle(wanted.knobs)
    _refuse_taken(wanted.name)
    store = Store.open()
    image, given, limits = find_image(store, wanted.what, _build)
    process = resolve(
        image,
        store.lower_directories(image),
        argv=wanted.command,
        environment={**given, **wanted.environment},
    )
    limits = merge(limits, wanted.memory, wanted.cpus, wanted.pids)
    return client.start(_reserve(wanted, image, process, limits)).name


def _build(scenario: Scenario) -> Image:
    """In a session of its own, which ends here: the supervisor will have another."""
    from lab.backends.site import Site
    from lab.cli.build import build_scenario

    with Site.open() as site:
        return build_scenario(site, scenario)


def _refuse_taken(name: str) -> None:
    """Before anything is built; `reserve` is what decides."""
    from lab.supervisor import record

    if name and record.stored(name) is not None:
        raise record.taken(name)


def _reserve(wanted: Wanted, image: Image, process: Process, limits: Limits) -> Record:
    from lab.supervisor import record
    from lab.supervisor.client import new_id
    from lab.supervisor.names import random_name
    from lab.supervisor.source import pack

    for _ in range(ATTEMPTS):
        one = record.Record(
            name=wanted.name or random_name(),
            id=new_id(),
            backend=wanted.backend,
            image=image.name,
            digest=image.digest,
            source=pack(image),
            process=process,
            limits=limits,
            wanted=wanted.ports,
            remove=wanted.remove,
            knobs=dict(wanted.knobs),
            created=time.time(),
            supervisor=record.Pid.of(os.getpid()),
        )
        try:
            record.reserve(one)
        except UsageError:
            raise
        except LabError:
            if wanted.name:
                raise
        else:
            return one
    raise LabError("no free name was found", hint="--name NAME")
