"""What tests of this folder need not wait for: a disk to have written, and a picture to be drawn a second time.

Both are for what runs in this process. The commands that a test starts do all of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def disk_is_not_waited_for() -> Iterator[None]:
    """A generated run has thousands of samples, and each waits for the disk when it is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which raises what fsync would where there is no file
        yield


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[None]:
    """The same chart gives the same bytes (`lab.reports.drawing`), and many reports show the same."""
    if "lab.reports.drawing" not in sys.modules:
        yield
        return
    from lab.reports import drawing

    kept: dict[object, Any] = {}

    def once(draw: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(*args: Any, **named: Any) -> Any:
            key = (draw, repr(args), repr(named))
            if key not in kept:
                kept[key] = draw(*args, **named)
            return kept[key]

        return drawn

    def picture(chart: Any, looks: Any, directory: Path, name: str) -> tuple[Path, ...]:
        key = (repr(chart), repr(looks))
        if key not in kept:
            kept[key] = [(path.suffix, path.read_bytes()) for path in draw_picture(chart, looks, directory, name)]
        paths = tuple(directory / f"{name}{suffix}" for suffix, _ in kept[key])
        for path, (_, content) in zip(paths, kept[key], strict=True):
            path.write_bytes(content)
        return paths

    draw_picture = drawing.picture
    instead = {
        drawing.inline: once(drawing.inline),
        drawing.projected: once(drawing.projected),
        draw_picture: picture,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "lab":
                for each, value in list(vars(module).items()):
                    if callable(value) and getattr(value, "__hash__", None) and value in instead:
                        patch.setattr(module, each, instead[value])
        yield
