"""Two waits that unit tests are spared: for a disk to have written, and for a picture to be drawn a second time.

Both are for what runs in the process of the tests. The commands that a test starts do all of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_drawn: dict[object, Any] = {}


def wait_for_no_disk(patch: pytest.MonkeyPatch) -> None:
    """A generated run has thousands of samples, and each waits for the disk when it is kept."""
    patch.setattr(os, "fsync", os.fstat)  # which raises what fsync would where there is no file


def draw_once(patch: pytest.MonkeyPatch) -> None:
    """The same chart gives the same bytes (`lab.reports.drawing`), and many reports show the same."""
    if (drawing := sys.modules.get("lab.reports.drawing")) is None:
        return
    instead = {getattr(drawing, name): _once(getattr(drawing, name)) for name in ("inline", "projected")}
    instead[drawing.picture] = _picture_once(drawing.picture)
    for name, module in list(sys.modules.items()):
        if name.startswith(("lab.reports", "lab.studies", "lab.classroom")):
            for each, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) and value in instead:
                    patch.setattr(module, each, instead[value])


def _once(draw: Callable[..., Any]) -> Callable[..., Any]:
    def drawn(*args: Any, **named: Any) -> Any:
        key = (draw, repr(args), repr(named))
        if key not in _drawn:
            _drawn[key] = draw(*args, **named)
        return _drawn[key]

    return drawn


def _picture_once(draw: Callable[..., tuple[Path, ...]]) -> Callable[..., tuple[Path, ...]]:
    from lab.reports import style

    def picture(chart: Any, looks: Any, directory: Path, name: str) -> tuple[Path, ...]:
        key = (style.save, repr(chart), repr(looks))  # a test may have pictures left empty (`synthetic`)
        if key not in _drawn:
            _drawn[key] = [(path.suffix, path.read_bytes()) for path in draw(chart, looks, directory, name)]
        paths = tuple(directory / f"{name}{suffix}" for suffix, _ in _drawn[key])
        for path, (_, content) in zip(paths, _drawn[key], strict=True):
            path.write_bytes(content)
        return paths

    return picture
