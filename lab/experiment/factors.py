"""Factors: what an experiment varies besides the backend, as ``--factor NAME=A,B`` says it.

    memory, cpus, pids        the limits of every instance
    firmware, machine, …      a backend's own knobs: see `lab.instance.Knob`
    arg.NAME                  a build argument of the Dockerfile: an image per level
    env.NAME                  a variable in the application's environment
    caches, …                 the host: see `lab.experiment.hostfactors`

Every level of every factor meets every level of the others: a full factorial design (Fisher 1935; Box, Hunter and
Hunter, "Statistics for Experimenters", 2005, chapter 5). A factor that means nothing to a backend does not multiply
its arms. The first level named is the one that the others are compared with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from lab.errors import BackendUnavailable, LabError, LimitError, UsageError
from lab.experiment.hostfactors.registry import host_factors
from lab.host.units import parse_bytes, parse_cpus, parse_words
from lab.instance import Backend
from lab.model import Kernel, Limits


class Scope(StrEnum):
    """What a factor is a property of."""

    LIMIT = "limit"
    KNOB = "backend"
    ARGUMENT = "image"
    ENVIRONMENT = "application"
    HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A factor that may be varied: ``levels`` are all there are, () where any may be named, like ``example``.

    ``of`` has the backends it applies to, with the levels that each of them has. ``lacking`` says why one of them has
    not got a level on this host, by backend and level.
    """

    name: str
    scope: Scope
    levels: tuple[str, ...]
    tells: str
    of: Mapping[str, tuple[str, ...]]
    example: str = ""
    lacking: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A factor of one experiment. ``levels`` as they were named; ``of`` holds those that each backend has.

    A backend that is missing in ``of`` is not touched by it; one that knows but some of the levels takes those.
    """

    name: str
    scope: Scope
    levels: tuple[str, ...]
    tells: str
    of: Mapping[str, tuple[str, ...]]


ARGUMENT, ENVIRONMENT = "arg.", "env."
OPEN: Mapping[str, tuple[Scope, str, str]] = {  # those whose levels may be anything: scope, example, what it tells
    "memory": (
        Scope.LIMIT,
        "256M,512M",
        "from where on more memory changes nothing, and where too little begins to hurt",
    ),
    "cpus": (
        Scope.LIMIT,
        "0.5,1",
        "how much of the work is computing; a quota of CPU time, and for a machine a number of vCPUs",
    ),
    "pids": (Scope.LIMIT, "32,128", "whether a ceiling on processes costs anything before it is reached"),
    "arg.NAME": (
        Scope.ARGUMENT,
        "1,2",
        "what a build argument of the Dockerfile changes; an image is built for each level",
    ),
    "env.NAME": (Scope.ENVIRONMENT, "1,2", "what a variable in the application's environment changes"),
}
_NAME = re.compile(r"[a-z][a-z0-9_-]*|(arg|env)\.[A-Za-z_][A-Za-z0-9_]*")
_LEVEL = re.compile(r"[A-Za-z0-9._+:/@%~-]+")
EXAMPLE = "--factor memory=256M,512M; lab compare --factors lists what there is"


def known(kinds: Sequence[type[Backend]]) -> tuple[Known, ...]:
    """Every factor that an experiment with these backends may have: of limits, backends, the host, the image."""
    everywhere: Mapping[str, tuple[str, ...]] = {kind.name: () for kind in kinds}
    free = [
        Known(name=name, scope=scope, levels=(), tells=tells, of=everywhere, example=example)
        for name, (scope, example, tells) in OPEN.items()
    ]
    closed: dict[str, Known] = {}
    told: dict[str, dict[str, list[str]]] = {}  # by knob and text, of whom
    for kind in kinds:
        lacking = kind.lacking() if kind.knobs else {}
        for knob in kind.knobs:
            before = closed.get(knob.name)
            told.setdefault(knob.name, {}).setdefault(knob.tells, []).append(kind.name)
            levels = () if knob.is_open else knob.levels
            whys = {(kind.name, level): why for (name, level), why in lacking.items() if name == knob.name}
            here = tuple(level for level in levels if (kind.name, level) not in whys)
            closed[knob.name] = Known(
                name=knob.name,
                scope=Scope.KNOB,
                levels=tuple(dict.fromkeys((*(before.levels if before else ()), *levels))),
                tells=_told(told[knob.name]),
                example=knob.example,
                of={**(before.of if before else {}), kind.name: here},
                lacking={**(before.lacking if before else {}), **whys},
            )
    for factor in host_factors():
        touched = {kind.name: factor.levels for kind in kinds if factor.applies_to(kind)}
        if touched:
            closed[factor.name] = Known(
                name=factor.name, scope=Scope.HOST, levels=factor.levels, tells=factor.tells, of=touched
            )
    return (*free[:3], *closed.values(), *free[3:])


def _told(texts: Mapping[str, Sequence[str]]) -> str:
    """What a knob tells; of each backend, where they have one of that name for something else."""
    if len(texts) == 1:
        return next(iter(texts))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())


def parse(
    texts: Sequence[str], kinds: Sequence[type[Backend]], others: Sequence[type[Backend]] = ()
) -> tuple[Factor, ...]:
    """The factors that ``texts`` name, each ``NAME=A,B``, for an experiment with the backends ``kinds``.

    ``others`` are backends that take no part, whose factors an error may point to. Raises UsageError for what can't
    be meant, BackendUnavailable for what this host can't do.
    """
    factors: list[Factor] = []
    for text in texts:
        factor = _parse(text, kinds, others)
        if factor.name in [each.name for each in factors]:
            raise UsageError(f"--factor {factor.name} is given twice", hint="name all of its levels in one")
        factors.append(factor)
    return tuple(factors)


def _parse(text: str, kinds: Sequence[type[Backend]], others: Sequence[type[Backend]]) -> Factor:
    name, equals, rest = (part.strip() for part in text.partition("="))
    levels = tuple(parse_words(rest))
    if not equals or not _NAME.fullmatch(name) or not levels:
        raise UsageError(f"--factor {text!r} can't be read", hint=EXAMPLE)
    found = _find(name, kinds, others)
    for level in levels:
        if not _LEVEL.fullmatch(level):
            allowed = "letters, digits and . _ + : / @ % ~ - alone"
            raise UsageError(f"--factor {name}: {level!r} can't be a level", hint=allowed)
        if found.levels and level not in found.levels:
            raise UsageError(f"--factor {name} has no level {level}", hint=f"levels: {', '.join(found.levels)}")
    of = _offered(found, levels, kinds)
    worth = [_worth(found, level, kinds) for level in levels]
    if len(set(worth)) < len(worth):
        twice = next(level for level, value in zip(levels, worth, strict=True) if worth.count(value) > 1)
        raise UsageError(f"--factor {name}={','.join(levels)} names {twice} twice", hint="name each level once")
    if len(levels) < 2:
        all_alike = f"--{name} {levels[0]} sets it for all; " if name in ("memory", "cpus") else ""
        raise UsageError(
            f"--factor {text} has one level: nothing varies", hint=f"{all_alike}a factor has two or more"
        )
    if found.scope is Scope.HOST:
        require_possible(name)
    if found.lacking and not any(len(each) > 1 for each in of.values()):
        (backend, level), why = next(iter(found.lacking.items()))
        raise BackendUnavailable(f"{name}={level} of {backend} can't be had here: {why}", hint="lab doctor")
    return Factor(name=name, scope=found.scope, levels=levels, tells=found.tells, of=of)


def _offered(found: Known, levels: Sequence[str], kinds: Sequence[type[Backend]]) -> Mapping[str, tuple[str, ...]]:
    """The backends that have some of ``levels``, with these.

    Where any may be named each backend says which it takes. Raises what it says of one that none takes.
    """
    offered = {
        backend: tuple(level for level in levels if not has or level in has) for backend, has in found.of.items()
    }
    if found.scope is Scope.KNOB and not found.levels:
        refused: dict[str, LabError] = {}
        for kind in (kind for kind in kinds if kind.name in offered):
            whys = {level: why for level in levels if (why := _refusal(kind, found.name, level))}
            offered[kind.name] = tuple(level for level in levels if level not in whys)
            refused |= whys
        taken = {level for each in offered.values() for level in each}
        for level, why in refused.items():
            if level not in taken:
                raise why
    return {backend: each for backend, each in offered.items() if each}


def _refusal(kind: type[Backend], name: str, level: str) -> LabError | None:
    try:
        kind.settle({name: level})
    except UsageError as error:
        return error
    return None


def _find(name: str, kinds: Sequence[type[Backend]], others: Sequence[type[Backend]]) -> Known:
    prefix = name.partition(".")[0]
    wanted = f"{prefix}.NAME" if "." in name else name
    here = known(kinds)
    for one in here:
        if one.name == wanted:
            return one
    compared = ", ".join(kind.name for kind in kinds)
    for one in known(others):
        if one.name == wanted:
            elsewhere = list(one.of)
            raise UsageError(
                f"{name} is nothing to {compared}: it is a factor of {', '.join(elsewhere)}",
                hint=f"--on {elsewhere[0]}",
            )
    names = ", ".join(one.name for one in here)
    raise UsageError(f"no factor of {compared} is called {name}", hint=f"factors: {names}")


def require_possible(name: str) -> None:
    """Raises BackendUnavailable when this host can't be set to any level of the host factor ``name``."""
    factor = next(each for each in host_factors() if each.name == name)
    for check in factor.check():
        if not check.ok:
            raise BackendUnavailable(
                f"{name} can't be varied here: {check.name}: {check.found}", hint=check.remedy or "lab doctor"
            )


