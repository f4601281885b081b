"""``lab run -d``: reserve a name, have a supervisor launch the instance, print the name."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.commands.output import patience
from lab.commands.running.wanted import Wanted, prepared, require_usable
from lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from lab.images.store import Image
    from lab.model import Limits, Process, Scenario
    from lab.supervisor.record import InstanceRecord

ATTEMPTS = 20  # at a name that nobody has
WAIT_SECONDS = 300.0  # a machine that is emulated and has five seconds of work before it listens
PAUSE_SECONDS = 0.05


def run_detached(wanted: Wanted) -> str:
    """Start it and return its name. Raises what `lab run` in the foreground would raise, and then nothing is left."""
    from lab.backends.registry import find
    from lab.images.store import Store
    from lab.metrics.ready.health import readiness_of
    from lab.supervisor import client

    backend = find(wanted.backend)
    require_usable(backend)
    settled = backend.settle(wanted.knobs)
    wanted = replace(wanted, knobs={name: settled[name] for name in wanted.knobs})  # true in any folder
    backend.check_volumes(wanted.volumes)
    _refuse_taken(wanted.name)
    image, process, limits = prepared(wanted, Store.open(), _build)
    checked = readiness_of(image.config) is not None
    if wanted.wait and not (wanted.ports or checked):
        raise UsageError(
            "--wait has nothing to wait for: the image has no HEALTHCHECK, and no port is published",
            hint="add -p HOST_PORT:PORT",
        )
    reserved = _reserve(wanted, image, process, limits)
    with patience(f"lab: preparing {image.name} for {wanted.backend}, and starting {reserved.name}"):
        started = client.start(reserved)
    if wanted.wait:
        await_answer(started, checked=checked)
    return started.name


def await_answer(record: InstanceRecord, *, checked: bool) -> None:
    """Wait until its HEALTHCHECK, or else its first published port, answers. Raises LabError when it ends first."""
    from lab.supervisor import record as records
    from lab.supervisor.answering import answers

    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        now = records.read(record.name)
        if now is None or now.id != record.id or not now.runs:
            code = "" if now is None or now.exit_code is None else f" with exit code {now.exit_code}"
            raise LabError(f"{record.name} ended{code} before it answered", hint=f"lab logs {record.name}")
        if answers(now, checked=checked):
            return
        if time.monotonic() > deadline:
            raise LabError(
                f"{record.name} runs, but did not answer within {WAIT_SECONDS:g} s", hint=f"lab logs {record.name}"
            )
        time.sleep(PAUSE_SECONDS)


def _build(scenario: Scenario) -> Image:
    """In a session of its own, which ends here: the supervisor will have another."""
    from lab.backends.site import Site
    from lab.commands.building.images import build_scenario

    with Site.open() as site:
        return build_scenario(site, scenario)


def _refuse_taken(name: str) -> None:
    """Before anything is built; `reserve` is what decides."""
    from lab.supervisor import record

    if name and record.stored(name) is not None:
        raise record.taken(name)


def _reserve(wanted: Wanted, image: Image, process: Process, limits: Limits) -> InstanceRecord:
    from lab.supervisor import record
    from lab.supervisor.client import new_id
    from lab.supervisor.names import random_name
    from lab.supervisor.source import encode_image

    for _ in range(ATTEMPTS):
        one = record.InstanceRecord(
            name=wanted.name or random_name(),
            id=new_id(),
            backend=wanted.backend,
            image=image.name,
            digest=image.digest,
            source=encode_image(image),
            process=process,
            limits=limits,
            wanted=wanted.ports,
            volumes=wanted.volumes,
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
