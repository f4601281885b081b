"""The one estimator and the one judge: what scipy and statsmodels say on the same data, and the edges."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as published
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from lab.analysis.inference import estimate, statistics
from lab.analysis.inference.judge import ALPHA, EXPLORATORY, HEADLINE, Verdict, adjusted, judge, judgement

BLOCKS = [3, 4, 6, 10, 15, 16, 20, 40]


@pytest.mark.parametrize("blocks", BLOCKS)
def test_interval_and_p_are_those_of_one_t_test(blocks: int) -> None:
    logs = np.random.default_rng(blocks).normal(0.1, 0.2, blocks)
    row = estimate.estimates(logs[None]).iloc[0]
    expected = published.ttest_1samp(logs, 0.0)
    assert row["ratio"] == pytest.approx(math.exp(logs.mean()))
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.exp(expected.confidence_interval(0.95))))
    margin = math.log(1.05)
    assert row["same"] == pytest.approx(ttost_paired(logs, np.zeros(blocks), -margin, margin)[0])


@given(st.lists(st.integers(-200, 200), min_size=3, max_size=40))
def test_interval_and_p_never_disagree(percents: list[int]) -> None:
    row = estimate.estimates(np.array([percents]) / 100).iloc[0]
    outside = row["low"] > 1 or row["high"] < 1
    assert outside == (row["p"] < 0.05) or abs(row["p"] - 0.05) < 1e-6


@pytest.mark.parametrize("blocks", BLOCKS)
def test_intervals_hold_the_truth_as_often_as_they_say(blocks: int) -> None:
    logs = np.random.default_rng(blocks).normal(math.log(1.2), 0.14, (20_000, blocks))
    table = estimate.estimates(logs)
    assert 0.94 <= ((table["low"] <= 1.2) & (table["high"] >= 1.2)).mean() <= 0.96


def test_more_blocks_never_find_less() -> None:
    """+15 %, 6.5 % own noise: once 73 of 100 with 15 blocks, and 28 with 16, by another method from there on."""
    logs = np.random.default_rng(1).normal(math.log(1.15), 0.065 * math.sqrt(2), (5000, 20))
    found = [(estimate.estimates(logs[:, :blocks])["p"] <= ALPHA / 3).mean() for blocks in range(3, 21)]
    assert (np.diff(found) > -0.01).all()
    assert found[-6] >= 0.90  # 15 blocks
    assert found[-1] >= 0.95


def test_rows_lack_what_they_lack() -> None:
    logs = np.random.default_rng(2).normal(0.0, 0.1, (4, 8))
    logs[1, 3] = logs[2, :] = logs[3, :6] = math.nan
    table = estimate.estimates(logs)
    assert table["units"].tolist() == [8, 7, 0, 2]
    assert table["p"].isna().tolist() == [False, False, True, True]
    alone = estimate.estimates(np.delete(logs[1:2], 3, axis=1)).iloc[0]
    assert table.iloc[1].to_dict() == pytest.approx(alone.to_dict())


def test_what_never_varies_is_what_it_is() -> None:
    table = estimate.estimates(np.array([[0.0] * 5, [0.5] * 5]))
    assert table["p"].tolist() == [1.0, 0.0]
    assert table["same"].tolist() == [0.0, 1.0]
    assert table.loc[1, ["low", "high"]].tolist() == pytest.approx([math.exp(0.5)] * 2)


@pytest.mark.parametrize("counts", [(5, 8), (20, 20)])
def test_runs_that_share_no_block_are_compared_by_welchs_t(counts: tuple[int, int]) -> None:
    generator = np.random.default_rng(3)
    above, below = generator.normal(0.2, 0.1, counts[0]), generator.normal(0.0, 0.3, counts[1])
    row = estimate.estimates_apart([(above, below)]).iloc[0]
    expected = published.ttest_ind(above, below, equal_var=False)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert row["high"] == pytest.approx(math.exp(expected.confidence_interval(0.95).high))
    assert estimate.estimates_apart([(above[:2], below)])["p"].isna().all()


@pytest.mark.parametrize("units", [4, 10, 50])
def test_power_is_statsmodels(units: int) -> None:
    effect = TTestPower().solve_power(nobs=units, alpha=0.05 / 3, power=0.8)
    (found,) = estimate.shown(np.array([float(units)]), np.array([0.1]), 0.05 / 3)
    assert math.log(found) == pytest.approx(0.1 * effect, rel=1e-4)
    needed = estimate.needed(np.array([math.log(1.1) / effect * 1.0001, math.nan, 0.0]), 0.05 / 3, 1.1)
    assert needed[0] == units + 1
    assert math.isnan(needed[1])
    assert needed[2] == estimate.FEWEST


def test_an_interval_of_another_level() -> None:
    logs = np.random.default_rng(4).normal(0.1, 0.2, 8)
    row = estimate.estimates(logs[None]).iloc[0]
    expected = np.exp(published.ttest_1samp(logs, 0.0).confidence_interval(0.99))
    found = estimate.at_level(row["ratio"], row["low"], row["high"], row["units"], 0.99)
    assert found == pytest.approx(tuple(expected))


# The judge


def table_of(*rows: tuple[float, float], bar: str = "") -> pd.DataFrame:
    """Rows of (p, same) as the estimator has them."""
    return pd.DataFrame(
        [
            {"ratio": 1.1, "low": 1.0, "high": 1.2, "p": p, "same": same, "units": 5.0, "scatter": 0.1, "bar": bar}
            for p, same in rows
        ]
    )


def test_there_are_three_answers_and_a_missing_p_is_none() -> None:
    rows = table_of((0.001, 1.0), (0.8, 0.001), (0.3, 0.3), (math.nan, math.nan))
    judged = judge(rows, pd.Series([HEADLINE] * 4))
    assert judged["verdict"].tolist() == [Verdict.DIFFERENT, Verdict.SAME, Verdict.OPEN, Verdict.OPEN]
    assert judged["claim"].tolist() == [True, False, False, False]
    assert judgement(judged.iloc[0].to_dict()).power
    barred = judge(table_of((0.001, 1.0), (0.8, 0.001), bar="it died"), pd.Series([HEADLINE] * 2))
    assert set(barred["verdict"]) == {Verdict.OPEN}
    assert set(barred["why"]) == {"it died"}


def test_families_are_judged_apart() -> None:
    rows = table_of(*[(0.02, 1.0)] * 6)
    together = judge(rows, pd.Series([HEADLINE] * 6))
    assert not together["claim"].any(), "Holm: six times 0.02"
    apart = judge(rows, pd.Series([f"{HEADLINE}:{each // 2}" for each in range(6)]))
    assert apart["claim"].all(), "twice 0.02 each"
    assert set(apart["family"]) == {HEADLINE}
    explored = judge(rows, pd.Series([EXPLORATORY] * 6))
    assert explored["claim"].all(), "Benjamini and Hochberg: all are as small"
    assert "(exploratory)" in judgement(explored.iloc[0].to_dict()).words


def test_holm_of_its_textbook_example() -> None:
    p_values = np.array([0.01, 0.04, 0.03, math.nan, 0.005])
    np.testing.assert_allclose(adjusted(p_values, is_headline=True), [0.03, 0.06, 0.06, math.nan, 0.02])


# A single median


@pytest.mark.parametrize("blocks", [3, 5, 6, 10, 30, 101])
def test_an_interval_of_a_median_holds_it_as_often_as_it_says(blocks: int) -> None:
    generator, trials = np.random.default_rng(blocks), 1000
    intervals = [estimate.median_interval(np.exp(generator.normal(0, 0.05, blocks))) for _ in range(trials)]
    assert 0.92 <= sum(low <= 1.0 <= high for low, high in intervals) / trials <= 0.97


def test_the_medians_interval_lies_between_the_exact_ones_of_both_neighbouring_levels() -> None:
    """scipy's interval of a quantile takes whole order statistics, and so holds at least 95 %."""
    for count in (8, 15, 40):
        values = np.random.default_rng(count).normal(size=count)
        exact = published.quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
        low, high = estimate.median_interval(values)
        assert exact.low <= low <= np.median(values) <= high <= exact.high


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [math.nan] * 9])
def test_too_few_values_make_no_interval(values: list[float]) -> None:
    assert all(math.isnan(end) for end in estimate.median_interval(np.array(values, dtype=np.float64)))


