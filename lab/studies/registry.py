"""Finds the studies: every folder of `lab/studies/`. It imports their ``__init__.py`` alone, and so nothing heavy."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

import lab.studies as package
from lab.studies.base import Study

COMPARISON = "compare"
"""The study whose runs have no ``kind`` in their settings."""


@cache
def studies() -> tuple[Study, ...]:
    """All studies, by their commands."""
    names = [found.name for found in pkgutil.iter_modules(package.__path__) if found.ispkg]
    found: list[Study] = [import_module(f"{package.__name__}.{name}").STUDY for name in names]
    return tuple(sorted(found, key=lambda study: study.command))


def study_of(settings: Mapping[str, Any]) -> Study:
    """The study whose run has these settings: that of its ``kind``, and else the comparison."""
    known = {study.kind: study for study in studies()}
    return known.get(str(settings.get("kind", "")), known[COMPARISON])
