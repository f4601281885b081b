"""Which backends there are: every module of this package that defines one. Nothing lists them by hand."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
from importlib import import_module

import lab.backends
from lab.backends.support.base import SiteBackend
from lab.errors import UsageError

_admitted: dict[str, type[SiteBackend]] = {}
"""Those that no module defines: made in this process, from what the user has."""


def admit(kind: type[SiteBackend]) -> None:
    """Let ``kind``, made in this process, be found like the others. Raises TypeError when its name is taken."""
    if kind.name in _admitted:
        raise TypeError(f"two backends are called {kind.name}")
    _admitted[kind.name] = kind


def available() -> list[type[SiteBackend]]:
    """Every backend, from the thinnest boundary to the thickest; whether this host can run it, `check` says."""
    found: dict[str, type[SiteBackend]] = {}
    for module in pkgutil.iter_modules(lab.backends.__path__):
        for kind in _defined_in(module.name):
            if kind.name in found:
                raise TypeError(f"two backends are called {kind.name}: {found[kind.name]} and {kind}")
            found[kind.name] = kind
    return sorted((found | _admitted).values(), key=lambda kind: kind.order)


def find(name: str) -> type[SiteBackend]:
    """The backend called ``name``. Raises UsageError that names the others.

    It is looked for in the module of that name first: a command that needs one need not import them all.
    """
    if name in _admitted:
        return _admitted[name]
    if name.isidentifier() and importlib.util.find_spec(f"{lab.backends.__name__}.{name}"):
        for kind in _defined_in(name):
            if kind.name == name:
                return kind
    kinds = available()
    for kind in kinds:
        if kind.name == name:
            return kind
    raise UsageError(f"no backend is called {name}", hint=f"backends: {', '.join(kind.name for kind in kinds)}")


def _defined_in(module_name: str) -> list[type[SiteBackend]]:
    module = import_module(f"{lab.backends.__name__}.{module_name}")
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, SiteBackend) and "name" in vars(kind) and kind.__module__ == module.__name__
    ]
