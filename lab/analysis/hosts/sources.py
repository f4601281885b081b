"""Which runs are looked at together: the complete comparisons below some folders, host by host; all others named.

Joined is what `lab.results.merge` would join, were it of one host: the same scenario, image, limits, load and lab. Of
runs that differ in these, the kind that most hosts have is taken, and the others are named with what differs.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from lab.analysis.data import Observed
from lab.analysis.inference.estimate import FEWEST
from lab.analysis.readiness import leading, until
from lab.errors import LabError, ResultsError
from lab.host.survey.virtualisation import Ground
from lab.results.merge import alike_across_hosts
from lab.results.record import Arm, Ending, Run
from lab.results.store import RUN, RunFolder

LONGEST = 60
"""Of what differs so many letters are told."""


class HostKind(StrEnum):
    """What a host is: those of one kind alone stand in one estimate."""

    BARE = "bare"
    NESTED = "nested"
    EMULATED = "emulated"
    UNKNOWN = "unknown"

    @property
    def words(self) -> str:
        """The hosts of this kind: hardware, virtual machines, machines that an emulator executes."""
        return {
            HostKind.BARE: "bare hosts",
            HostKind.NESTED: "nested hosts",
            HostKind.EMULATED: "emulated hosts",
            HostKind.UNKNOWN: "hosts that did not record what they are",
        }[self]


KINDS = {Ground.HARDWARE: HostKind.BARE, Ground.VIRTUAL: HostKind.NESTED, Ground.EMULATED: HostKind.EMULATED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A run that counts, as far as it has to be known: ten thousand of these are in memory at once.

    ``accelerators`` has that of each arm that is compared, by its label. ``traits`` say what the host was like.
    """

    path: Path
    host: str
    kind: HostKind
    started: str
    scenario: str
    baseline: str
    accelerators: Mapping[str, str]
    blocks: int  # as planned; where time was, as many as an estimate takes
    twin_alike: bool
    excludes: bool
    wanted: tuple[str, ...]
    traits: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A run that does not count, and why."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The runs of one scenario that measure the same thing. ``leading`` is the quantity that tells how long it takes,
    ``until`` what that ends with. ``arms`` are those that are compared, as the first run with each describes them.
    """

    scenario: str
    title: str
    until: str
    leading: str
    arms: tuple[Arm, ...]
    sources: tuple[Source, ...]

    def arm(self, label: str, accelerator: str) -> Arm:
        """The arm of that name that was run by it."""
        return next(arm for arm in self.arms if (arm.label, str(arm.accelerator)) == (label, accelerator))


def found_below(folders: Iterable[Path]) -> list[Path]:
    """Every run folder at or below these, by path; what lies inside of one is not looked at.

    Raises ResultsError for a folder that is none, or can't be read.
    """

    def refused(error: OSError) -> None:
        raise ResultsError(f"{error.filename} can't be read: {error.strerror}", hint="check its permissions")

    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ResultsError(f"{folder} is no folder", hint="lab results ls")
        for place, below, files in os.walk(folder, onerror=refused):
            if RUN in files:
                found.setdefault(os.path.realpath(place), Path(place))
                below.clear()
    return sorted(found.values())


def chosen(paths: Sequence[Path]) -> tuple[list[Group], list[LeftOut]]:
    """The runs that count, a group per scenario, by name; and those that don't."""
    candidates: dict[str, dict[str, list[Source]]] = {}
    first: dict[str, Run] = {}
    arms: dict[str, dict[tuple[str, str], Arm]] = {}
    alike: dict[str, dict[str, Any]] = {}
    seen: dict[tuple[str, ...], Path] = {}
    out: list[LeftOut] = []
    for path in paths:
        try:
            run = RunFolder.open(path).run
            why = _unfit(run)
            source = None if why else _source(path, run)
        except LabError as error:
            why, source = error.message, None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why, source = f"its run.json says what can't be: {error!r}", None
        if source is None:
            out.append(LeftOut(path=path, why=why))
            continue
        same = (run.name, run.started, str(run.seed), source.host)
        if same in seen:
            out.append(LeftOut(path=path, why=f"it is the same run as {seen[same]}"))
            continue
        seen[same] = path
        values = alike_across_hosts(run) | {"the baseline": source.baseline}
        key = json.dumps(values, sort_keys=True, default=str)
        alike.setdefault(key, values)
        first.setdefault(key, run)
        for arm in run.arms:
            arms.setdefault(key, {}).setdefault((arm.label, str(arm.accelerator)), arm)
        candidates.setdefault(run.scenario, {}).setdefault(key, []).append(source)
    groups = []
    for scenario, kinds in sorted(candidates.items()):
        most = max(kinds, key=lambda key: _weight(kinds[key]))
        run = first[most]
        groups.append(
            Group(
                scenario=scenario, title=run.title or scenario, until=str(until(run)), leading=leading(run),
                arms=tuple(sorted(arms[most].values(), key=lambda arm: (arm.order, arm.label, arm.accelerator))),
                sources=tuple(kinds[most]),
            )
        )  # fmt: skip
        for key, others in kinds.items():
            if key != most:
                why = _differing(alike[key], alike[most])
                out += [LeftOut(path=source.path, why=why) for source in others]
    return groups, sorted(out, key=lambda each: each.path)


