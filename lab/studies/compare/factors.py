"""``--factor`` and ``--factors`` of ``lab compare``: what varies besides the backend."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.commands.options.limits import require_given
from lab.commands.output import say
from lab.errors import LabError, UsageError
from lab.host.units import parse_words

if TYPE_CHECKING:
    from lab.backends.site import Site
    from lab.experiment.factors import Factor
    from lab.experiment.plan import Plan, PlannedArm
    from lab.experiment.setup import Setup, Treatment
    from lab.images.store import Image
    from lab.model import Limits


def read(texts: Sequence[str], backends: Sequence[str]) -> tuple[Factor, ...]:
    """The factors that the command line names, for these backends. Raises UsageError, or LabError for this host."""
    if not texts:
        return ()
    from lab.backends.registry import available
    from lab.experiment.factors import Scope, limited, parse
    from lab.model import Limits

    kinds = available()
    found = parse(
        texts,
        [kind for kind in kinds if kind.name in backends],
        [kind for kind in kinds if kind.name not in backends],
    )
    for factor in found:
        if factor.scope is Scope.LIMIT:
            require_given(limited(Limits(), factor.name, factor.levels[0]))
    return found


def remark(factors: Sequence[Factor], backends: Sequence[str]) -> None:
    """Print what to know about ``factors`` before it starts."""
    if factors:
        from lab.backends.registry import available
        from lab.experiment.factors import remarks

        for sentence in remarks(factors, [kind for kind in available() if kind.name in backends]):
            say(f"lab: {sentence}")


def plan_arms(backends: Sequence[str], factors: Sequence[Factor], limits: Limits) -> tuple[PlannedArm, ...]:
    """The arms of an experiment; says of each backend which combinations of levels it can't be at and is left out of.

    ``limits`` are those that no factor varies. Raises UsageError when a backend can't be at first levels,
    BackendUnavailable when this host lacks what a level needs.
    """
    from lab.backends.registry import find
    from lab.experiment.factors import impossible
    from lab.experiment.plan import arms

    left_out: dict[str, list[str]] = {}

    def possible(arm: PlannedArm) -> bool:
        why = impossible(find(arm.backend), arm.factors, factors, limits)
        if why and arm.is_reference:
            raise UsageError(f"{arm.backend} can't be compared: {why.message}", hint=_remedy(why, arm))
        if why:
            left_out.setdefault(arm.backend, []).append(why.message)
        return not why

    planned = arms(backends, factors, possible)
    for backend, reasons in left_out.items():
        kept = sum(arm.backend == backend and not arm.is_twin for arm in planned)
        say(
            f"lab: {backend}: left out {len(reasons)} of {kept + len(reasons)} combinations: "
            + "; ".join(dict.fromkeys(reasons))
        )
    return planned


def _remedy(why: LabError, arm: PlannedArm) -> str:
    """What to do about a backend that can't be at the first levels, or within the limits that all have."""
    if not arm.factors:
        return why.hint
    return f"name levels first that it can be at: {why.hint.replace('--memory ', 'memory=')}"


def require_single(factors: Sequence[Factor], given: Mapping[str, str]) -> None:
    """Refuse an option that sets what a factor varies. Raises UsageError."""
    for factor in factors:
        if given.get(factor.name):
            raise UsageError(
                f"--factor {factor.name} varies what --{factor.name} {given[factor.name]} sets", hint="leave one away"
            )


def require_budget(setup: Setup, plan: Plan, budget_seconds: float) -> None:
    """Refuse a plan whose least number of blocks can't fit the time it was given. Raises UsageError."""
    from lab.experiment.plan import MINIMUM_BLOCKS
    from lab.experiment.setup import least_seconds
    from lab.host.units import format_seconds

    least = least_seconds(setup, plan.arms, MINIMUM_BLOCKS)
    if plan.blocks is None and plan.factors and least > budget_seconds:
        raise UsageError(
            f"{len(plan.arms)} arms need {MINIMUM_BLOCKS} blocks at least, in which they are watched for "
            f"{format_seconds(least)} alone: more than --budget {format_seconds(budget_seconds)}",
            hint="a larger --budget, fewer levels, a shorter --idle, --metrics boot, or --blocks to say how many",
        )


