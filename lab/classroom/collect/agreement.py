"""What many hosts' runs agree in. Ratios are taken within each run; across hosts only their directions and intervals
are held against each other. Numbers of hardware, of virtual and of emulated hosts, and of native, virtualised and
emulated instances never meet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.analysis.inference.estimate import at_level
from lab.analysis.inference.judge import ALPHA, Verdict
from lab.analysis.quantities import format_ratio, label, some

GROUNDS = {
    "hardware": "on hardware",
    "virtual": "in a virtual machine",
    "emulated": "in an emulated machine",
    "unknown": "on a host of unknown kind",
}
MOST_ANSWERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One run in the picture: ``who`` handed it in, ``told`` what it says, ``special`` how its host is unlike most
    others.
    """

    who: str
    told: Mapping[str, Any]
    special: tuple[tuple[str, str], ...] = ()

    @property
    def ground(self) -> str:
        """What its host's kernel runs on."""
        return str(self.told["ground"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One ratio across the hosts of one kind. ``direction`` says whether all prove the same, ``size`` whether one
    ratio fits all of their intervals.
    """

    what: str
    arm: str
    kind: str
    hosts: int
    agrees: bool | None
    direction: str
    size: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The picture: lines, agreements, isolation answers that differ, and what was left out of it, with the reason."""

    lines: tuple[Line, ...]
    agreements: tuple[Agreement, ...]
    answers: tuple[tuple[str, str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    scenario: str
    until: str
    baseline: str


def collected(runs: Sequence[tuple[str, Mapping[str, Any]]], left_out: Sequence[tuple[str, str]]) -> Collected:
    """All of it, of runs by who handed them in. What measured another thing than most, and what is mostly a copy of
    another hand-in's samples, is left out and said.
    """
    out = list(left_out)
    common = Counter(_measured(told) for _, told in runs).most_common(1)
    what = common[0][0] if common else ("", "", "")
    kept: list[tuple[str, Mapping[str, Any]]] = []
    for who, told in runs:
        if _measured(told) != what:
            differs = next(pair for pair in zip(_measured(told), what, strict=True) if pair[0] != pair[1])
            out.append((who, f"it measured something else than most: {differs[0]}, not {differs[1]}"))
        elif (why := _copied(told, kept)) is not None:
            out.append((who, why))
        else:
            kept.append((who, told))
    lines = _lines(kept)
    return Collected(
        lines=lines, agreements=tuple(_agreements(lines)), answers=tuple(_answers(lines)), left_out=tuple(out),
        scenario=what[0], until=what[1], baseline=what[2],
    )  # fmt: skip


def _copied(told: Mapping[str, Any], kept: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    """Why it is no run of its own; None where nothing speaks against it. Times are told apart by nanoseconds, so that
    two runs have hardly one in common.
    """
    own = set(told["times"])
    for who, other in kept:
        if told["digest"] == other["digest"]:
            return f"it holds the very observations of {who}"
        if own and 2 * len(own.intersection(other["times"])) > len(own):
            return f"more than half of its times are those of {who}"
    return None


def _measured(told: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(told["scenario"]), str(told["until"]), str(told["baseline"])


def _lines(kept: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Line, ...]:
    """By what their hosts are, then by name; special is what differs from more than half of all."""
    usual = {}
    for key in dict.fromkeys(key for _, told in kept for key in told["facts"]):
        value, times = Counter(told["facts"][key] for _, told in kept).most_common(1)[0]
        if len(kept) > 2 and times * 2 > len(kept):
            usual[key] = value
    order = list(GROUNDS)
    found = [
        Line(
            who=who, told=told,
            special=tuple((key, value) for key, value in told["facts"].items() if usual.get(key, value) != value),
        )
        for who, told in kept
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda line: (order.index(line.ground), line.who)))


def shared(lines: Sequence[Line]) -> dict[str, list[str]]:
    """Hosts of which there are several runs: who handed them in."""
    hosts: dict[str, list[str]] = {}
    for line in lines:
        if line.told["host"]:
            hosts.setdefault(line.told["host"], []).append(line.who)
    return {host: who for host, who in hosts.items() if len(who) > 1}


def _one_of_each_host(lines: Sequence[Line]) -> list[Line]:
    """A host that was measured twice counts once, by the run of more blocks."""
    best: dict[str | int, Line] = {}
    for place, line in enumerate(lines):
        key = line.told["host"] or place
        if key not in best or line.told["blocks"] > best[key].told["blocks"]:
            best[key] = line
    return list(best.values())


Entry = tuple[str, Mapping[str, Any]]


def _agreements(lines: Sequence[Line]) -> Iterator[Agreement]:
    groups: dict[tuple[str, str, str, str, str], list[Entry]] = {}
    for line in _one_of_each_host(lines):
        for row in line.told["ratios"]:
            key = (row["quantity"], row["state"], row["arm"], line.ground, row["kind"])
            groups.setdefault(key, []).append((line.who, row))
    quantities = list(dict.fromkeys((quantity, state) for quantity, state, *_ in groups))

    def place(key: tuple[str, str, str, str, str]) -> tuple[int, int, str, int, str]:
        quantity, state, arm, ground, kind = key
        order = min(row["order"] for _, row in groups[key])
        return quantities.index((quantity, state)), order, arm, list(GROUNDS).index(ground), kind

    for key in sorted(groups, key=place):
        (quantity, _, arm, ground, kind), entries = key, groups[key]
        agrees, direction = _direction(entries)
        yield Agreement(
            what=entries[0][1]["label"] or label(quantity), arm=arm, kind=f"{kind}, {GROUNDS[ground]}",
            hosts=len(entries), agrees=agrees, direction=direction, size=_size(entries),
        )  # fmt: skip


def _proves(row: Mapping[str, Any]) -> str:
    if row["verdict"] == Verdict.DIFFERENT:
        return "more" if row["ratio"] > 1 else "less"
    return "the same" if row["verdict"] == Verdict.SAME else ""


def _direction(entries: Sequence[Entry]) -> tuple[bool | None, str]:
    """Whether all prove the same: None where too few prove anything."""
    proven: dict[str, list[str]] = {}
    for who, row in entries:
        proven.setdefault(_proves(row), []).append(who)
    silent = proven.pop("", [])
    if not proven:
        return None, "none proves anything" if len(entries) > 1 else "nothing is proven"
    if len(proven) > 1:
        return False, "; ".join(f"{word}: {some(who)}" for word, who in proven.items())
    word, those = next(iter(proven.items()))
    if len(entries) == 1:
        return None, word
    if silent:
        return None, f"{word} on {len(those)} of {len(entries)}, not proven: {some(silent)}"
    return True, f"{word}, on all {len(entries)}"


def _size(entries: Sequence[Entry]) -> str:
    """From the least to the largest ratio, and whether one ratio lies in all intervals. These are widened so that all
    of them hold at once with 95 % (Bonferroni).
    """
    ordered = sorted(entries, key=lambda entry: entry[1]["ratio"])
    if len(ordered) == 1:
        return format_ratio(ordered[0][1]["ratio"])
    ends = " to ".join(f"{format_ratio(row['ratio'])} ({who})" for who, row in (ordered[0], ordered[-1]))
    level = 1 - ALPHA / len(entries)
    wide = [
        at_level(row["ratio"], row["low"], row["high"], row["units"], level)
        for _, row in ordered
        if row["low"] is not None and row["high"] is not None and row["units"] > 1
    ]
    if len(wide) < 2:
        return f"{ends}; too few intervals"
    fits = max(low for low, _ in wide) <= min(high for _, high in wide)
    return f"{ends}; {'one ratio may fit all' if fits else 'no one ratio fits all'}"


def _answers(lines: Sequence[Line]) -> Iterator[tuple[str, str, str]]:
    """Isolation answers that are not the same everywhere: probe, arm, and who found what."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for line in _one_of_each_host(lines):
        for probe, by_arm in line.told["answers"].items():
            for arm, reach in by_arm.items():
                found.setdefault((probe, arm), {}).setdefault(reach, []).append(line.who)
    differing = [(key, by_reach) for key, by_reach in found.items() if len(by_reach) > 1]
    for (probe, arm), by_reach in sorted(differing)[:MOST_ANSWERS]:
        rarest_first = sorted(by_reach.items(), key=lambda each: len(each[1]))
        yield probe, arm, "; ".join(f"{reach}: {some(who)}" for reach, who in rarest_first)
