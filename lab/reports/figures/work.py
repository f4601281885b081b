"""The scenario's own work: a panel per figure that its client or job printed."""

from __future__ import annotations

from lab.reports.charts import Chart, bars, sentence
from lab.reports.material import Material

MOST_PANELS = 6


def chart(material: Material) -> Chart:
    """The scenario's figures first, each panel with a scale of its own."""
    shown = [name for name in (*material.figures, "work.seconds", "work.cpu") if material.has(name)][:MOST_PANELS]
    return Chart(
        title="How the scenario's own work went", how="medians with 95 % intervals · a scale per panel",
        panels=tuple(bars(material, quantity, _title(material, quantity)) for quantity in shown),
        alt="The scenario's own work. " + " ".join(sentence(material, quantity) for quantity in shown),
        columns=min(2, max(1, len(shown))),
    )  # fmt: skip


def _title(material: Material, quantity: str) -> str:
    better = "longer" if material.more_is_better(quantity) else "shorter"
    return f"{material.label(quantity)}: {better} is better"