@given(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=40))
def test_an_interval_is_in_order(values: list[float]) -> None:
    low, high = estimate.median_interval(np.array(values))
    assert low <= high


# What describes


def test_cliffs_delta_is_mann_whitneys_u() -> None:
    generator = np.random.default_rng(4)
    first, second = generator.normal(0.3, 1, 20), generator.normal(0, 1, 15)
    u = published.mannwhitneyu(first, second).statistic
    assert statistics.cliffs_delta(first, second) == pytest.approx(2 * u / (20 * 15) - 1)


def test_trend_and_slope_are_kendalls_and_theil_sens() -> None:
    values = np.random.default_rng(5).normal(size=20) + 0.05 * np.arange(20)
    tau = published.kendalltau(np.arange(20), values).statistic
    spread = math.sqrt(20 * 19 * 45 / 18)
    assert statistics.kendall_z(values) == pytest.approx(tau * 20 * 19 / 2 / spread)
    assert statistics.slope(values) == pytest.approx(published.theilslopes(values).slope)


def test_an_interval_of_what_is_never_negative_is_not_either() -> None:
    low, high = estimate.median_interval(np.array([0.0, 0.014, 0.05]))
    assert low == 0.0
    assert high > 0.05
    assert estimate.median_interval(np.array([-0.01, 0.014, 0.05]))[0] < 0, "a change may be one"
