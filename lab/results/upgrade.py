"""Runs of earlier schemas, read as this one: the one place that knows how they differ. The files stay as they are.

1 → 2: the A/A twin of a comparison did not idle, and its memory was read at once, so that it is no second observation
of what it repeats. ``settings["twin"]`` says so.
"""

from __future__ import annotations

from typing import Any

TWIN = "#aa"
NOT_IDLE = "it did not idle, and its memory was read at once"


def upgraded(raw: dict[str, Any]) -> dict[str, Any]:
    """run.json as the newest schema has it, but for the number, which still tells who wrote it."""
    if int(raw["schema"]) < 2 and any(str(arm.get("label", "")).endswith(TWIN) for arm in raw.get("arms", [])):
        settings = raw.get("settings") or {}
        if settings.get("idle_seconds"):
            return {**raw, "settings": {**settings, "twin": NOT_IDLE}}
    return raw
