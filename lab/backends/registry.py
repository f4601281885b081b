"""Which backends there are: every module of this package that defines one. Nothing lists them by hand."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
from importlib import import_module
from typing import Any, TypeVar

import lab.backends
from lab.backends.support.base import SiteBackend
from lab.backends.support.brought import Brought, name_of
from lab.errors import UsageError
from lab.model import Check

Kind = TypeVar("Kind", bound=Brought)
BEHIND_PREFIX = ":"
_admitted: dict[str, type[SiteBackend]] = {}
"""Those that no module defines: made in this process, from what the user has."""
_words: dict[str, type[SiteBackend]] = {}
"""The same by what finds them in any process."""


def make(base: type[Kind], short: str, **members: Any) -> type[Kind]:
    """A backend of ``base``, called by its prefix and ``short`` or much like that; it is not admitted yet."""
    others = [kind for kind in available() if issubclass(kind, base)]
    called = {
        "name": name_of(base.prefix, short, [kind.name for kind in others]),
        "order": base.first_order + len(others),
        "__module__": base.__module__,
    }
    made: type[Kind] = type("Own", (base,), {**called, **members})
    return made


def admit(kind: type[Brought]) -> None:
    """Let ``kind``, made in this process, be found like the others, by its `word` as well.

    Raises TypeError when its name is taken.
    """
    if kind.name in _admitted:
        raise TypeError(f"two backends are called {kind.name}")
    _admitted[kind.name] = _words[kind.word] = kind


def admitted() -> list[str]:
    """The names of those that were made in this process."""
    return list(_admitted)


def checks_of(kind: type[SiteBackend]) -> list[Check]:
    """What it asks of this host, and of an ordinary user who is not its root."""
    from lab.host.identity import privilege
    from lab.host.survey.checks import hosts_root

    return [*kind.check(), *([hosts_root()] if privilege.is_rootless() and not kind.rootless else [])]


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
    """The backend called ``name``, or found by such a word. Raises UsageError that names the others.

    It is looked for in the module of that name first: a command that needs one need not import them all.
    """
    if known := _admitted.get(name) or _words.get(name):
        return known
    if name.isidentifier() and importlib.util.find_spec(f"{lab.backends.__name__}.{name}"):
        for kind in _defined_in(name):
            if kind.name == name:
                return kind
    if family := family_of(name):
        return family.recall(name.removeprefix(family.prefix))
    kinds = available()
    for kind in kinds:
        if kind.name == name:
            return kind
    raise UsageError(f"no backend is called {name}", hint=f"backends: {', '.join(kind.name for kind in kinds)}")


def family_of(word: str) -> type[Brought] | None:
    """What the prefix of ``word`` stands for, as ``vm:`` and ``oci:`` do; None without such a prefix."""
    if BEHIND_PREFIX not in word:
        return None
    for module in pkgutil.iter_modules(lab.backends.__path__):
        for kind in _classes_in(module.name):
            if issubclass(kind, Brought) and word.startswith(kind.prefix):
                return kind
    return None


def _defined_in(module_name: str) -> list[type[SiteBackend]]:
    return [kind for kind in _classes_in(module_name) if "name" in vars(kind)]


def _classes_in(module_name: str) -> list[type[SiteBackend]]:
    module = import_module(f"{lab.backends.__name__}.{module_name}")
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, SiteBackend) and kind.__module__ == module.__name__
    ]
