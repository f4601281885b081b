"""The arithmetic, against numpy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lab.analysis import statistics as stats

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


@given(st.lists(st.tuples(FINITE, st.integers(0, 5)), max_size=30))
def test_by_block_keeps_every_value(pairs: list[tuple[float, int]]) -> None:
    values = np.array([value for value, _ in pairs], dtype=np.float64)
    blocks = np.array([block for _, block in pairs], dtype=np.int64)
    matrix = stats.by_block(values, blocks, np.arange(6))
    assert sorted(matrix[~np.isnan(matrix)]) == sorted(values)
    assert len(matrix) == 6


def test_trend_and_slope() -> None:
    rising = np.arange(10.0)
    assert stats.kendall_z(rising) > 2.58
    assert stats.kendall_z(rising[::-1]) < -2.58
    assert stats.slope(rising) == 1
    assert stats.kendall_z(np.array([1.0, 2.0])) == 0


def test_a_trend_is_rarely_seen_where_there_is_none() -> None:
    generator = np.random.default_rng(3)
    alarms = [abs(stats.kendall_z(generator.normal(size=10))) > 2.58 for _ in range(1000)]
    assert np.mean(alarms) < 0.02


def test_two_clusters_stand_out_and_one_does_not() -> None:
    generator = np.random.default_rng(4)
    two = np.concatenate([generator.normal(1, 0.02, 8), generator.normal(2, 0.02, 7)])
    assert stats.gap_ratio(two) > 2
    alarms = [stats.gap_ratio(generator.lognormal(0, 0.2, 12)) > 2 for _ in range(1000)]
    assert np.mean(alarms) < 0.02