def _weight(sources: Sequence[Source]) -> tuple[int, int, int, str]:
    """How many hosts with blocks enough, runs and planned blocks, and how late the last run: of several kinds the
    heaviest is taken.
    """
    blocks: Counter[str] = Counter()
    for each in sources:
        blocks[each.host] += each.blocks
    enough = sum(count >= FEWEST for count in blocks.values())
    return enough, len(sources), blocks.total(), max(each.started for each in sources)


def _unfit(run: Run) -> str:
    """Why a run does not count whatever the others are; "" when it does."""
    if kind := run.settings.get("kind"):
        return f"it is a run of lab {kind}, no comparison"
    if run.ended_because not in list(Ending):
        return f"it is not complete: {run.ended_because or 'it has not ended'}"
    if not run.host.get("identity"):
        return "it does not say which host it was measured on"
    if run.settings.get("merged"):
        return "it was merged of others, which would count twice"
    return ""


def _source(path: Path, run: Run) -> Source:
    known = Observed(path=path, run=run, frame=pd.DataFrame())
    references = known.references
    return Source(
        path=path, host=str(run.host["identity"]), kind=kind_of(run), started=run.started, scenario=run.scenario,
        baseline=known.baseline, accelerators={arm.label: str(arm.accelerator) for arm in references},
        blocks=run.blocks_planned or FEWEST, twin_alike=known.twin_alike,
        excludes=bool(run.settings.get("exclude_noisy")), wanted=known.wanted,
        traits=_traits(run),
    )  # fmt: skip


def kind_of(run: Run) -> HostKind:
    """What the run's host is. Before this was recorded a run said at least whether there is a hypervisor below."""
    if run.emulated or any(arm.nested for arm in run.arms):
        return HostKind.EMULATED
    ground = run.host.get("platform", {}).get("ground")
    if ground in KINDS:
        return KINDS[ground]
    return {True: HostKind.NESTED, False: HostKind.BARE}.get(
        run.host.get("cpu", {}).get("virtualised"), HostKind.UNKNOWN
    )


TRAITS: Mapping[str, Callable[[Run], Any]] = {
    "kernel": lambda run: run.host.get("kernel_release"),
    "CPU": lambda run: run.host.get("cpu", {}).get("model"),
    "microcode": lambda run: run.host.get("cpu", {}).get("microcode"),
    "processors online": lambda run: run.host.get("cpu", {}).get("online"),
    "SMT": lambda run: run.host.get("cpu", {}).get("smt"),
    "governor": lambda run: run.host.get("cpu", {}).get("governor"),
    "cgroups": lambda run: run.host.get("cgroups", {}).get("mode"),
    "QEMU": lambda run: run.versions.get("qemu"),
    "distribution": lambda run: run.host.get("distribution"),
    "clock source": lambda run: run.host.get("clocksource"),
    "huge pages": lambda run: run.host.get("memory", {}).get("transparent_huge_pages"),
    "KSM": lambda run: run.host.get("memory", {}).get("ksm"),
}
"""What may be special about a host, besides the mitigation of each vulnerability."""

NOT_SAID = "not recorded"
MITIGATION = "mitigation of "


def _traits(run: Run) -> dict[str, str]:
    said = {name: what(run) for name, what in TRAITS.items()}
    mitigations = run.host.get("mitigations") or {}
    told = {name: NOT_SAID if value in (None, "") else str(value) for name, value in said.items()}
    return told | {f"{MITIGATION}{name}": str(text) for name, text in mitigations.items()}


def _differing(one: Mapping[str, Any], most: Mapping[str, Any]) -> str:
    found = [f"{name} ({_short(one[name])}; theirs: {_short(most[name])})" for name in one if one[name] != most[name]]
    return f"it differs from the others in {', '.join(found)}"


def _short(value: Any) -> str:
    several = isinstance(value, tuple)
    text = " ".join(str(each) for each in value if each is not None) if several else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def traits_of(sources: Sequence[Source]) -> dict[str, str]:
    """What a host was like in these runs; where that changed, every state of it."""
    found: dict[str, dict[str, None]] = {}
    for source in sorted(sources, key=lambda each: each.started):
        for name, value in source.traits.items():
            found.setdefault(name, {})[value] = None
    return {name: ", then ".join(values) for name, values in found.items()}
