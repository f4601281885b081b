"""The estimator where values are few, many, of several sessions, or do not vary: beside scipy wherever it can say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as published
from scipy.stats import mstats
from statsmodels.stats.power import TTestPower

from lab.analysis.inference import estimate

MARGIN = math.log(1.05)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # which would stand on a reader's terminal


def drawn(count: int, seed: int = 7, mean: float = 0.1, scatter: float = 0.2) -> estimate.Floats:
    return np.random.default_rng(seed).normal(mean, scatter, count)


# -- blocks, and sessions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_blocks_have_a_ratio_and_no_more(count: int) -> None:
    logs = drawn(count)
    row = estimate.estimates(logs[None]).iloc[0]
    assert row["ratio"] == pytest.approx(math.exp(logs.mean()))
    assert row["units"] == count
    assert row[["low", "high", "p", "same", "scatter"]].isna().all()


def test_of_several_short_rows_each_has_its_own_ratio() -> None:
    table = estimate.estimates(np.array([[0.1, 0.3], [0.5, 0.9], [math.nan, math.nan]]))
    assert table["ratio"].tolist() == pytest.approx([math.exp(0.2), math.exp(0.7), math.nan], nan_ok=True)
    assert table["units"].tolist() == [2, 2, 0]


def test_the_scatter_is_that_of_a_sample() -> None:
    logs = drawn(9)
    assert estimate.estimates(logs[None])["scatter"][0] == pytest.approx(np.std(logs, ddof=1))


def test_a_session_counts_as_one() -> None:
    """Its mean, over the blocks that it has; one that has none counts as missing."""
    logs, sessions = drawn(10), np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 3])
    logs[1] = logs[5] = logs[6] = math.nan
    means = [np.mean([logs[0], logs[2]]), logs[3:5].mean(), logs[7:].mean()]
    row = estimate.estimates(logs[None], sessions).iloc[0]
    assert row["units"] == 3
    assert row["ratio"] == pytest.approx(math.exp(np.mean(means)))
    assert row["p"] == pytest.approx(published.ttest_1samp(means, 0.0).pvalue)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_same_is_tested_from_both_sides(sign: int) -> None:
    """The larger p of two tests, whichever side the difference lies on."""
    logs = sign * drawn(8, mean=0.02, scatter=0.02)
    above = published.ttest_1samp(logs, MARGIN, alternative="less").pvalue
    below = published.ttest_1samp(logs, -MARGIN, alternative="greater").pvalue
    assert estimate.estimates(logs[None])["same"][0] == pytest.approx(max(above, below))
    assert above != pytest.approx(below)


@pytest.mark.parametrize(
    ("log", "same"), [(0.0, 0.0), (MARGIN / 2, 0.0), (-MARGIN / 2, 0.0), (MARGIN, 1.0), (0.1, 1.0)]
)
def test_what_never_varies_is_the_same_within_the_margin_alone(log: float, same: float) -> None:
    row = estimate.estimates(np.full((1, 4), log)).iloc[0]
    assert row["same"] == same
    assert row["p"] == (1.0 if log == 0 else 0.0)
    assert row["low"] == row["high"] == row["ratio"] == pytest.approx(math.exp(log))


# -- runs that share no block ----------------------------------------------------------------------------------


def test_welchs_t_in_all_its_columns() -> None:
    above, below = drawn(6, seed=1, mean=0.04, scatter=0.03), drawn(9, seed=2, mean=0.0, scatter=0.01)
    row = estimate.estimates_apart([(above, below)]).iloc[0]
    found = published.ttest_ind(above, below, equal_var=False)
    assert row["ratio"] == pytest.approx(math.exp(above.mean() - below.mean()))
    assert row["p"] == pytest.approx(found.pvalue)
    assert row["low"] == pytest.approx(math.exp(found.confidence_interval(0.95).low))
    assert row["units"] == pytest.approx(1 + found.df)
    error = (above.mean() - below.mean()) / found.statistic
    assert row["scatter"] == pytest.approx(error * math.sqrt(row["units"])), "as of so many units that share blocks"
    sides = [(above - MARGIN, "less"), (above + MARGIN, "greater")]
    shifted = [published.ttest_ind(moved, below, equal_var=False, alternative=side).pvalue for moved, side in sides]
    assert row["same"] == pytest.approx(max(shifted))


def test_of_few_values_apart_there_is_a_ratio_alone() -> None:
    few, many = np.array([0.1, 0.3]), drawn(5)
    table = estimate.estimates_apart([(few, many), (many, few), (np.array([]), many)])
    expected = math.exp(0.2 - many.mean())
    assert table["ratio"].tolist() == pytest.approx([expected, 1 / expected, math.nan], nan_ok=True)
    assert table["units"].tolist() == [2, 2, 0]
    assert table[["low", "high", "p", "same", "scatter"]].isna().all(axis=None)


def test_three_values_apart_are_enough() -> None:
    assert not estimate.estimates_apart([(drawn(3, seed=1), drawn(3, seed=2))]).isna().any(axis=None)


def test_what_never_varies_apart_is_what_it_is() -> None:
    row = estimate.estimates_apart([(np.full(4, 0.5), np.full(5, 0.25))]).iloc[0]
    assert row["p"] == 0.0
    assert row["units"] == 4 + 5 - 1, "freedom, and one"
    assert row["low"] == row["high"] == row["ratio"] == pytest.approx(math.exp(0.25))


# -- another level, and power ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0.0, 2.0), (-1.0, 2.0), (0.5, math.inf), (math.nan, math.nan)])
def test_what_is_open_at_one_level_is_so_at_all(low: float, high: float) -> None:
    assert estimate.at_level(1.0, low, high, 5, 0.99) == pytest.approx((low, high), nan_ok=True)


def test_the_same_level_gives_the_same_interval() -> None:
    assert estimate.at_level(1.2, 1.0, 1.5, 5, 0.95) == pytest.approx((1.0, 1.5))


def test_too_few_units_show_nothing() -> None:
    found = estimate.shown(np.array([math.nan, 0.0, 2.0, 3.0]), np.full(4, 0.1), 0.05)
    assert np.isnan(found).tolist() == [True, True, True, False]
    effect = TTestPower().solve_power(nobs=3, alpha=0.05, power=0.8)
    assert found[3] == pytest.approx(math.exp(0.1 * effect), rel=1e-4)


def test_where_nobody_has_enough_units_each_is_told_so() -> None:
    assert np.isnan(estimate.shown(np.array([math.nan, 1.0, 2.0]), np.full(3, 0.1), 0.05)).tolist() == [True] * 3
    assert np.isnan(estimate.needed(np.full(2, math.nan), 0.05, 1.2)).tolist() == [True] * 2


@pytest.mark.parametrize("units", [199, 200, 201, 800])
def test_power_of_many_units(units: int) -> None:
    """Beyond 200 it is no longer computed, and still within half a percent."""
    effect = TTestPower().solve_power(nobs=units, alpha=0.05, power=0.8)
    (found,) = estimate.shown(np.array([float(units)]), np.array([0.5]), 0.05)
    assert math.log(found) == pytest.approx(0.5 * effect, rel=5e-3)


@pytest.mark.parametrize("scatter", [0.02, 0.1, 0.4, 0.47, 0.9, 3.0])
def test_as_many_units_as_are_needed_show_it_and_one_less_does_not(scatter: float) -> None:
    (units,) = estimate.needed(np.array([scatter]), 0.05, 1.1)
    if units > estimate.FEWEST:
        fewer, enough = estimate.shown(np.array([units - 1, units]), np.full(2, scatter), 0.05)
        assert enough <= 1.1 * (1 + 1e-9)
        assert fewer > 1.1
    else:
        assert estimate.shown(np.array([3.0]), np.array([scatter]), 0.05)[0] <= 1.1
    assert units == int(units)


# -- medians ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize("count", [3, 5])
def test_few_positive_values_are_taken_as_logarithms(count: int, level: float) -> None:
    values = np.exp(drawn(count))
    expected = np.exp(published.ttest_1samp(np.log(values), 0.0).confidence_interval(level))
    assert estimate.median_interval(values, level) == pytest.approx(tuple(expected))


def test_few_values_that_never_vary_are_their_own_interval() -> None:
    assert estimate.median_interval(np.full(4, 2.0)) == pytest.approx((2.0, 2.0))


def test_few_values_of_both_signs_are_taken_as_they_are() -> None:
    values = np.array([-1.0, 0.5, 2.0, 4.0])
    expected = published.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert estimate.median_interval(values) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("count", [6, 7, 20])
def test_more_values_have_an_interval_between_their_order_statistics(count: int) -> None:
    values = np.append(drawn(count), math.nan)
    assert estimate.median_interval(values, 0.9) == pytest.approx(tuple(mstats.median_cihs(values[:-1], 0.1)))


def test_of_several_sessions_their_medians_are_taken() -> None:
    values = np.array([1.0, 2.0, 9.0, 4.0, math.nan, 5.0, 6.0, 7.0])
    sessions = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    assert estimate.median_interval(values, sessions=sessions) == pytest.approx(
        estimate.median_interval(np.array([2.0, 4.0, 5.5, 7.0]))
    )


@pytest.mark.parametrize(
    ("values", "censored", "median"),
    [
        ([1.0, 2.0, 3.0], 0, 2.0),
        ([1.0, 2.0, 3.0], 2, 3.0),
        ([1.0, 3.0], 1, 3.0),
        ([1.0, 2.0], 2, math.nan),
        ([], 0, math.nan),
    ],
)
def test_a_median_of_which_some_are_only_known_to_be_large(values: list[float], censored: int, median: float) -> None:
    found = estimate.censored_median(np.array(values), censored)
    assert found == pytest.approx(median, nan_ok=True)


def test_an_interval_of_which_some_are_only_known_to_be_large() -> None:
    values = np.sort(drawn(20, mean=5.0))
    low, high = estimate.censored_interval(values, 2)
    assert (low, high) == pytest.approx(tuple(mstats.median_cihs(np.append(values, [values.max()] * 2), 0.05)))
    assert low < high < values.max()
    assert np.isnan(estimate.censored_interval(values, 15)).all(), "its upper end is one of the unknown"
    assert np.isnan(estimate.censored_interval(values[:4], 1)).all()
    assert not np.isnan(estimate.censored_interval(np.full(6, 2.0), 0)).any()
    assert np.isnan(estimate.censored_interval(np.array([]), 9)).all()
    assert estimate.censored_interval(np.zeros(8), 0) == (0.0, 0.0)
    assert estimate.censored_interval(values, 0, 0.8) == pytest.approx(tuple(mstats.median_cihs(values, 0.2)))
