"""``--placement``: which CPUs are lab's, its client's and the instances' while they are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.host.placement.place import AUTO as AUTO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.backends.site import Site
    from lab.experiment.factors import Factor
    from lab.host.placement.place import Placement
    from lab.model import Limits

Placing = Annotated[
    str,
    typer.Option(
        "--placement",
        metavar="auto|off|A/B/C",
        help="Keep lab, its client and the instances on cores of their own where there are enough, or on the CPUs of "
        "these lists, like 0/1/2-3.",
    ),
]


def reserved(site: Site, asked: str, limits: Limits, factors: Sequence[Factor] = ()) -> Placement:
    """What ``--placement`` comes to for instances with these limits, or the largest that a factor gives them.

    Raises UsageError, and LabError where the CPUs that were named can't be had.
    """
    from lab.experiment.placing import reserve

    varied = [float(level) for factor in factors if factor.name == "cpus" for level in factor.levels]
    return reserve(site, asked, max([limits.cpus or 1.0, *varied]))


def again(site: Site, settings: Mapping[str, Any]) -> Placement:
    """That of a run which goes on. Raises UsageError where lab may no longer use these CPUs."""
    from lab.experiment import placing

    return placing.reserve(site, placing.again(settings), None)
