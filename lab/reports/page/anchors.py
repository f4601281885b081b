"""What others measured, beside what we measured, and why the two differ."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lab.analysis.quantities import SEGMENTS, format_value
from lab.analysis.readiness import until_ready
from lab.model import Accelerator
from lab.reports.material import Material, stamped
from lab.results.record import Arm

WHY = {
    "boot": "ours runs until {until}; for theirs see “measures”",
    "memory": "ours counts all processes of the instance{ram}; see “measures” for theirs",
    "cpu": "ours is one thread of integer and floating-point work in seconds, theirs a vectorised benchmark",
    "disk": "the scenario disk-io reads at random too: a small file in the instance's /var/tmp, on this host's disk",
    "forks": "a comparison restores one copy at a time; lab starts --fork restores many at once",
    "attack surface": "this run did not trace the host's kernel; lab isolation surface does",
}

UNTIL, MAPPED = "until", "memory.mapped"
OR = "|"
WHY_UNTIL = "ours starts at lab's request and ends when the host saw"
SEEN = {"boot.init": "the marker of the guest's init", "boot.restored": "the restored guest answer an order"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A published figure, and ours that comes closest (empty when there is none)."""

    topic: str
    system: str
    says: str
    measures: str
    conditions: str
    source: str
    basis: str
    ours: str
    why: str


def published(topic: str, backends: Collection[str] | None = None) -> list[Anchor]:
    """The published figures about ``topic``, for a report that sets nothing beside them; of ``backends``, those that
    are beside another one's are left out.
    """
    entries = [entry for entry in _figures() if entry["topic"] == topic]
    if backends is not None:
        entries = [entry for entry in entries if {*_beside(entry)[0].split(OR)} & {"", *backends}]
    return [Anchor(**{key: entry[key] for key in entry.keys() - {"beside"}}, ours="", why="") for entry in entries]


def _beside(entry: dict[str, Any]) -> tuple[str, str, str]:
    """The backends that come closest, the first that was measured, with the quantity and its state."""
    backends, quantity, state = entry.get("beside", ("", "", ""))
    return str(backends), str(quantity), str(state)


def _figures() -> list[dict[str, Any]]:
    raw = tomllib.loads(files("lab.reports").joinpath("published.toml").read_text(encoding="utf-8"))
    return list(raw["figure"])


def anchors(material: Material) -> list[Anchor]:
    """Every published figure, in the file's order."""
    found = []
    for entry in _figures():
        labels, quantity, state = _beside(entry)
        entry.pop("beside", None)
        candidates = (_nearest(material, label_, quantity, state) for label_ in labels.split(OR))
        arm, ours = next((found for found in candidates if found[1]), (None, ""))
        found.append(Anchor(**entry, ours=ours, why=_why(material, entry["topic"], arm, quantity, state)))
    return found


def _nearest(material: Material, backend: str, quantity: str, state: str) -> tuple[Arm | None, str]:
    """The backend's reference, or the first of its other arms that has such a figure."""
    references = [arm for arm in material.arms if arm.label == backend]
    for arm in (*references, *(arm for arm in material.loaded.arms if arm.backend == backend)):
        if ours := _ours(material, arm, quantity, state):
            return arm, ours
    return None, ""


def _ours(material: Material, arm: Arm, quantity: str, state: str) -> str:
    if state == UNTIL:
        parts = [material.value(name, arm.label) for name in SEGMENTS[: SEGMENTS.index(quantity) + 1]]
        seen = [part for part in parts if part is not None]
        if material.value(quantity, arm.label) is None:
            return ""
        total = format_value(sum(part.median for part in seen), "seconds")
        fewest = min(part.n for part in seen)
        return f"{stamped(arm)}: request until {material.label(quantity)} {total} (n = {fewest})"
    value = material.value(quantity, arm.label, state)
    if value is None:
        return ""
    return f"{stamped(arm)}: {material.label(quantity)} {format_value(value.median, value.unit)} (n = {value.n})"


def _why(material: Material, topic: str, arm: Arm | None, quantity: str, state: str) -> str:
    ram = ""
    if arm is not None and arm.has_own_kernel:
        ram = ", the guest's RAM with it, touched or not" if quantity == MAPPED else " with the guest's touched RAM"
    said = WHY[topic].format(until=until_ready(material.run), ram=ram)
    reasons = [f"{WHY_UNTIL} {SEEN[quantity]}" if state == UNTIL else said]
    if arm is not None and arm.accelerator is not Accelerator.NATIVE and topic in ("boot", "cpu"):
        emulated = arm.accelerator is Accelerator.TCG or arm.nested
        reasons.append("ours ran under emulation, theirs on hardware" if emulated else "both on hardware")
    return "; ".join(reasons)
