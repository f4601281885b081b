"""Runs of earlier schemas, read as this one: the one place that knows how they differ. The files stay as they are.

1 → 2: the A/A twin of a comparison did not idle, and its memory was read at once, so that it is no second observation
of what it repeats. ``settings["twin"]`` says so.

2 → 3: ``cpu.compute`` had the way in and out in it, which for an Engine or an emulated machine is long. Its length
stood beside it, but as it was the first time, when nothing was warm: taken off, it would be too much. It is read as
another quantity, ``cpu.compute.asked``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lab.results.record import Sample

TWIN = "#aa"
NOT_IDLE = "it did not idle, and its memory was read at once"


def upgraded(raw: dict[str, Any]) -> dict[str, Any]:
    """run.json as the newest schema has it, but for the number, which still tells who wrote it."""
    if int(raw["schema"]) < 2 and any(str(arm.get("label", "")).endswith(TWIN) for arm in raw.get("arms", [])):
        settings = raw.get("settings") or {}
        if settings.get("idle_seconds"):
            return {**raw, "settings": {**settings, "twin": NOT_IDLE}}
    return raw


def upgraded_sample(sample: Sample, schema: int) -> Sample:
    """A sample of a run of that schema as the newest has it."""
    if schema < 3 and sample.quantity == "cpu.compute":
        return replace(sample, quantity="cpu.compute.asked")
    return sample
