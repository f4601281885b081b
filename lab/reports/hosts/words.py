"""What may be said of many hosts, in sentences: each is one that was computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lab.analysis.hosts.across import FEWEST_OTHERS
from lab.analysis.hosts.merged import Merged
from lab.analysis.hosts.sources import Group, HostKind
from lab.analysis.inference.estimate import FEWEST
from lab.analysis.inference.judge import EXPLORATORY, judgement
from lab.analysis.quantities import format_ratio, format_ratios, is_headline, is_key, label, some
from lab.model import Accelerator
from lab.reports.material import stamp

Row = Mapping[Any, Any]

NOT_TO_CONCLUDE = (
    "Anything about all hosts: these are those that were measured, and nobody drew them at random. The prediction is "
    "of a host like them.",
    "How long anything takes on a host that was not measured: only ratios were put together, since seconds of two "
    "hosts differ for a hundred reasons.",
    "That what is special about a host made it differ. It goes along with it; to know, change that one thing on that "
    "host, and measure again.",
)
ONCE = (
    "That hosts differ because they are hosts: some were measured once, and what differs from run to run on one host "
    "counts as a difference between hosts there."
)


def rows_of(merged: Merged, group: Group, kind: HostKind) -> list[Row]:
    """The comparisons of a scenario on hosts of a kind that are judged, the declared ones first; arms in order. All
    of them where none is judged.
    """
    places = {(arm.label, str(arm.accelerator)): place for place, arm in enumerate(group.arms)}
    table = merged.pooled[(merged.pooled["scenario"] == group.scenario) & (merged.pooled["kind"] == kind.value)]
    every: list[Row] = [*table.to_dict("records")]
    found = [row for row in every if _is_judged(row)] or every
    first = {quantity: place for place, quantity in enumerate(dict.fromkeys(row["quantity"] for row in found))}

    def order(row: Row) -> tuple[bool, bool, int, bool, int]:
        return (
            row["quantity"] != group.leading, not is_headline(row["quantity"], row["state"]), first[row["quantity"]],
            row["state"] != "idle", places[row["arm"], row["accelerator"]],
        )  # fmt: skip

    return sorted(found, key=order)


def _is_judged(row: Row) -> bool:
    return is_key(row["quantity"]) or is_headline(row["quantity"], row["state"])


def called(group: Group, quantity: str, state: str) -> str:
    """A quantity's name for people, as this scenario has it."""
    named = f"time until {group.until}" if quantity == group.leading == "boot.total" else label(quantity)
    return named + (f", {state.replace('-', ' ')}" if state else "")


def arm_of(group: Group, row: Row) -> str:
    """The arm, with its accelerator where that is not the bare host."""
    if row["accelerator"] == Accelerator.NATIVE:
        return str(row["arm"])
    return f"{row['arm']} ({stamp(group.arm(row['arm'], row['accelerator'])).partition(' on ')[0]})"


def hosts_of(count: int, kind: HostKind) -> str:
    """``12 nested hosts``."""
    name = "" if kind is HostKind.UNKNOWN else f"{kind} "
    return f"{count} {name}host{'' if count == 1 else 's'}"


def sentence(group: Group, row: Row) -> str:
    """One comparison over hosts: the ratio, how sure it is, and what the next host may be expected to show."""
    kind, count = HostKind(row["kind"]), int(row["hosts"])
    what = f"{arm_of(group, row)}, {called(group, row['quantity'], row['state'])}: {format_ratio(row['ratio'])} "
    what += f"{row['baseline']}"
    if count == 1:
        return f"{what} on {hosts_of(1, kind)}. What other hosts would show, one host can't tell."
    if count < FEWEST:
        return (
            f"{what} on average over {hosts_of(count, kind)}: too few for an interval, and what a next one would "
            "show can't be told."
        )
    judged = judgement(row)
    sure = f"{judged.words}{f' ({judged.why})' if judged.why and not judged.is_proven else ''}"
    next_one = format_ratios(row["next_low"], row["next_high"])
    return (
        f"{what} on average over {hosts_of(count, kind)} (95 %: {format_ratios(row['low'], row['high'])}), {sure}. "
        f"The next such host is expected between {next_one.replace('–', ' and ')}. {differing(row)}"
    )


def differing(row: Row) -> str:
    """Whether the hosts differ among themselves, and by how much; "" for too few."""
    if int(row["hosts"]) < FEWEST:
        return ""
    share = f"I² = {100 * row['i2']:.0f} %"
    if not row["differing"]:
        return f"That the hosts differ among themselves is not proven ({share})."
    mark = ", exploratory" if row["family"] == EXPLORATORY else ""
    return f"The hosts do differ among themselves ({share}{mark}): typically by {typical(row['tau2'])}."


def typical(tau2: float) -> str:
    """τ as people multiply: by how much two thirds of the hosts differ at most from the mean."""
    factor = math.exp(math.sqrt(tau2))
    return f"{100 * (factor - 1):.2g} %" if factor < 2 else f"a factor of {factor:.2g}"


def disagreements(merged: Merged, group: Group, kind: HostKind) -> list[tuple[str, str]]:
    """Of each host that disagrees with the others, its name and where; the ones that disagree in most first."""
    table = merged.estimates
    chosen = table[(table["scenario"] == group.scenario) & (table["kind"] == kind.value) & table["disagrees"]]
    found: dict[str, list[str]] = {}
    for row in sorted(chosen.to_dict("records"), key=lambda row: row["adjusted"]):
        where = f"{arm_of(group, row)}, {called(group, row['quantity'], row['state'])} ({format_ratio(row['ratio'])})"
        if not is_headline(row["quantity"], row["state"]):
            where += " (exploratory)"
        found.setdefault(row["host"], []).append(where)
    most = sorted(found.items(), key=lambda item: -len(item[1]))
    return [(identity, some(where)) for identity, where in most]


def disagreeing(merged: Merged, group: Group, kind: HostKind) -> Iterator[str]:
    """One sentence over a kind's hosts, then one for each that disagrees, with what is special about it."""
    count = sum(host.kind is kind for host in merged.hosts[group.scenario])
    if count == 1:
        yield "There is no other host of its kind to compare it with."
        return
    if count <= FEWEST_OTHERS:
        yield f"Which of {hosts_of(count, kind)} disagrees can't be told: that takes {FEWEST_OTHERS + 1} of a kind."
        return
    found = disagreements(merged, group, kind)
    if not found:
        yield f"None of {hosts_of(count, kind)} is proven to disagree with the others."
        return
    verb = "disagrees" if len(found) == 1 else "disagree"
    names = [merged.host(group.scenario, identity, kind).name for identity, _ in found]
    yield f"Of {hosts_of(count, kind)} {len(found)} {verb} with the others: {some(names)}."
    for identity, where in found:
        host = merged.host(group.scenario, identity, kind)
        special = merged.special(group.scenario, host)
        about = f"What sets it apart: {'; '.join(special)}." if special else "Nothing recorded sets it apart."
        yield f"{host.name} disagrees in {where}. {about}"


def not_to_conclude(merged: Merged) -> tuple[str, ...]:
    """What follows from none of the numbers."""
    once = any(host.runs == 1 for hosts in merged.hosts.values() for host in hosts)
    emulated = any(kind is HostKind.EMULATED for _, kind in merged.strata)
    words = "How fast anything is on a processor, where hosts were emulated: what was counted and refused is right."
    return (*NOT_TO_CONCLUDE, *([ONCE] if once else []), *([words] if emulated else []))
