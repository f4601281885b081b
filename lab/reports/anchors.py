"""What others measured, beside what we measured, and why the two differ."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files

from lab.analysis.quantities import format_value, label
from lab.model import Accelerator
from lab.reports.material import Material, own_kernel, stamped
from lab.results.record import Arm

WHY = {
    "boot": "ours ends at the application's first correct answer, theirs earlier (see “measures”)",
    "memory": "ours counts all processes of the instance with the guest's touched RAM; see “measures” for theirs",
    "cpu": "ours is one thread of integer and floating-point work in seconds, theirs a vectorised benchmark",
    "attack surface": "this run did not trace the host's kernel",
}


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


def anchors(material: Material) -> list[Anchor]:
    """Every published figure, in the file's order."""
    raw = tomllib.loads(files("lab.reports").joinpath("published.toml").read_text(encoding="utf-8"))
    arms = {arm.label: arm for arm in material.arms}
    found = []
    for entry in raw["figure"]:
        label_, quantity, state = entry.pop("beside", ("", "", ""))
        arm = arms.get(label_)
        value = material.value(quantity, label_, state)
        ours = ""
        if arm is not None and value is not None:
            ours = f"{stamped(arm)}: {label(quantity)} {format_value(value.median, value.unit)} (n = {value.n})"
        found.append(Anchor(**entry, ours=ours, why=_why(entry["topic"], arm if ours else None)))
    return found


def _why(topic: str, arm: Arm | None) -> str:
    reasons = [WHY[topic]]
    if arm is not None and own_kernel(arm) and topic in ("boot", "cpu"):
        emulated = arm.accelerator is Accelerator.TCG
        reasons.append("ours ran under TCG emulation, theirs on hardware" if emulated else "both on hardware")
    return "; ".join(reasons)
