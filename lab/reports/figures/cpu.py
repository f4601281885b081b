"""CPU: what the host spends to boot an instance, to answer, to do nothing; and how long a fixed computation takes."""

from __future__ import annotations

from lab.reports.charts import Chart, bars, sentence
from lab.reports.material import Material

PANELS = {  # title, axis, the prefix that labels and axis share
    "cpu.boot": ("to start it", "seconds of CPU time", (1.0, "s")),
    "cpu.per_1000_requests": ("to answer 1,000 requests", "seconds of CPU time", (1.0, "s")),
    "cpu.idle": ("to do nothing", "milliseconds of CPU time in each second", (1e-3, "ms/s")),
    "cpu.compute": (
        "a fixed computation, by the clock on the wall",
        "seconds that pass, less the way in: a processor waited for counts",
        (1.0, "s"),
    ),
}


def chart(material: Material) -> Chart:
    """Up to four panels, each with its own scale; labels and axis of one share a unit."""
    shown = [quantity for quantity in PANELS if material.has(quantity)]
    return Chart(
        title="What it costs the host in CPU",
        how="shorter is better · medians with 95 % intervals · a scale per panel",
        panels=tuple(
            bars(material, quantity, PANELS[quantity][0], axis=PANELS[quantity][1], prefix=PANELS[quantity][2])
            for quantity in shown
        ),
        alt="CPU cost. " + " ".join(filter(None, (sentence(material, quantity) for quantity in shown))), columns=2,
    )  # fmt: skip