def _worth(found: Known, level: str, kinds: Sequence[type[Backend]]) -> object:
    """What the level comes to: two ways to write the same are the same. Raises UsageError for what it can't be."""
    if found.scope is Scope.KNOB and not found.levels:
        kind = next(kind for kind in kinds if kind.name in found.of and not _refusal(kind, found.name, level))
        return kind.settle({found.name: level})[found.name]
    match found.name:
        case "memory":
            return parse_bytes(level)
        case "cpus":
            return parse_cpus(level)
        case "pids":
            return parse_pids(level)
    return level


def parse_pids(text: str) -> int:
    """A number of processes. Raises UsageError for anything but a whole number above zero."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"{text!r} is not a number of processes", hint="write for example 64")
    return int(text)


def remarks(factors: Sequence[Factor], kinds: Sequence[type[Backend]]) -> list[str]:
    """What to know before it starts: factors that pass a backend by, and levels that come to the same for one."""
    said = []
    for factor in factors:
        untouched = [kind.name for kind in kinds if kind.name not in factor.of]
        if untouched:
            said.append(f"{factor.name} is nothing to {', '.join(untouched)}, whose arms it does not multiply")
        for kind in kinds:
            lacking = [level for level in factor.levels if level not in factor.of.get(kind.name, factor.levels)]
            if lacking:
                whys = {
                    why for (name, level), why in kind.lacking().items() if name == factor.name and level in lacking
                }
                because = "".join(f": {why}" for why in sorted(whys))
                said.append(f"{kind.name} has no {factor.name}={','.join(lacking)}{because}")
            if factor.name == "cpus" and kind.kernel is Kernel.OWN:
                counts = [math.ceil(parse_cpus(level)) for level in factor.levels]
                if len(set(counts)) < len(counts):
                    vcpus = ", ".join(str(count) for count in counts)
                    said.append(
                        f"cpus={','.join(factor.levels)} is {vcpus} vCPUs to {kind.name}: no difference there"
                    )
    return said


def impossible(
    kind: type[Backend], levels: Mapping[str, str], factors: Sequence[Factor], limits: Limits
) -> LabError | None:
    """Why no instance of a backend can be at these levels: knobs that don't go together, or too tight a limit.

    ``limits`` are those that no level changes. None when an instance can. Raises BackendUnavailable when this host
    lacks what a level needs.
    """
    scopes = {factor.name: factor.scope for factor in factors}
    knobs = {name: level for name, level in levels.items() if scopes[name] is Scope.KNOB}
    for name, level in levels.items():
        if scopes[name] is Scope.LIMIT:
            limits = limited(limits, name, level)
    try:
        kind.settle(knobs)
        kind.check_limits(limits, knobs)
    except (UsageError, LimitError) as error:
        return error
    return None


def limited(limits: Limits, name: str, level: str) -> Limits:
    """``limits`` with the one that the factor ``name`` sets at ``level``."""
    match name:
        case "memory":
            return replace(limits, memory_bytes=parse_bytes(level))
        case "cpus":
            return replace(limits, cpus=parse_cpus(level))
        case "pids":
            return replace(limits, pids=parse_pids(level))
    raise ValueError(f"no limit is called {name}")


def recorded(settings: Mapping[str, Any]) -> tuple[Factor, ...]:
    """The factors of a run, out of its run.json's settings."""
    return tuple(
        Factor(
            name=raw["name"],
            scope=Scope(raw["scope"]),
            levels=tuple(raw["levels"]),
            tells=raw["tells"],
            of={backend: tuple(levels) for backend, levels in raw["of"].items()},
        )
        for raw in settings.get("factors", [])
    )
