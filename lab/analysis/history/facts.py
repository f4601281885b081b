"""What a run says of itself, as far as a history needs it: plain texts, whatever its run.json holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from lab.analysis.data import TWIN
from lab.analysis.readiness import until
from lab.errors import ResultsError
from lab.results.record import Arm, Ending, Run
from lab.results.store import RunFolder

LONGEST = 200
"""Characters of any text that are kept: a history is no place for a whole log."""

SYSTEM: Mapping[str, tuple[str, ...]] = {
    "kernel": ("kernel_release",),
    "kernel's build": ("kernel_version",),
    "distribution": ("distribution",),
    "CPU": ("cpu", "model"),
    "microcode": ("cpu", "microcode"),
    "CPUs online": ("cpu", "online"),
    "SMT": ("cpu", "smt"),
    "frequency governor": ("cpu", "governor"),
    "frequency driver": ("cpu", "driver"),
    "boost": ("cpu", "boost"),
    "what the host runs on": ("platform", "title"),
    "cgroups": ("cgroups", "mode"),
    "clock source": ("clocksource",),
    "KSM": ("memory", "ksm"),
    "huge pages": ("memory", "transparent_huge_pages"),
}
"""Facts of the host by name, and where ``host`` in run.json has each."""

SETTINGS = ("readiness", "load", "work", "idle_seconds", "linger_seconds", "warm_ups", "build", "exclude_noisy")
"""What a run was told to do: where it differs, other things were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A run without its observations. Texts are printable and at most `LONGEST` long, but for ``name``, the folder's.

    ``started`` is in seconds since 1970. ``facts`` may change from one night to the next and stay comparable;
    ``conditions`` may not. ``arms`` has, by label, the same of each arm: facts, conditions, backend and accelerator.
    """

    name: str
    scenario: str
    kind: str
    title: str
    started: float
    ended_because: str
    complete: bool
    until: str
    host: str
    backends: list[str]
    accelerators: list[str]
    lab: str
    facts: dict[str, str]
    conditions: dict[str, str]
    arms: dict[str, dict[str, Any]]


def about(folder: RunFolder) -> About:
    """Of an open run. Raises ResultsError for one whose run.json says something impossible."""
    try:
        return _about(folder.path.name, folder.run)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ResultsError(f"{folder.path} says something impossible: {error}", hint="lab results ls") from error


def plain(value: Any) -> str:
    """One line that nothing obeys: neither a terminal, nor the direction of a text (Unicode's bidirectional
    marks).
    """
    text = str(value).encode("utf-8", "replace").decode()
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def changed(before: About, after: About, arms: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """What was recorded differently of two runs: name, before, after; of ``arms`` alone, or of none.

    A fact that one of them does not have was not recorded there, which is no change.
    """
    found = list(_differing(before.facts, after.facts))
    for arm in arms:
        if arm in before.arms and arm in after.arms:
            pairs = _differing(before.arms[arm]["facts"], after.arms[arm]["facts"])
            found += [(f"{name} of {arm}", was, became) for name, was, became in pairs]
    return found


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    yield from ((name, before[name], after[name]) for name in before if name in after and before[name] != after[name])


def _about(name: str, run: Run) -> About:
    arms = [arm for arm in run.arms if not arm.label.endswith(TWIN)]
    started = datetime.fromisoformat(run.started)
    host = run.host
    return About(
        name=name,
        scenario=plain(run.scenario),
        kind=plain(run.settings.get("kind") or ""),
        title=plain(run.title),
        started=(started if started.tzinfo else started.replace(tzinfo=UTC)).timestamp(),
        ended_because=plain(run.ended_because),
        complete=run.ended_because in list(Ending),
        until=str(until(run)),
        host=plain(host.get("identity") or "unknown"),
        backends=[plain(each) for each in dict.fromkeys(arm.backend for arm in arms)],
        accelerators=sorted({str(arm.accelerator) for arm in arms}),
        lab=plain(run.versions.get("lab", "")),
        facts=dict(_facts(run)),
        conditions={
            "limits": _told(run.limits),
            "host set to": _told(run.host_levels),
            "runs on": plain(_at(host, ("platform", "ground")) or ""),
            "sessions": plain(run.settings.get("sessions") or 1),
            "measured": _digest({name: run.settings.get(name) for name in SETTINGS}),
        },
        arms={arm.label: _arm(arm) for arm in arms},
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    for name, place in SYSTEM.items():
        if (value := _at(run.host, place)) not in (None, ""):
            yield name, plain(value)
    for name, value in sorted(_at(run.host, ("mitigations",)).items() if run.host.get("mitigations") else ()):
        yield f"mitigation of {plain(name)}", plain(value)
    for name, value in run.versions.items():
        yield {"git": "lab's commit"}.get(name, plain(name)), plain(value)
    for name, place in {"image": ("digest",), "base image": ("base", "digest")}.items():
        if value := _at(run.image, place):
            yield name, plain(value)


def _arm(arm: Arm) -> dict[str, Any]:
    facts = {"kernel": plain(arm.kernel)} if arm.kernel else {}
    facts |= {"image": plain(arm.image)} if arm.image else {}
    facts |= {f"{plain(name)} of its program": plain(value) for name, value in arm.made_by.items()}
    conditions = {"factors": _told(arm.factors), "nested": str(arm.nested), "foreign": str(arm.foreign)}
    return {
        "backend": plain(arm.backend), "accelerator": str(arm.accelerator), "facts": facts, "conditions": conditions,
    }  # fmt: skip


def _told(values: Mapping[str, Any]) -> str:
    return plain(", ".join(f"{name} {value}" for name, value in sorted(values.items()) if value is not None))


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _at(values: Mapping[str, Any], place: Sequence[str]) -> Any:
    found: Any = values
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
