"""One look for every figure: readable from the last row, safe for colour-blind eyes, never colour alone.

Backends keep their colour and marker everywhere; emulated ones are hatched. Colours after Okabe and Ito,
"Color Universal Design" (2008); phases follow viridis, whose even lightness keeps their order in greyscale too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.analysis.quantities import format_value
from lab.model import Accelerator
from lab.results.record import Arm

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

INK, QUIET, RULE, PAPER = "#1a1a1a", "#595959", "#d9d9d9", "#ffffff"
BLACK, WHITE = "#1a1a19", "#fffffe"
"""Ink and paper that stay what they are on a dark page: words on a colour of their own."""
BACKENDS = {  # fill, ink (the same hue, dark enough for text), marker
    "process": ("#6e6e6e", "#555555", "o"),
    "bwrap": ("#bcbd22", "#65660f", "H"),
    "nspawn": ("#b5541c", "#8a3f14", ">"),
    "container": ("#0072b2", "#005f94", "s"),
    "userns": ("#332288", "#332288", "p"),
    "runc": ("#56b4e9", "#1d6d9c", "P"),
    "crun": ("#cc79a7", "#96416f", "X"),
    "podman": ("#8c564b", "#6e4239", "d"),
    "docker": ("#17a2b8", "#0b6375", "8"),
    "gvisor": ("#117733", "#0d5c27", "*"),
    "uml": ("#aa4499", "#8a3379", "h"),
    "microvm": ("#e69f00", "#8a5f00", "^"),
    "krun": ("#a6d854", "#4b6f17", "<"),
    "vm": ("#d55e00", "#a84a00", "D"),
}
OTHER = ("#009e73", "#006b4e", "v")
DISKS = (OTHER, ("#882255", "#882255", "<"), ("#44aa99", "#2a6b60", ">"), ("#999933", "#62621f", "h"))
"""Disks and runtimes of the user's, in their order."""
RUNTIME = "oci:"
PHASES = {
    "boot.isolated": ("#fde725", BLACK),
    "boot.kernel": ("#7ad151", BLACK),
    "boot.init": ("#22a884", BLACK),
    "boot.executed": ("#2a788e", WHITE),
    "boot.addressed": ("#31688e", WHITE),
    "boot.restored": ("#355f8d", WHITE),
    "boot.listening": ("#414487", WHITE),
    "boot.responded": ("#440154", WHITE),
    "job.seconds": ("#16041c", WHITE),
}
KINDS = {
    "memory.cgroup.anon": ("#4a6fa5", ""),
    "memory.cgroup.file": ("#a9c6e8", "///"),
    "memory.cgroup.kernel": ("#3a3a3a", ""),
}
REACH = {  # fill, ink, symbol
    "closed": ("#cfe8dc", "#00503a", "✓"),
    "own": ("#d6e6f5", "#003f66", "◐"),
    "open": ("#f9d5c3", "#7a2600", "✗"),
    "unknown": ("#ececec", "#404040", "?"),
}
DARK = {
    "#6e6e6e": "#a3a3a3", "#555555": "#b8b8b8", "#0072b2": "#3f9fdc", "#005f94": "#6db9e8", "#332288": "#8f83e0",
    "#1d6d9c": "#7cc4ee", "#96416f": "#e29cc3", "#8a5f00": "#f0b73f", "#d55e00": "#f0802f", "#a84a00": "#ff9d5c",
    "#006b4e": "#4cc79e", "#882255": "#d77aa6", "#2a6b60": "#6cc7b8", "#62621f": "#b9b95a",
    "#8c564b": "#c08a7d", "#6e4239": "#d9a99c", "#0b6375": "#63c5d8", "#117733": "#4fb477", "#0d5c27": "#79cf98",
    "#aa4499": "#d078c0", "#8a3379": "#e39bd6", "#cfe8dc": "#0f4a37", "#00503a": "#d8f5e8",
    "#65660f": "#c9ca5a", "#d6e6f5": "#14405f", "#003f66": "#dceefc",
    "#b5541c": "#e08a4f", "#8a3f14": "#f0a877", "#4b6f17": "#a6d854",
    "#f9d5c3": "#6b2a0c", "#7a2600": "#ffe3d6", "#ececec": "#3a3a3a", "#404040": "#e6e6e6",
}  # fmt: skip
"""What a colour becomes on a page read in the dark, where it would not be seen well; all others stay."""
PROJECTED = {
    "#595959": "#262626", "#e6e6e6": "#b8b8b8", "#d9d9d9": "#8c8c8c", "#cfe8dc": "#8fd6b4", "#d6e6f5": "#9ccbf0",
    "#f9d5c3": "#f5ab86", "#ececec": "#cfcfcf", "#a9c6e8": "#86b0e0", "#fde725": "#f2dc00",
}  # fmt: skip
"""What a pale colour becomes where a lamp would wash it out."""
HATCH = "////"
"""Marks what was emulated."""


