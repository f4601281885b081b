"""Arms whose instances boot a disk that lab did not make: what stands in for their image, and what can't be asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lab.backends.site import Site
from lab.errors import UsageError
from lab.experiment.plan import Plan
from lab.experiment.setup import Setup
from lab.instance import Backend
from lab.model import HttpReadiness, LogReadiness, Place, Scenario, TalkReadiness, TcpReadiness

FROM_OUTSIDE = (HttpReadiness, TcpReadiness, LogReadiness, TalkReadiness)


def require_from_outside(scenario: Scenario, backends: Iterable[type[Backend]], *, settled: bool = True) -> None:
    """Raises UsageError when some of ``backends`` can't be asked inside, and the scenario needs that. Before it is
    ``settled``, what it leaves open may still be found.
    """
    names = [kind.name for kind in backends if kind.opaque]
    if not names:
        return
    who = " and ".join(names)
    found_later = scenario.readiness is None and not settled
    if not isinstance(scenario.readiness, FROM_OUTSIDE) and not found_later:
        raise UsageError(
            f"{who}: nothing of lab's is inside, so how it is seen to be ready has to be said",
            hint="--ready tcp or http:/path with --port, or log:REGEX, a line on its serial port",
        )
    if settled and not isinstance(scenario.readiness, LogReadiness) and scenario.port is None:
        raise UsageError(f"{who}: which port shall be asked?", hint="--port N")
    if scenario.work is not None and scenario.work.place is Place.INSIDE:
        raise UsageError(
            f"{scenario.name} does its work inside, and nothing of lab's is in {who}",
            hint="a scenario that is asked over the network, like web-app",
        )


def treated(site: Site, setup: Setup, plan: Plan) -> Setup:
    """``setup`` with what each of these arms runs in place of the image; its first, where nothing else has one."""
    treatments = {**setup.treatments}
    for arm in plan.arms:
        own = site.backend(arm.backend).own_image
        if own is not None and not arm.is_twin:
            treatments[arm.label] = replace(setup.treatment(arm), image=own)
    return replace(setup, treatments=treatments)
