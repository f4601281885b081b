"""Everything about a run that is not an observation, written down before the first one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

from lab.backends.site import Site
from lab.experiment import placing
from lab.experiment.plan import Plan
from lab.experiment.scenarios.scenario import NOWHERE, SHIPPED
from lab.experiment.setup import Setup
from lab.host.survey import facts
from lab.host.survey.virtualisation import Ground, platform
from lab.images.store import Image
from lab.model import (
    Accelerator,
    Healthcheck,
    HealthReadiness,
    Kernel,
    Load,
    Milestone,
    Readiness,
    Scenario,
    StartedReadiness,
)
from lab.results.record import Arm, Run

WARM_UPS = 1


def describe(site: Site, setup: Setup, plan: Plan, command_line: Sequence[str], **settings: Any) -> Run:
    """The Run of a new folder. Its ``name`` is left to the results store.

    ``settings`` are a study's own; ``kind`` says which study it is, where it is no comparison.
    """
    scenario = setup.scenario
    milestone = Milestone.STARTED if scenario.readiness is None else scenario.readiness.milestone
    return Run(
        name="",
        scenario=scenario.name,
        title=scenario.title,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command_line=tuple(command_line),
        seed=plan.seed,
        blocks_planned=None if plan.blocks is None else plan.sessions * plan.blocks,
        budget_seconds=None if plan.blocks is not None else plan.sessions * plan.budget_seconds,
        limits=dataclasses.asdict(setup.limits),
        metrics=tuple(metric.name for metric in setup.metrics) + (("isolation",) if setup.isolation else ()),
        arms=_arms(site, setup, plan),
        image=_image(setup.image),
        images={image.digest: _image(image) for image in setup.images} if len(setup.images) > 1 else {},
        host=facts.provenance(),
        versions=facts.versions(),
        settings={
            "until": milestone.value,
            "build": {"arguments": dict(scenario.build_arguments), "secrets": list(scenario.build_secrets)},
            "found": list(setup.found),
            "limits_left_out": [
                name
                for name, value in dataclasses.asdict(scenario.limits).items()
                if value is not None and getattr(setup.limits, name) is None
            ],
            "linger_seconds": setup.linger_seconds,
            "readiness": _plain(scenario.readiness),
            "ready_timeout_seconds": scenario.ready_timeout_seconds,
            "load": _plain(scenario.load),
            "work": None if scenario.work is None else dataclasses.asdict(scenario.work),
            "port": scenario.port,
            # a shipped scenario is found again by its name, on any machine
            "directory": ""
            if NOWHERE in (scenario.directory, scenario.directory.parent) or scenario.directory.parent == SHIPPED
            else str(scenario.directory),
            "idle_seconds": setup.idle_seconds,
            "warm_ups": WARM_UPS,
            "sessions": plan.sessions,
            "precision": plan.precision,
            "detect": plan.detect,
            "host": dict(setup.host),
            "placement": placing.recorded(setup.placement),
            "exclude_noisy": plan.exclude_noisy,
            "factors": [dataclasses.asdict(factor) for factor in plan.factors],
            "excluded": "warm-up instances (block 0) from every statistic; "
            + (
                "blocks in which the fixed native computation took more than "
                f"{plan.exclude_noisy:g} times its median over all blocks"
                if plan.exclude_noisy
                else "nothing else"
            ),
            **settings,
        },
    )


def _arms(site: Site, setup: Setup, plan: Plan) -> tuple[Arm, ...]:
    described = []
    for arm in plan.arms:
        backend = site.backend(arm.backend)
        accelerator = site.accelerator if backend.kernel is Kernel.OWN else Accelerator.NATIVE
        described.append(
            Arm(
                label=arm.label,
                backend=arm.backend,
                title=backend.title + (", again (A/A)" if arm.is_twin else ""),
                mechanism=backend.mechanism,
                order=backend.order,
                accelerator=accelerator,
                kernel="",
                differences=backend.differences(setup.treatment(arm).knobs),
                factors=dict(arm.factors),
                image=setup.treatment(arm).image.digest if len(setup.images) > 1 else "",
                foreign=backend.opaque,
                nested=platform().ground is Ground.EMULATED,
                user_kernel=backend.kernel in (Kernel.USER_SPACE, Kernel.USER_MODE),
                made_by=dict(backend.made_by(setup.treatment(arm).knobs)),
            )
        )
    return tuple(described)


def _image(image: Image) -> dict[str, Any]:
    base = image.base
    return {
        "name": image.name,
        "digest": image.digest,
        "origin": image.origin.value,
        "base": None if base is None else {"name": base.name, "digest": base.digest, "origin": base.origin.value},
        "size_bytes": image.size_bytes,
        "layers": len(image.layers),
    }


def recalled(scenario: Scenario, settings: Mapping[str, Any]) -> Scenario:
    """``scenario`` as the run with these settings has it: what was found by looking is not looked for again."""
    load, build = settings.get("load"), settings.get("build", {})
    return dataclasses.replace(
        scenario,
        port=settings.get("port"),
        readiness=_readiness(settings.get("readiness")),
        ready_timeout_seconds=float(settings.get("ready_timeout_seconds", scenario.ready_timeout_seconds)),
        load=None if load is None else Load(**_fields(load)),
        build_arguments=build.get("arguments", {}),
        build_secrets=tuple(build.get("secrets", ())),
    )


def _readiness(raw: Mapping[str, Any] | None) -> Readiness:
    """The readiness of a run.json; a run that recorded none was content with an execve."""
    if raw is None:
        return StartedReadiness()
    kinds = {kind.__name__: kind for kind in get_args(Readiness)}
    given = _fields(raw)
    if "check" in given:
        check = Healthcheck(**{**given["check"], "test": tuple(given["check"]["test"])})
        return HealthReadiness(check=check, shell=tuple(given.get("shell", ())))
    found: Readiness = kinds[raw["kind"]](**given)
    return found


def _fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name != "kind"}


def _plain(value: Any) -> Any:
    if value is None:
        return None
    return {"kind": type(value).__name__, **dataclasses.asdict(value)}
