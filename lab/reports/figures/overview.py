"""The one picture that everyone understands: what each boundary costs, and what it stops."""

from __future__ import annotations

from lab.analysis.quantities import format_value
from lab.analysis.readiness import leading
from lab.analysis.readiness import title as title_of
from lab.reports import style
from lab.reports.charts import Chart, Panel, bars, whose
from lab.reports.figures.counted import in_words, parts_of
from lab.reports.material import Material, stamped

COSTS = (
    ("memory.pss", "idle", "memory at idle (PSS)"),
    ("cpu.per_1000_requests", "", "CPU for 1,000 requests"),
)


def chart(material: Material) -> Chart:
    """A panel per cost, and one that counts the isolation answers."""
    costs = _costs(material)
    panels = [bars(material, quantity, title, state, noted=True) for quantity, state, title in costs]
    probes = material.isolation
    if probes:
        rows = []
        for arm in material.arms:
            parts = parts_of(probes, arm)
            rows.append(whose(arm) | {"parts": parts, "text": in_words(parts)})
        panels.append(Panel(kind="counts", title=f"{len(probes)} questions asked inside", rows=tuple(rows)))
    return Chart(
        title=f"What each {_differing(material)} costs" + (", and what it stops" if probes else ""),
        how=_how(material), panels=tuple(panels), columns=2,
        alt="Costs and isolation per backend. " + " ".join(_sentences(material, costs)),
    )  # fmt: skip


def _differing(material: Material) -> str:
    """What the arms differ by: of disks that lab did not make, by their systems behind one and the same boundary."""
    return "system" if all(arm.foreign for arm in material.arms) else "boundary"


def _costs(material: Material) -> list[tuple[str, str, str]]:
    own = [(name, "", material.label(name)) for name in list(material.figures)[:1]]
    asked = ((leading(material.run), "", title_of(material.run)), *COSTS, *own)
    return [cost for cost in asked if any(material.value(cost[0], arm.label, cost[1]) for arm in material.arms)]


def _how(material: Material) -> str:
    blocks = material.loaded.blocks
    text = f"medians of {blocks} block{'s' * (blocks != 1)}"
    if material.levels:
        text += f" · {material.levels}"
    emulated = any(style.hatch(arm) or arm.nested for arm in material.arms)
    if emulated:
        return f"{text} · emulated: says nothing about KVM"
    return text if any(arm.foreign for arm in material.arms) else f"{text} · the same image everywhere"


def _sentences(material: Material, costs: list[tuple[str, str, str]]) -> list[str]:
    sentences = []
    for arm in material.arms:
        parts = ["own kernel" if arm.has_own_kernel else "host's kernel"]
        for quantity, state, title in costs:
            value = material.value(quantity, arm.label, state)
            parts.append(f"{title} {format_value(value.median, value.unit) if value else 'not measured'}")
        sentences.append(f"{stamped(arm)}: {', '.join(parts)}.")
    return sentences
