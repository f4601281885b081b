"""What the statistics promise, by simulation; and the same numbers as other implementations on the same data."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from lab.analysis import inference, statistics
from lab.analysis.compare import ratios
from lab.analysis.statistics import Floats

Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]


def lognormal(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return generator.normal(0, 0.05, shape)


def skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """As boots are: nothing is faster than fast, and some are late."""
    return generator.exponential(0.1, shape)


def bimodal(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return generator.normal(0, 0.03, shape) + 0.3 * (generator.random(shape) < 0.5)


def contaminated(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    late = generator.exponential(0.8, shape) * (generator.random(shape) < 0.08)
    return generator.normal(0, 0.05, shape) + late


NOISES: tuple[Noise, ...] = (lognormal, skewed, bimodal, contaminated)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("blocks", [3, 5, 10, 16, 30])
def test_an_interval_of_a_ratio_holds_the_truth_as_often_as_it_says(noise: Noise, blocks: int) -> None:
    generator = np.random.default_rng(blocks)
    trials, hits = 600, 0
    draws = statistics.resamples(blocks, 1, "coverage", 300)
    for _ in range(trials):
        first, second = np.exp(noise(generator, (2, blocks, 1)))
        _, low, high = inference.ratio_interval(1.2 * first, second, draws)
        hits += low <= 1.2 <= high
    assert 0.92 <= hits / trials <= 1.0


@pytest.mark.parametrize("blocks", [3, 5, 10, 16, 30])
def test_on_the_usual_noise_it_promises_neither_too_much_nor_too_little(blocks: int) -> None:
    generator = np.random.default_rng(blocks)
    trials, hits = 2000, 0
    draws = statistics.resamples(blocks, 1, "coverage", 400)
    for _ in range(trials):
        first, second = np.exp(lognormal(generator, (2, blocks, 1)))
        _, low, high = inference.ratio_interval(1.2 * first, second, draws)
        hits += low <= 1.2 <= high
    assert 0.93 <= hits / trials <= 0.97


@pytest.mark.parametrize(("noise", "median"), [(lognormal, 0.0), (skewed, 0.1 * math.log(2))])
@pytest.mark.parametrize("blocks", [3, 5, 6, 10, 30, 101])
def test_an_interval_of_a_median_holds_it_as_often_as_it_says(noise: Noise, median: float, blocks: int) -> None:
    generator = np.random.default_rng(blocks)
    trials, hits = 2000, 0
    for _ in range(trials):
        low, high = inference.median_interval(np.exp(noise(generator, (blocks,))))
        hits += low <= math.exp(median) <= high
    assert 0.92 <= hits / trials <= 0.97


def a_run(generator: np.random.Generator, blocks: int, effect: float = 1.0, noise: Noise = lognormal) -> pd.DataFrame:
    """Four backends, one of them twice, and quantities that are judged; only ``vm`` may differ."""
    rows = []
    arms = ("process", "container", "container#aa", "microvm", "vm")
    for quantity in ("boot.total", "memory.pss", "cpu.boot", "teardown.total"):
        shared = generator.normal(0, 0.1, blocks)  # what the host does to a whole block
        for arm in arms:
            values = np.exp(shared + noise(generator, (blocks,))) * (effect if arm == "vm" else 1.0)
            rows += [(quantity, arm, block + 1, value) for block, value in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["quantity", "arm", "block", "value"])
    return frame.assign(state="", unit="seconds", warmup=False)


@pytest.mark.parametrize(
    ("blocks", "noise", "runs"), [(3, lognormal, 450), (5, skewed, 450), (16, contaminated, 100)]
)
def test_where_nothing_differs_one_report_in_twenty_claims_anything_at_most(
    blocks: int, noise: Noise, runs: int
) -> None:
    generator = np.random.default_rng(7)
    false = sum(bool(ratios(a_run(generator, blocks, noise=noise))["claim"].any()) for _ in range(runs))
    assert false / runs <= 0.05


@pytest.mark.parametrize(("blocks", "power"), [(5, 0.2), (10, 0.95), (16, 0.85)])
def test_a_fifth_more_is_found(blocks: int, power: float) -> None:
    """Medians withstand outliers and pay with a little power where there are none: hence less with sixteen."""
    generator = np.random.default_rng(8)
    runs, found = 60, 0
    for _ in range(runs):
        table = ratios(a_run(generator, blocks, effect=1.2))
        row = table[(table["quantity"] == "boot.total") & (table["arm"] == "vm")].iloc[0]
        found += bool(row["claim"])
    assert found / runs >= power


def test_three_blocks_find_what_is_large() -> None:
    table = ratios(a_run(np.random.default_rng(9), 3, effect=20.0))
    assert table[table["arm"] == "vm"]["claim"].all()


# The same as others


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_closed_procedure_it_abbreviates(p_values: list[float]) -> None:
    """By definition: the largest of m·p(1), (m−1)·p(2), … up to its own place."""
    values = np.array(p_values)
    adjusted = inference.holm(values)
    order = np.argsort(values, kind="stable")
    for place, index in enumerate(order):
        steps = [(len(values) - before) * values[order[before]] for before in range(place + 1)]
        assert adjusted[index] == pytest.approx(min(1.0, max(steps)))


def test_holm_of_its_textbook_example() -> None:
    values = np.array([0.01, 0.04, 0.03, math.nan, 0.005])
    np.testing.assert_allclose(inference.holm(values), [0.03, 0.06, 0.06, math.nan, 0.02])


@pytest.mark.parametrize("blocks", [3, 8, 15, 16, 40])
def test_p_values_are_scipys(blocks: int) -> None:
    generator = np.random.default_rng(blocks)
    first, second = np.exp(generator.normal(0, 0.1, (2, blocks, 1)))
    logs = np.log(first / second)[:, 0]
    expected = (
        scipy_stats.ttest_1samp(logs, 0).pvalue
        if blocks < inference.MANY_BLOCKS
        else scipy_stats.wilcoxon(first[:, 0] / second[:, 0] - 1).pvalue
    )
    got = inference.p_value(first, second)
    assert got == pytest.approx(expected) if blocks < inference.MANY_BLOCKS else 0 < got <= 1


def test_students_interval_is_scipys() -> None:
    values = np.random.default_rng(3).normal(5, 2, 7)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(inference.student_interval(values), expected)


@pytest.mark.parametrize("blocks", [16, 40])
def test_the_bootstrap_of_a_ratio_is_scipys(blocks: int) -> None:
    """Other random draws, so that the ends agree but for the chance in 4,000 and 9,999 resamples."""
    generator = np.random.default_rng(blocks)
    first, second = np.exp(generator.normal(0, 0.2, (2, blocks)))
    theirs = scipy_stats.bootstrap(
        (first, second), lambda one, other, axis: np.median(one, axis=axis) / np.median(other, axis=axis),
        paired=True, vectorized=True, method="percentile", confidence_level=0.95, rng=generator,
    ).confidence_interval  # fmt: skip
    ratio, low, high = inference.ratio_interval(
        first[:, None], second[:, None], statistics.resamples(blocks, 1, "boot.total")
    )
    assert ratio == pytest.approx(np.median(first) / np.median(second))
    width = theirs.high - theirs.low
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_the_medians_interval_lies_between_the_exact_ones_of_both_neighbouring_levels() -> None:
    """scipy's interval of a quantile takes whole order statistics, and so holds at least 95 %."""
    for count in (8, 15, 40):
        values = np.random.default_rng(count).normal(size=count)
        exact = scipy_stats.quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
        low, high = inference.median_interval(values)
        assert exact.low <= low <= np.median(values) <= high <= exact.high