def colour(arm: Arm) -> str:
    """The same for a backend in every figure and table."""
    return _look(arm)[0]


def ink(arm: Arm) -> str:
    """The backend's colour for text: at least 4.5 : 1 on white."""
    return _look(arm)[1]


def marker(arm: Arm) -> str:
    """The same for a backend in every figure."""
    return _look(arm)[2]


def _look(arm: Arm) -> tuple[str, str, str]:
    """Several disks or runtimes are told apart by the last digit of their order, which counts them."""
    return (
        DISKS[(arm.order - 1) % len(DISKS)]
        if arm.foreign or arm.backend.startswith(RUNTIME)
        else BACKENDS.get(arm.backend, OTHER)
    )


def adaptive(colour: str) -> str:
    """``colour``, and on a page that is read in the dark another, as CSS says it (css-color-5, light-dark())."""
    return f"light-dark({colour}, {DARK[colour]})" if colour in DARK else colour


def hatch(arm: Arm) -> str:
    """Stripes on the bars of what ran under emulation."""
    return HATCH if arm.accelerator is Accelerator.TCG else ""


@contextmanager
def canvas(width: float, height: float, **layout: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of ``width`` × ``height`` inches in lab's look, and its axes as plt.subplots gives them."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with mpl.rc_context(_settings()):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **layout)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


@contextmanager
def blank(width: float, height: float, *, text: str = "path") -> Iterator[Figure]:
    """A figure of ``width`` × ``height`` inches in lab's look, without axes. ``text`` says whether an SVG of it holds
    letters as shapes (``path``: the same everywhere) or as letters (``none``: can be searched and read aloud).
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    with mpl.rc_context(_settings() | {"svg.fonttype": text}):
        yield Figure(figsize=(width, height))


def save(figure: Figure, directory: Path, name: str) -> tuple[Path, Path]:
    """Write NAME.png and NAME.svg; the same figure gives the same bytes."""
    png, svg = directory / f"{name}.png", directory / f"{name}.svg"
    figure.savefig(png, dpi=110, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None})
    return png, svg


def logarithmic(axis: Axis, unit: str) -> None:
    """Label 1, 2 and 5 of every decade with their unit, and nothing between."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: format_value(value, unit, 1))


def ticks(axis: Axis, unit: str) -> None:
    """Values with their unit; a rate of something countable as bare numbers, its unit below the axis."""
    if unit in ("seconds", "bytes", "bytes/s"):
        if unit != "seconds":
            axis.set_major_locator(_powers_of_two())
        axis.set_major_formatter(lambda value, _: format_value(value, unit, 2))
    else:
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.set_label_text("" if unit == "1" else unit)


def _powers_of_two() -> Locator:
    """Ticks a power of two apart, at most eight: 512 MiB and 1 GiB, not 477 and 954 MiB."""
    from matplotlib.ticker import Locator, MultipleLocator

    class PowersOfTwo(Locator):
        def __call__(self) -> Sequence[float]:
            assert self.axis is not None
            return self.tick_values(*self.axis.get_view_interval())

        def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
            step = 2.0 ** math.ceil(math.log2(max(vmax - vmin, 1.0) / 7))
            return MultipleLocator(step).tick_values(vmin, vmax)

    return PowersOfTwo()


def headline(figure: Figure, title: str, subtitle: str = "") -> None:
    """The title says the finding or the question; the subtitle how to read it. Both start at the left edge.

    A title whose place is given gets no room from matplotlib, so what is below is kept off it here.
    """
    if (engine := figure.get_layout_engine()) is not None:
        engine.set(rect=(0, 0, 1, 1 - (0.95 if subtitle else 0.65) / figure.get_figheight()))  # type: ignore[call-arg]
    near = max(0.98, 1 - 0.16 / figure.get_figheight())  # a share of a tall figure's height would be far down
    figure.suptitle(
        title + ("\n" if subtitle else ""), x=0.012, y=near, ha="left", fontsize=22, fontweight="bold", color=INK
    )
    if subtitle:
        top = 1 - 0.56 / figure.get_figheight()
        figure.text(0.0125, top, subtitle, ha="left", va="top", fontsize=14.5, color=QUIET)


def _settings() -> Any:  # matplotlib types the keys as some 300 literals
    return {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look the same everywhere
        "font.size": 15,
        "axes.titlesize": 16,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 15,
        "axes.labelcolor": QUIET,
        "axes.edgecolor": RULE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "axes.axisbelow": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 1.0,
        "xtick.color": QUIET,
        "ytick.color": INK,
        "text.color": INK,
        "legend.frameon": False,
        "legend.fontsize": 14,
        "hatch.linewidth": 1.2,
        "figure.constrained_layout.w_pad": 0.14,
        "figure.constrained_layout.h_pad": 0.12,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "svg.fonttype": "path",
        "svg.hashsalt": "lab",
    }
