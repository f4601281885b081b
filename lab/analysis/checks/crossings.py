"""Crossings: which there are, and whether the one that crosses nothing says that the rest may be compared."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lab.analysis.data import counted
from lab.analysis.noise import Remark
from lab.analysis.quantities import QUANTITIES, format_ratio, format_value, some
from lab.model import Accelerator

PREFIX = "crossings."
NAMES = tuple(name for name in QUANTITIES if name.startswith(PREFIX))
NONE = f"{PREFIX}none"
"""Multiplications alone: whatever executes instructions natively takes the same for them."""

APART = 1.05
"""So far may two that execute them natively be from one another, in that."""


def remarks(frame: pd.DataFrame) -> Iterator[Remark]:
    """Arms that were slower, or faster, where there is no boundary to cross."""
    measured = counted(frame)
    native = measured[(measured["quantity"] == NONE) & (measured["accelerator"] != Accelerator.TCG)]
    medians = native.groupby("arm", sort=False, observed=True)["value"].median().dropna()
    if medians.empty or medians.max() <= APART * medians.min():
        return
    told = some([f"{arm} {format_value(float(value), 'seconds')}" for arm, value in medians.items()])
    yield Remark(
        kind="noise",
        sentence=f"A thousand multiplications, which cross no boundary, took {told}: up to "
        f"{format_ratio(float(medians.max() / medians.min()))} the least.",
        advice="What crossings differ by less is not the boundary's. Quieten the host, or measure more blocks.",
    )


def absences(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Why an arm has no such crossing, by quantity and arm."""
    measured = counted(frame)
    crossings = measured[(measured["metric"] == PREFIX.rstrip(".")) & measured["value"].isna()]
    return {(str(row.quantity), str(row.arm)): str(row.text) for row in crossings.itertuples() if row.text}
