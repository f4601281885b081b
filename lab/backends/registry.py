"""Which backends there are: every module of this package that defines one. Nothing lists them by hand."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import lab.backends
from lab.backends.base import SiteBackend
from lab.errors import UsageError


def available() -> list[type[SiteBackend]]:
    """Every backend, from the thinnest boundary to the thickest; whether this host can run it, `check` says."""
    found: dict[str, type[SiteBackend]] = {}
    for module in pkgutil.iter_modules(lab.backends.__path__, f"{lab.backends.__name__}."):
        for _, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
            if issubclass(kind, SiteBackend) and "name" in vars(kind) and kind.__module__ == module.name:
                if kind.name in found:
                    raise TypeError(f"two backends are called {kind.name}: {found[kind.name]} and {kind}")
                found[kind.name] = kind
    return sorted(found.values(), key=lambda kind: kind.order)


def find(name: str) -> type[SiteBackend]:
    """The backend called ``name``. Raises UsageError that names the others."""
    kinds = available()
    for kind in kinds:
        if kind.name == name:
            return kind
    raise UsageError(f"no backend is called {name}", hint=f"backends: {', '.join(kind.name for kind in kinds)}")
