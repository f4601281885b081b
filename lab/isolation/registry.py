"""Finds the probes: every class below ``lab/isolation/`` that has an id."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module

import lab.isolation as package
from lab.isolation.base import Group, Probe


@cache
def probes() -> tuple[Probe, ...]:
    """All probes, by group and within it in the order of their files; what weighs on the instance comes last."""
    for module in sorted(pkgutil.iter_modules(package.__path__, f"{package.__name__}."), key=lambda m: m.name):
        import_module(module.name)
    groups = list(Group)
    kinds = [kind for kind in _below(Probe) if kind.id and kind.__module__.startswith(f"{package.__name__}.")]
    return tuple(kind() for kind in sorted(kinds, key=lambda kind: (groups.index(kind.group), not kind.together)))


def _below(kind: type) -> Iterator[type[Probe]]:
    children: Sequence[type[Probe]] = kind.__subclasses__()
    for child in children:
        yield child
        yield from _below(child)
