"""Finds the probes: every class in a module below ``lab/isolation/`` that has an id."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType

import lab.isolation as package
from lab.isolation.base import Group, Probe


@cache
def probes() -> tuple[Probe, ...]:
    """All probes, by group and within it in the order of their files; what weighs on the instance comes last."""
    modules = sorted(pkgutil.iter_modules(package.__path__, f"{package.__name__}."), key=lambda found: found.name)
    kinds = [kind for found in modules for kind in _defined_in(import_module(found.name))]
    groups = list(Group)
    return tuple(kind() for kind in sorted(kinds, key=lambda kind: (groups.index(kind.group), not kind.together)))


def _defined_in(module: ModuleType) -> Iterator[type[Probe]]:
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, Probe) and kind.__module__ == module.__name__ and kind.id:
            yield kind
