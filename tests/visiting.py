"""What tests in a browser share."""

from __future__ import annotations

from pathlib import Path

PATIENCE_MS = 120_000
"""Of five seconds, Playwright's own, a busy host takes as many for a page to be drawn."""
SAMPLE = Path(__file__).parents[1] / "results" / "sample"


def is_fetched(url: str, address: str) -> bool:
    return url.partition("#")[0] != address and not url.startswith("data:")
