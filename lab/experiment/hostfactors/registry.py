"""Finds the host factors: every class below ``lab/experiment/hostfactors/`` that is a HostFactor with a name."""

from __future__ import annotations

import pkgutil
from collections.abc import Collection, Mapping
from functools import cache
from importlib import import_module

import lab.experiment.hostfactors as package
from lab.errors import UsageError
from lab.experiment.hostfactors.base import HostFactor


@cache
def host_factors() -> tuple[type[HostFactor], ...]:
    """All host factors, by name."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
    found = [kind for kind in HostFactor.__subclasses__() if kind.__module__.startswith(f"{package.__name__}.")]
    return tuple(sorted(found, key=lambda kind: kind.name))


def host_levels(given: Mapping[str, str], varied: Collection[str] = ()) -> dict[str, str]:
    """How the host is for every instance: each host factor of ``given`` at that level, at its first where it is "".

    Those that are ``varied`` are left out. Raises UsageError for what is no level.
    """
    found = {}
    for factor in host_factors():
        if factor.name in given and factor.name not in varied:
            found[factor.name] = given[factor.name] or factor.levels[0]
            if found[factor.name] not in factor.levels:
                raise UsageError(
                    f"--{factor.name} {given[factor.name]} is no level of it",
                    hint=f"levels: {', '.join(factor.levels)}; lab compare --factor {factor.name}=A,B varies it",
                )
    return found
