"""Limits for whoever can't set all of them: an ordinary user sets those for which a control group was delegated."""

from __future__ import annotations

from lab.commands.output import say
from lab.errors import LimitError
from lab.host.cgroup.given import CONTROLLERS, as_given, not_given
from lab.model import Limits

OPTIONS = {"memory_bytes": "--memory", "cpus": "--cpus", "pids": "--pids"}
WORDS = {"memory_bytes": "memory", "cpus": "CPUs", "pids": "processes"}
REMEDY = "leave it out, or have an administrator give you a group of that controller: docs/rootless.md"


def require_given(limits: Limits) -> None:
    """Raise LimitError for the first that was asked for on the command line and can't be set."""
    for name in not_given(limits):
        raise LimitError(
            f"{OPTIONS[name]} can't be set: you have been given no {CONTROLLERS[name]} control group", hint=REMEDY
        )


def require_groups(what: str) -> None:
    """Raise LimitError where an ordinary user can't set each of the limits that ``what`` can't do without."""
    missing = not_given(Limits(memory_bytes=1, cpus=1.0, pids=1))
    if missing:
        controllers = ", ".join(CONTROLLERS[name] for name in missing)
        raise LimitError(
            f"{what}, and you have been given no control group of: {controllers}",
            hint="have an administrator give you one: docs/rootless.md",
        )


def as_far_as_given(limits: Limits) -> Limits:
    """``limits``, a scenario's, without those that can't be set; that is said."""
    if missing := not_given(limits):
        words = ", ".join(WORDS[name] for name in missing)
        say(f"lab: no limit of {words}: you have been given no control group of that controller (docs/rootless.md)")
    return as_given(limits)