def with_factors(site: Site, setup: Setup, plan: Plan) -> Setup:
    """``setup`` with a treatment for each arm of ``plan``, the images of build arguments being built.

    Raises UsageError when a build argument changes nothing or knobs don't go together, BackendUnavailable when this
    host lacks what a level needs.
    """
    if not plan.factors:
        return setup
    from lab.experiment.factors import ARGUMENT
    from lab.experiment.setup import treat

    variants = _Variants(site, setup)
    treatments = {}
    for arm in plan.arms:
        if not arm.is_twin:
            named = {name: level for name, level in arm.factors.items() if name.startswith(ARGUMENT)}
            arguments = {name.removeprefix(ARGUMENT): level for name, level in named.items()}
            treatments[arm.label] = treat(variants.of(arguments), arm.factors, plan.factors)
            site.backend(arm.backend).settle(treatments[arm.label].knobs)
    for factor in plan.factors:
        if factor.name.startswith(ARGUMENT):
            _require_difference(factor, plan, treatments)
    reference = next(treatments[arm.label] for arm in plan.arms if arm.is_reference)
    return replace(setup, image=reference.image, treatments=treatments)


def _require_difference(factor: Factor, plan: Plan, treatments: Mapping[str, Treatment]) -> None:
    images = {(arm.factors[factor.name], treatments[arm.label].image.digest) for arm in plan.arms if not arm.is_twin}
    if len({digest for _, digest in images}) == 1:
        name = factor.name.partition(".")[2]
        raise UsageError(
            f"--factor {factor.name} changes nothing: every level builds the same image",
            hint=f"the Dockerfile must declare ARG {name}, and use it",
        )


class _Variants:
    """The application's image for every combination of build arguments, each built once."""

    def __init__(self, site: Site, setup: Setup) -> None:
        self.site = site
        self.setup = setup
        self.built: dict[tuple[tuple[str, str], ...], Treatment] = {}

    def of(self, arguments: Mapping[str, str]) -> Treatment:
        """What an instance of the image is by itself, before any level of another factor."""
        setup = self.setup
        if not arguments:
            return setup.untreated
        key = tuple(arguments.items())
        if key not in self.built:
            from lab.images.process import resolve

            image = self._build(arguments)
            lower = self.site.store.lower_directories(image)
            process = resolve(image, lower, environment=dict(setup.scenario.environment))
            self.built[key] = replace(setup.untreated, image=image, process=process)
        return self.built[key]

    def _build(self, arguments: Mapping[str, str]) -> Image:
        from lab.commands.building.images import build_scenario

        tag = re.sub(r"[^A-Za-z0-9_.-]", "-", "-".join(f"{name}-{level}" for name, level in arguments.items()))
        return build_scenario(self.site, self.setup.scenario, arguments, tag[:128])


def show(on: str) -> None:
    """Print every factor that the backends ``on`` names may have (all but the references unless it names some).

    Raises UsageError for what is no backend.
    """
    from rich.console import Console
    from rich.table import Table

    from lab.backends.registry import available, find
    from lab.experiment.factors import known

    asked = [find(name) for name in parse_words(on)]
    kinds = asked or [kind for kind in available() if not kind.reference]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("factor", "levels", "of", "what it tells"):
        table.add_column(title, no_wrap=title == "factor")
    for one in known(kinds):
        everywhere = len(one.of) == len(kinds)
        table.add_row(
            one.name,
            ", ".join(one.levels) or f"any, like {one.example}",
            "all" if everywhere else ", ".join(one.of),
            one.tells,
        )
    plain = Console()
    console = Console(highlight=False, markup=False, width=None if plain.is_terminal else 110)
    console.print(table)
    for one in known(kinds):
        for (backend, level), why in one.lacking.items():
            console.print(f"\n{one.name}={level} of {backend} can't be had here: {why}")
    console.print(
        "\nThe first level you name is what the others are compared with:\n"
        "  lab compare idle --factor memory=256M,512M --factor cpus=0.5,1 --metrics boot,memory --idle 1s --blocks 8"
    )