def test_cliffs_delta_is_mann_whitneys_u() -> None:
    generator = np.random.default_rng(4)
    first, second = generator.normal(0.3, 1, 20), generator.normal(0, 1, 15)
    u = scipy_stats.mannwhitneyu(first, second).statistic
    assert statistics.cliffs_delta(first, second) == pytest.approx(2 * u / (20 * 15) - 1)


def test_trend_and_slope_are_kendalls_and_theil_sens() -> None:
    values = np.random.default_rng(5).normal(size=20) + 0.05 * np.arange(20)
    tau = scipy_stats.kendalltau(np.arange(20), values).statistic
    pairs = 20 * 19 / 2
    spread = math.sqrt(20 * 19 * 45 / 18)
    assert statistics.kendall_z(values) == pytest.approx(tau * pairs / spread)
    assert statistics.slope(values) == pytest.approx(scipy_stats.theilslopes(values).slope)


def test_the_median_absolute_deviation_is_scipys() -> None:
    values = np.random.default_rng(6).normal(size=31)
    assert statistics.mad(values) == pytest.approx(float(scipy_stats.median_abs_deviation(values)))


# The edges


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [math.nan] * 9])
def test_too_few_values_make_no_interval(values: list[float]) -> None:
    assert all(math.isnan(end) for end in inference.median_interval(np.array(values, dtype=np.float64)))


@given(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=40))
def test_an_interval_is_in_order(values: list[float]) -> None:
    low, high = inference.median_interval(np.array(values))
    assert low <= high


def test_values_that_are_not_positive_have_no_ratio() -> None:
    draws = statistics.resamples(4, 1, "x", 50)
    zeros, ones = np.zeros((4, 1)), np.ones((4, 1))
    assert all(math.isnan(each) for each in inference.ratio_interval(ones, zeros, draws))
    assert math.isnan(inference.p_value(zeros, ones))


def test_equal_blocks_differ_by_nothing_and_constant_ones_by_all() -> None:
    ones = np.ones((4, 1))
    assert inference.p_value(ones, ones) == 1.0
    assert inference.p_value(2 * ones, ones) == 0.0


def test_blocks_that_one_side_lacks_are_left_out() -> None:
    first = np.array([[1.0], [math.nan], [3.0], [4.0]])
    second = np.array([[2.0], [2.0], [math.nan], [2.0]])
    np.testing.assert_allclose(inference.log_ratios(first[:, 0], second[:, 0]), np.log([0.5, 2.0]))
