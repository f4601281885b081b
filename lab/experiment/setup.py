"""What is run, apart from the plan of when: the application, and what each arm makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lab.experiment.factors import ENVIRONMENT, Factor, Scope, limited
from lab.experiment.plan import AA_SUFFIX, PlannedArm
from lab.host.placement.place import NOWHERE, Placement
from lab.images.store import Image
from lab.metrics.base import Metric
from lab.model import DoneReadiness, Limits, Process, Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What an arm's levels come to: how each of its instances is started, and ``host``, how the host then is."""

    image: Image
    process: Process
    limits: Limits
    knobs: Mapping[str, str] = field(default_factory=dict, hash=False)
    host: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is run, apart from the plan of when.

    ``image``, ``process``, ``limits`` and ``host``, a level of some host factors, are those of every arm without a
    treatment of its own in ``treatments``. ``found`` says in sentences where readiness, port and load come from that
    the scenario left open, and an application that is asked nothing is watched for ``linger_seconds`` before its
    start counts as one (`lab.experiment.scenarios.looking`). ``placement`` says on which CPUs all of it happens.
    """

    scenario: Scenario
    image: Image
    process: Process
    limits: Limits
    metrics: tuple[Metric, ...]
    isolation: bool
    idle_seconds: float
    host: Mapping[str, str] = field(default_factory=dict, hash=False)
    treatments: Mapping[str, Treatment] = field(default_factory=dict)
    found: tuple[str, ...] = ()
    linger_seconds: float = 1.0
    placement: Placement = NOWHERE

    def treatment(self, arm: PlannedArm) -> Treatment:
        """How the instances of ``arm`` are started; the A/A twin's as those it repeats."""
        found = self.treatments.get(arm.label.removesuffix(AA_SUFFIX))
        return found or self.untreated

    @property
    def untreated(self) -> Treatment:
        """What an instance is that no factor touches."""
        return Treatment(image=self.image, process=self.process, limits=self.limits, host=self.host)

    @property
    def images(self) -> tuple[Image, ...]:
        """Each image that some arm runs once, that of the reference arms first."""
        everything = (self.image, *(treatment.image for treatment in self.treatments.values()))
        return tuple({image.digest: image for image in everything}.values())

    @property
    def seconds_watched(self) -> float:
        """How long an instance is watched at the least once it is up: idle, then under load. Of the A/A twin, not."""
        if isinstance(self.scenario.readiness, DoneReadiness):
            return 0.0
        measured = {metric.name for metric in self.metrics}
        idle = self.idle_seconds if measured & {"cpu", "memory", "debt"} else 0.0
        load = self.scenario.load if measured & {"cpu", "memory", "load"} else None
        return idle + (load.duration_seconds if load else 0.0)


def treat(base: Treatment, levels: Mapping[str, str], factors: Iterable[Factor]) -> Treatment:
    """``base`` at ``levels``. Its image is given: who builds one for each level of a build argument, says which."""
    limits, knobs, host, environment = base.limits, {}, {**base.host}, {}
    for factor in factors:
        level = levels.get(factor.name)
        if level is None:
            continue
        match factor.scope:
            case Scope.LIMIT:
                limits = limited(limits, factor.name, level)
            case Scope.KNOB:
                knobs[factor.name] = level
            case Scope.HOST:
                host[factor.name] = level
            case Scope.ENVIRONMENT:
                environment[factor.name.removeprefix(ENVIRONMENT)] = level
            case Scope.ARGUMENT:
                pass
    process = replace(base.process, environment={**base.process.environment, **environment})
    return replace(base, process=process, limits=limits, knobs=knobs, host=host)


def least_seconds(setup: Setup, arms: Iterable[PlannedArm], blocks: int) -> float:
    """What so many blocks of ``arms`` take even if everything boots in no time."""
    return blocks * math.fsum(setup.seconds_watched for _ in arms)
