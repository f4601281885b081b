"""Where a line changed: what is promised of false alarms, and what is found."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from synthetic import keep_only, write_run

from lab.analysis.history.changes import (
    FEWEST,
    change_points,
    dependence,
    fewest_nights,
    nights_until_found,
)
from lab.analysis.history.points import Point, points
from lab.analysis.inference.judge import ALPHA
from lab.analysis.loaded import load
from lab.analysis.quantities import is_key
from lab.results.store import RunFolder

LEVEL = ALPHA / 50
Floats = NDArray[np.float64]


def quiet(nights: int, seed: int = 0, scatter: float = 0.03) -> Floats:
    return np.asarray(np.exp(np.random.default_rng(seed).normal(0, scatter, nights)))


@pytest.mark.parametrize("place", [20, 100, 180, 196])
def test_a_step_is_found_where_it_is(place: int) -> None:
    values = quiet(200)
    values[place:] *= 1.25
    (found,) = change_points(values, LEVEL)
    assert abs(found - place) <= 1


def test_a_spell_that_ends_is_found_at_both_ends_and_a_staircase_at_each_step() -> None:
    values = quiet(200)
    values[90:110] *= 1.2
    assert [round(each / 10) for each in change_points(values, LEVEL)] == [9, 11]
    values = quiet(200, seed=1)
    values[50:] *= 1.1
    values[120:] *= 1.1
    assert [round(each / 10) for each in change_points(values, LEVEL)] == [5, 12]


def test_a_large_change_brings_no_other_with_it() -> None:
    """With so many nights that every p is too small for a number, and forty that lie a little apart, as forty may."""
    values = quiet(3_000)
    values[:40] *= 1.018 / values[:40].mean()
    assert change_points(values, LEVEL) == ()
    values[1_500:] *= 2
    assert change_points(values, LEVEL) == (1_500,)


def test_one_or_two_wild_nights_are_no_change() -> None:
    values = quiet(100)
    values[[40, 41, 70]] *= 50
    assert change_points(values, LEVEL) == ()


def test_what_never_varies_and_what_does_by_steps_alone() -> None:
    assert change_points(np.full(100, 4096.0), LEVEL) == ()
    counted = np.repeat([4096.0, 8192.0], [80, 20])
    assert change_points(counted, LEVEL) == (80,)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 1e9, -5.0]), max_size=60))
def test_any_series_has_ordered_places_apart_from_each_other_and_its_ends(values: list[float]) -> None:
    found = change_points(np.array(values), 0.5)
    assert all(last - first >= 1 for first, last in pairwise((0, *found, len(values)))) or not found


def test_so_many_nights_as_are_said_are_needed_and_enough() -> None:
    """Ranks that are parted altogether; the nights that are said are what it takes, and one less is too few."""
    nights = fewest_nights(LEVEL)
    for count, is_found in ((nights, True), (nights - 1, False)):
        values = np.arange(count, dtype=np.float64)
        np.random.default_rng(3).shuffle(values[: count // 2])
        values[count // 2 :] += 1000
        np.random.default_rng(4).shuffle(values[count // 2 :])
        assert bool(change_points(values, LEVEL)) is is_found
    after = nights_until_found(100, LEVEL)
    values = quiet(100 + after)
    values[100:] *= 2
    assert change_points(values, LEVEL)
    assert after >= FEWEST


def test_the_approximation_is_the_larger_p_where_it_stands_for_the_exact_one() -> None:
    for small, large in ((3, 60), (8, 80), (20, 200), (40, 40)):
        for shift in (1.5, 2.5, 4.0):
            values = np.random.default_rng(small).normal(size=small + large)
            values[:small] += shift
            one, other = values[:small], values[small:]
            exact = stats.mannwhitneyu(one, other, method="exact").pvalue
            if exact < 1e-3:
                assert stats.mannwhitneyu(one, other, method="asymptotic").pvalue >= exact


def test_alike_nights_show_less_than_is_promised() -> None:
    """At a level of 20 % for one series; with 300 series up to 80 alarms would still be chance."""
    chance = np.random.default_rng(8)
    alarms = sum(bool(change_points(chance.standard_t(3, 60), 0.2)) for _ in range(300))
    assert alarms <= 80


def test_nights_that_depend_on_each_other_are_known_to() -> None:
    chance = np.random.default_rng(5)
    alone = chance.normal(size=150)
    carried = alone.copy()
    for night in range(1, 150):
        carried[night] += 0.6 * carried[night - 1]
    assert dependence(carried, ())[1]
    assert not dependence(alone, ())[1]
    stepped = alone + np.repeat([0, 10], 75)
    assert not dependence(stepped, (75,))[1], "a change by itself is no dependence"
    assert math.isnan(dependence(alone[:5], ())[0])


def same(one: Point, other: Point) -> bool:
    return all(
        first == second or (first is not None and second is not None and math.isclose(first, second, rel_tol=1e-5))
        for first, second in zip(one[4:], other[4:], strict=True)
    )


def test_points_are_what_the_runs_say_one_by_one(tmp_path: Path) -> None:
    """Few blocks, many, none that give an interval; failures, which are censored."""
    for blocks, bad_luck in ((2, False), (4, False), (7, False), (5, True)):
        made = write_run(tmp_path, blocks=blocks, seed=blocks, bad_luck=bad_luck)
        keep_only(made, lambda sample: sample["quantity"] in ("boot.total", "boot.init", "memory.pss", "cpu.idle"))
    runs = {path: RunFolder.open(path).run for path in sorted(tmp_path.iterdir())}
    found = dict(points(runs, everything=True, skipped=lambda error: pytest.fail(str(error))))
    judged = dict(points(runs, skipped=lambda error: pytest.fail(str(error))))
    assert set(found) == set(runs)
    for path, mine in found.items():
        table = load(path).summary()
        table = table[~table["arm"].str.endswith("#aa")].replace({np.nan: None})
        rows = {(row["quantity"], row["state"], row["arm"], row["unit"]): row for row in table.to_dict("records")}
        assert {point[:4] for point in mine} == set(rows)
        for point in mine:
            row = rows[point[:4]]
            told = (row["n"], row["failed"] + row["timeout"], row["median"], row["low"], row["high"])
            assert same(point, Point(*point[:4], *told)), point
        assert {point.quantity for point in judged[path]} == {name for name, *_ in rows if is_key(name)}
