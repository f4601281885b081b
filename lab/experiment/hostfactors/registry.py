"""Finds the host factors: every class below ``lab/experiment/hostfactors/`` that is a HostFactor with a name."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

import lab.experiment.hostfactors as package
from lab.experiment.hostfactors.base import HostFactor


@cache
def host_factors() -> tuple[type[HostFactor], ...]:
    """All host factors, by name."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
    found = [kind for kind in HostFactor.__subclasses__() if kind.__module__.startswith(f"{package.__name__}.")]
    return tuple(sorted(found, key=lambda kind: kind.name))
