"""Finds the probes: every class in a module below ``lab/isolation/probes/`` that has an id."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType

import lab.isolation.probes as package
from lab.errors import UsageError
from lab.host.units import parse_words
from lab.isolation.base import Group, Probe


@cache
def probes() -> tuple[Probe, ...]:
    """All probes, by group and within it in the order of their files; what weighs on the instance comes last."""
    modules = sorted(pkgutil.iter_modules(package.__path__, f"{package.__name__}."), key=lambda found: found.name)
    kinds = [kind for found in modules for kind in _defined_in(import_module(found.name))]
    groups = list(Group)
    return tuple(
        kind() for kind in sorted(kinds, key=lambda kind: (groups.index(kind.group), not kind.together, kind.may_end))
    )


def _defined_in(module: ModuleType) -> Iterator[type[Probe]]:
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, Probe) and kind.__module__ == module.__name__ and kind.id:
            yield kind


def choose(groups: str, names: str) -> list[Probe]:
    """The probes of these groups and names, or all. Raises UsageError for a word that means none."""
    wanted = set(parse_words(names))
    known = {probe.id: probe for probe in probes()}
    for name in wanted - known.keys():
        near = difflib.get_close_matches(name, known, n=3)
        raise UsageError(
            f"no probe is called {name}", hint=f"perhaps {' or '.join(near)}" if near else "lab isolation ls"
        )
    headings: set[str] = set()
    for word in parse_words(groups):
        matching = [str(group) for group in Group if str(group).startswith(word.lower())]
        if not matching:
            raise UsageError(f"no group is called {word}", hint=f"groups: {', '.join(Group)}")
        headings.update(matching)
    found = [
        probe
        for probe in probes()
        if (probe.id in wanted or not wanted) and (probe.group in headings or not headings)
    ]
    if not found:
        raise UsageError(f"no probe of {names} is in {groups}", hint="lab isolation ls")
    return found
