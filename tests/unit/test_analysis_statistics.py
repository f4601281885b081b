"""The arithmetic, against numpy and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import kendalltau, median_abs_deviation, theilslopes

from lab.analysis.inference import statistics as stats
from lab.analysis.inference.estimate import ENOUGH_FOR_ORDER

FINITE = st.floats(-1e6, 1e6)


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=FINITE | st.just(np.nan))
)
def test_medians_leave_out_what_is_missing(matrix: stats.Floats) -> None:
    expected = [np.median(row[~np.isnan(row)]) if (~np.isnan(row)).any() else np.nan for row in matrix]
    np.testing.assert_allclose(stats.medians(matrix), expected, rtol=1e-12, equal_nan=True)


@given(st.lists(FINITE, min_size=1, max_size=30), st.lists(FINITE, min_size=1, max_size=30))
def test_cliffs_delta_is_antisymmetric_and_bounded(first: list[float], second: list[float]) -> None:
    a, b = np.array(first), np.array(second)
    delta = stats.cliffs_delta(a, b)
    assert -1 <= delta <= 1
    assert delta == pytest.approx(-stats.cliffs_delta(b, a))


def test_cliffs_delta_of_separate_groups_is_one() -> None:
    assert stats.cliffs_delta(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert stats.cliffs_delta(np.array([1.0, 3.0]), np.array([2.0, 3.0, 4.0])) == pytest.approx(-0.5)  # (1 - 4) / 6


@pytest.mark.parametrize(("first", "second"), [([], [1.0]), ([1.0], []), ([], [])])
def test_there_is_no_effect_of_nothing(first: list[float], second: list[float]) -> None:
    assert np.isnan(stats.cliffs_delta(np.array(first), np.array(second)))


def test_the_median_absolute_deviation() -> None:
    """scipy's, which scales it to the standard deviation of a normal distribution by the same number."""
    values = np.random.default_rng(5).normal(size=21)
    found = stats.mad(values)
    assert found == pytest.approx(median_abs_deviation(values))
    assert found * stats.MAD_TO_SIGMA == pytest.approx(median_abs_deviation(values, scale="normal"), rel=1e-4)
    assert np.isnan(stats.mad(np.array([])))


@pytest.mark.parametrize("blocks", [0, 1, 2, 5, 6])
def test_what_a_range_of_few_values_promises(blocks: int) -> None:
    """All orders of "above" and "below" the median, of which those that are all one thing miss it."""
    sides = list(itertools.product((False, True), repeat=blocks))
    assert stats.reachable_level(blocks) == sum(len(set(each)) == 2 for each in sides) / len(sides)
    assert (stats.reachable_level(blocks) >= stats.LEVEL) is (blocks >= ENOUGH_FOR_ORDER)


@given(st.lists(st.tuples(FINITE, st.integers(0, 5)), max_size=30))
def test_by_block_keeps_every_value(pairs: list[tuple[float, int]]) -> None:
    values = np.array([value for value, _ in pairs], dtype=np.float64)
    blocks = np.array([block for _, block in pairs], dtype=np.int64)
    matrix = stats.by_block(values, blocks, np.arange(6))
    assert sorted(matrix[~np.isnan(matrix)]) == sorted(values)
    assert matrix.shape == (6, max(1, *np.bincount(blocks, minlength=6)))


def test_the_median_of_two_lies_between_them() -> None:
    assert stats.medians(np.array([[1.0, 3.0], [5.0, np.nan]])).tolist() == [2.0, 5.0]


def test_a_row_has_its_blocks_values_in_their_order() -> None:
    matrix = stats.by_block(np.array([1.0, 2.0, 3.0]), np.array([4, 7, 4]), np.array([7, 4]))
    np.testing.assert_array_equal(matrix, [[2.0, np.nan], [1.0, 3.0]])
    assert stats.by_block(np.array([]), np.array([], dtype=np.int64), np.array([], dtype=np.int64)).shape == (0, 1)


def test_trend_and_slope() -> None:
    rising = np.arange(10.0)
    assert stats.kendall_z(rising) > 2.58
    assert stats.kendall_z(rising[::-1]) < -2.58
    assert stats.slope(rising) == 1
    assert stats.kendall_z(np.array([1.0, 2.0])) == 0
    assert stats.kendall_z(np.array([1.0, 2.0, 3.0])) == pytest.approx(3 / np.sqrt(11 / 3))
    assert stats.slope(np.array([1.0])) == 0


@given(st.lists(st.integers(-1000, 1000), min_size=3, max_size=12, unique=True))
def test_trend_and_slope_are_those_of_scipy(values: list[int]) -> None:
    """tau is the score divided by the number of pairs; the variance of the score is Kendall's."""
    data, count = np.array(values, dtype=np.float64), len(values)
    score = kendalltau(np.arange(count), data).statistic * count * (count - 1) / 2
    assert stats.kendall_z(data) == pytest.approx(score / np.sqrt(count * (count - 1) * (2 * count + 5) / 18))
    assert stats.slope(data) == pytest.approx(theilslopes(data).slope)


def test_a_trend_is_rarely_seen_where_there_is_none() -> None:
    generator = np.random.default_rng(3)
    alarms = [abs(stats.kendall_z(generator.normal(size=10))) > 2.58 for _ in range(1000)]
    assert np.mean(alarms) < 0.02


@pytest.mark.parametrize(
    ("values", "ratio"),
    [
        ([1, 2, 3, 7, 8, 9], 2.0),
        ([1, 2, 3, 7, 8, 10], 4 / 3),  # the wider of the groups counts
        ([1, 2, 4, 7, 8, 9], 1.0),
        ([1, 2, 7, 8, 9], 0.0),  # three in each there must be
        ([1, 1, 1, 1.5, 1.5, 1.5], np.inf),
        ([1, 1, 1, 1, 1, 1], 0.0),
        ([0, 0, 0, *range(100, 111)], 0.01),  # of 14, four
        ([0, 0, 0, *range(100, 109)], 100 / 8),  # of 12, three
        ([*range(9), 108, 108, 108], 100 / 8),
        ([], 0.0),
    ],
)
def test_the_widest_gap_is_compared_with_the_wider_group(values: list[float], ratio: float) -> None:
    assert stats.gap_ratio(np.array(values, dtype=np.float64)) == pytest.approx(ratio)


def test_two_clusters_stand_out_and_one_does_not() -> None:
    generator = np.random.default_rng(4)
    two = np.concatenate([generator.normal(1, 0.02, 8), generator.normal(2, 0.02, 7)])
    assert stats.gap_ratio(two) > 2
    alarms = [stats.gap_ratio(generator.lognormal(0, 0.2, 12)) > 2 for _ in range(1000)]
    assert np.mean(alarms) < 0.02
