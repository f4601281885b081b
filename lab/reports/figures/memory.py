"""Memory: what the bytes charged to an instance are, at idle and after load."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lab.analysis.quantities import format_value
from lab.reports import style
from lab.reports.charts import Chart, Data, Panel, mark, tip, whose
from lab.reports.material import Material, stamped
from lab.results.record import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIB = 1024.0**2
NAMES = {
    "memory.cgroup.anon": "anonymous (heaps; a VM's RAM)",
    "memory.cgroup.file": "file cache",
    "memory.cgroup.kernel": "host kernel, on its behalf",
}
DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markersize": 11,
    "markerfacecolor": "#f0e442",
    "markeredgecolor": style.INK,
}
STATES = {"idle": -0.2, "after-load": 0.2}


def draw(material: Material, keep: Callable[[Figure], None]) -> str:
    """Two stacked bars per backend: idle above, after load below; a diamond marks PSS."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    arms = material.arms
    with style.canvas(14.2, 2.7 + 1.35 * len(arms)) as (figure, axes):
        top = 0.0
        for row, arm in enumerate(arms):
            for state, offset in STATES.items():
                top = max(top, _bar(axes, row + offset, arm, state, material))
        style.backend_axis(axes, arms)
        axes.set_xlim(0, top * 1.6 or 1)
        axes.set_xlabel("MiB charged to the instance's cgroup on the host")
        handles: list[Patch | Line2D] = [
            Patch(facecolor=fill, hatch=hatch, edgecolor=style.PAPER, label=NAMES[name])
            for name, (fill, hatch) in style.KINDS.items()
        ]
        handles.append(Line2D([], [], linestyle="none", label="PSS", **DIAMOND))
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        style.headline(
            figure, "What the memory is",
            "upper bar: idle, lower: after load · medians · PSS counts mapped pages, the bar also cache and kernel",
        )  # fmt: skip
        keep(figure)
    return "Memory composition at idle. " + " ".join(_sentence(arm, material) for arm in arms)


def chart(material: Material) -> Chart:
    """The same bars for the page's script."""
    rows = [row for arm in material.arms for state in STATES if (row := _row(material, arm, state))]
    legend = [(fill, NAMES[name]) for name, (fill, _) in style.KINDS.items()]
    panel = Panel(
        kind="parts", title="charged to the instance's cgroup on the host", unit="bytes", rows=tuple(rows),
        legend=(*legend, ("diamond", "PSS")),
    )  # fmt: skip
    return Chart(
        title="What the memory is", panels=(panel,),
        how="medians, idle and after load · PSS counts mapped pages, the bar also cache and kernel",
    )  # fmt: skip


def _row(material: Material, arm: Arm, state: str) -> Data | None:
    words = state.replace("-", " ")
    parts: list[Data] = [
        {"value": value.median, "fill": fill, "tip": tip(value, arm, f"{NAMES[name]}, {words}")}
        for name, (fill, _) in style.KINDS.items()
        if (value := material.value(name, arm.label, state)) is not None
    ]
    if not parts:
        return None
    pss = material.value("memory.pss", arm.label, state)
    charged = sum(float(part["value"]) for part in parts)
    return whose(arm) | {
        "parts": parts,
        "note": words,
        "text": f"{format_value(charged, 'bytes')} charged",
        "beside": f"PSS {format_value(pss.median, 'bytes')}" if pss is not None else "",
        "diamond": mark(pss, arm, f"PSS, {words}") if pss is not None else None,
    }


def _bar(axes: Axes, row: float, arm: Arm, state: str, material: Material) -> float:
    left = 0.0
    for name, (fill, hatch) in style.KINDS.items():
        value = material.value(name, arm.label, state)
        if value is not None:
            width = value.median / MIB
            axes.barh(
                row, width, left=left, height=0.34, color=fill, hatch=hatch, edgecolor=style.PAPER, linewidth=0.6
            )
            left += width
    pss = material.value("memory.pss", arm.label, state)
    edge = left
    if pss is not None:
        axes.plot(pss.median / MIB, row, linestyle="none", zorder=4, **DIAMOND)
        edge = max(edge, pss.median / MIB)
    if edge:
        name = state.replace("-", " ")
        proportional = f" · PSS {format_value(pss.median, 'bytes')} · n = {pss.n}" if pss is not None else ""
        beside: dict[str, Any] = {"xy": (edge, row), "textcoords": "offset points", "va": "center"}
        axes.annotate(
            f"{format_value(left * MIB, 'bytes')} charged", xytext=(14, 0), fontsize=15, fontweight="bold", **beside
        )
        axes.annotate(f"{name}{proportional}", xytext=(176, 0), fontsize=12.5, color=style.QUIET, **beside)
    return edge


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
