"""How often a site shows a change where none is, simulated: the rates that docs/publishing.md states (``-s``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from claims import tell
from nights import write_nights
from numpy.typing import NDArray

from lab.analysis.history.changes import change_points, dependence
from lab.analysis.inference.judge import ALPHA
from lab.commands.publishing.publish import Wanted, publish

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(0)]

Floats = NDArray[np.float64]
Nights = Callable[[np.random.Generator, int], Floats]
LINES, SITES, NIGHTS, SERIES, LOOKED_AT = 30, 100, 200, 300, 100


def carried(share: float) -> Nights:
    def nights(chance: np.random.Generator, count: int) -> Floats:
        found = chance.normal(size=count)
        for night in range(1, count):
            found[night] = share * found[night - 1] + np.sqrt(1 - share**2) * found[night]
        return found

    return nights


ALIKE: dict[str, Nights] = {
    "normal": lambda chance, count: chance.normal(size=count),
    "heavy tails": lambda chance, count: chance.standard_t(2, count),
    "skewed": lambda chance, count: chance.lognormal(0, 1, count),
    "few values": lambda chance, count: chance.poisson(1, count).astype(np.float64),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_site_of_nights_that_are_alike_keeps_the_promise(name: str) -> None:
    """Of so many sites; three standard errors above what is promised would be 11 of 100."""
    chance = np.random.default_rng(18)
    alarms = sum(
        any(change_points(ALIKE[name](chance, NIGHTS), ALPHA / LINES) for _ in range(LINES)) for _ in range(SITES)
    )
    tell(f"{name}: {alarms} of {SITES} sites of {LINES} lines")
    assert alarms <= 11


def test_who_looks_every_night_sees_more_and_how_much() -> None:
    """A site of one line, published each night from the 20th to the 200th."""
    chance = np.random.default_rng(19)
    ever = 0
    for _ in range(LOOKED_AT):
        values = chance.normal(size=NIGHTS)
        ever += any(change_points(values[:count], ALPHA) for count in range(20, NIGHTS + 1))
    tell(f"every night: {ever} of {LOOKED_AT}")
    assert ever <= 0.33 * LOOKED_AT


def test_nights_that_depend_on_each_other_raise_more_alarms_and_are_marked() -> None:
    chance = np.random.default_rng(20)
    rates = {}
    for share in (0.2, 0.4):
        nights = carried(share)
        alarms = marked = 0
        for _ in range(SERIES):
            values = nights(chance, NIGHTS)
            found = change_points(values, ALPHA)
            alarms += bool(found)
            marked += bool(found) and dependence(values, found)[1]
        tell(f"correlation {share}: {alarms} alarms of {SERIES}, {marked} of them marked")
        rates[share] = alarms, marked
    assert rates[0.4][0] > rates[0.2][0]
    assert rates[0.4][1] > 0.5 * rates[0.4][0]


@pytest.mark.parametrize("step", [1.03, 1.05, 1.1])
def test_how_soon_a_change_is_seen(step: float) -> None:
    """A site of 30 lines after 100 nights that scatter by 3 %: how many nights it takes in half of the cases."""
    chance = np.random.default_rng(21)
    soon = []
    for _ in range(60):
        values = np.exp(chance.normal(0, 0.03, 220))
        values[100:] *= step
        soon.append(next((n for n in range(3, 121) if change_points(values[: 100 + n], ALPHA / LINES)), 999))
    tell(f"{step}: half of them after {np.median(soon):.0f} nights, nine of ten after {np.quantile(soon, 0.9):.0f}")
    assert np.median(soon) <= {1.03: 80, 1.05: 30, 1.1: 10}[step]


def test_two_hundred_nights_in_folders_show_the_three_planted_changes_and_no_other(tmp_path: Path) -> None:
    planted = {60: ("container", "boot.total"), 120: ("microvm", "memory.pss"), 170: ("process", "teardown.total")}

    def factor(night: int, arm: str, quantity: str) -> float:
        return 1.1 if any(night >= at and (arm, quantity) == what for at, what in planted.items()) else 1.0

    for seed in range(5):
        root = tmp_path / str(seed)
        write_nights(root / "results", NIGHTS, factor=factor, seed=seed)
        done = publish(root / "site", root / "results", Wanted(title="", reports=0), lambda folder: "")
        assert done.changes == len(planted)
        assert done.lines == 18
