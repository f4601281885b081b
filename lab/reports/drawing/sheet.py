"""Axes on which one panel is painted, and what was painted on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.model import Accelerator
from lab.reports import style
from lab.reports.charts import Data, Panel
from lab.reports.material import stamp
from lab.results.record import Arm

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

LETTER, BOLD = 0.56, 0.64
"""About how wide a letter is, in sizes of its font; and a bold one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a backend looks in every figure."""

    fill: str
    ink: str
    marker: str
    hatch: str
    stamp: str
    short: str  # the same in a word, where it is not the bare host


def look(arm: Arm) -> Look:
    """An arm's colours, marker, stripes and accelerator."""
    return Look(
        fill=style.colour(arm),
        ink=style.ink(arm),
        marker=style.marker(arm),
        hatch=style.hatch(arm),
        stamp=stamp(arm),
        short=_short(arm),
    )


def _short(arm: Arm) -> str:
    if arm.accelerator is Accelerator.TCG:
        return "emulated"
    return "emulated host" if arm.nested else "KVM" if arm.accelerator is Accelerator.KVM else ""


def looks_of(arms: Iterable[Arm]) -> dict[str, Look]:
    """By label."""
    return {arm.label: look(arm) for arm in arms}


def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """About how wide ``text`` will be, in points: the reader's fonts are not known."""
    return len(text) * size * (BOLD if bold else LETTER)


@dataclass(slots=True, kw_only=True)
class Sheet:
    """One panel's axes. ``base`` is the size of its words in points, ``width`` and ``height`` those of the axes; y
    runs downwards in points. ``said`` collects for each mark and each name what the page's script needs to know.
    """

    axes: Axes
    panel: Panel
    looks: Mapping[str, Look]
    base: float
    width: float
    height: float
    pitch: float = 0.0  # of a row
    low: float = 0.0  # where the axis starts
    high: float = 1.0  # where it ends
    is_logarithmic: bool = False
    alternative: bool = False  # whether the look for the other scale is drawn too
    said: dict[str, Data] = field(default_factory=dict)
    tagged: int = 0

    @property
    def rows(self) -> Sequence[Data]:
        return self.panel.rows

    def look(self, row: Data) -> Look:
        """How the backend looks that ``row`` is about; a level of a factor has a look of its own."""
        return self.looks[row["arm"]]

    def top(self, index: int) -> float:
        """The upper edge of a row."""
        return index * self.pitch

    def mark(self, row: Data, index: int, tip: Sequence[str], low: float | None = None, edge: float | None = None,
             **more: Any) -> str:  # fmt: skip
        """A new mark of ``row``: what it says when it is asked, and from where to where it reaches."""
        key = f"m{len(self.said)}"
        self.said[key] = {"of": row.get("arm", ""), "row": index, "tip": tip, "low": low, "edge": edge} | more
        return key

    def name(self, row: Data, index: int) -> str:
        """A new group of words that belong to ``row`` and tell nothing when asked."""
        key = f"n{len(self.said)}"
        self.said[key] = {"of": row.get("arm", ""), "row": index}
        return key

    def tag(self, artist: Artist, key: str, *, part: str = "", scaled: bool = False) -> None:
        """Say to which mark or name an artist belongs; ``scaled`` when its place depends on the axis."""
        self.tagged += 1  # matplotlib wants every group id once
        artist.set_gid(f"{key}.{'s' if scaled else 'f'}.{part}.{self.tagged}")

    def write(self, key: str, x: float, y: float, text: str, *, size: float = 1.0, **options: Any) -> None:
        """Words at ``x`` points from the axes' left edge."""
        from matplotlib.transforms import blended_transform_factory

        place = blended_transform_factory(self.axes.transAxes, self.axes.transData)
        artist = self.axes.text(
            x / self.width, y, text, transform=place, fontsize=size * self.base, clip_on=False,
            **{"va": "baseline", "color": style.INK} | options,
        )  # fmt: skip
        self.tag(artist, key)
