"""Finds the metrics: every class below ``lab/metrics/`` that is a Metric with a name."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

import lab.metrics as package
from lab.metrics.base import Metric


@cache
def metrics() -> tuple[type[Metric], ...]:
    """All metric classes, in the order in which their hooks are called."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
    found = [kind for kind in Metric.__subclasses__() if kind.__module__.startswith(f"{package.__name__}.")]
    return tuple(sorted(found, key=lambda kind: (kind.order, kind.name)))


@cache
def usual_metrics() -> tuple[type[Metric], ...]:
    """Those that a comparison asks without being told to: all but what takes long and is there on request."""
    return tuple(kind for kind in metrics() if not kind.on_request)
