"""Memory: what the bytes charged to an instance are, at idle and after load; and its PSS, which the headline
names.
"""

from __future__ import annotations

from lab.analysis.quantities import format_value
from lab.reports import style
from lab.reports.charts import Chart, Data, Panel, mark, tip, whose
from lab.reports.material import Material, stamped
from lab.results.record import Arm

NAMES = {
    "memory.cgroup.anon": "anonymous (heaps; a VM's RAM)",
    "memory.cgroup.file": "files, shared memory",
    "memory.cgroup.kernel": "host kernel, on its behalf",
}
STATES = ("idle", "after-load")


def chart(material: Material) -> Chart:
    """Two stacked bars per backend; a diamond marks PSS."""
    rows = [row for arm in material.arms for state in STATES if (row := _row(material, arm, state))]
    legend = [(fill, NAMES[name]) for name, (fill, _) in style.KINDS.items()]
    panel = Panel(
        kind="parts", title="", unit="bytes", rows=tuple(rows), axis="the host's memory",
        legend=(("diamond", "PSS, the headline's figure"), *legend),
    )  # fmt: skip
    return Chart(
        title="What the memory is", panels=(panel,),
        how="diamond: PSS, the pages it maps, shared ones in parts · bar: what the kernel charges its cgroup",
        alt="Memory composition at idle. " + " ".join(_sentence(arm, material) for arm in material.arms),
    )  # fmt: skip


def _row(material: Material, arm: Arm, state: str) -> Data | None:
    words = state.replace("-", " ")
    parts: list[Data] = [
        {"value": value.median, "fill": fill, "hatch": hatch, "tip": tip(value, arm, f"{NAMES[name]}, {words}")}
        for name, (fill, hatch) in style.KINDS.items()
        if (value := material.value(name, arm.label, state)) is not None
    ]
    if not parts:
        return None
    pss = material.value("memory.pss", arm.label, state)
    charged = format_value(sum(float(part["value"]) for part in parts), "bytes")
    return whose(arm) | {
        "parts": parts,
        "text": f"{format_value(pss.median, 'bytes')} PSS" if pss is not None else f"{charged} charged",
        "note": f"{words} · {charged} charged" if pss is not None else words,
        "diamond": mark(pss, arm, f"PSS, {words}") if pss is not None else None,
    }


def _sentence(arm: Arm, material: Material) -> str:
    parts = []
    for name, words in NAMES.items():
        value = material.value(name, arm.label, "idle")
        if value is not None:
            parts.append(f"{words.split(' (')[0]} {format_value(value.median, 'bytes')}")
    pss = material.value("memory.pss", arm.label, "idle")
    if pss is not None:
        parts.append(f"PSS {format_value(pss.median, 'bytes')}")
    return f"{stamped(arm)}: {', '.join(parts) or 'not measured'}."
