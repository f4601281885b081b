"""One test of three levels or more: what scipy says where it has the same one, and honest on every kind of noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as published

from lab.analysis.inference import overall
from lab.analysis.inference.statistics import Floats

Noise = Callable[[np.random.Generator, tuple[int, int]], Floats]


def normal(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """What the F test was made for."""
    return generator.normal(0.0, 1.0, shape)


def skewed(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Never much too fast, at times much too slow."""
    result: Floats = generator.lognormal(0.0, 1.0, shape)
    return result


def contaminated(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """One in ten met something."""
    return normal(generator, shape) * np.where(generator.random(shape) < 0.1, 8.0, 1.0)


def unequal(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """The last level is four times as noisy as the others: what the F test without a correction falls for."""
    return normal(generator, shape) * np.append(np.ones(shape[1] - 1), 4.0)


def against_the_first(values: Floats) -> tuple[Floats, Floats]:
    """The contrasts of the further columns with the first, and how much each column counts in them."""
    levels = values.shape[1]
    return values[:, 1:] - values[:, :1], np.column_stack([-np.ones(levels - 1), np.eye(levels - 1)])


def p_of(values: Floats) -> float:
    """Of blocks in rows and levels in columns."""
    return overall.p_value(*against_the_first(values))


@pytest.mark.parametrize("blocks", [3, 8, 20])
def test_of_two_levels_it_is_students_paired_t(blocks: int) -> None:
    values = np.random.default_rng(1).normal(0.0, 1.0, (blocks, 2))
    assert p_of(values) == pytest.approx(published.ttest_rel(values[:, 0], values[:, 1]).pvalue)


def test_of_four_levels_it_is_the_one_way_f_test_within_blocks_with_freedom_as_in_the_textbooks() -> None:
    values = np.random.default_rng(3).normal(0.0, 1.0, (8, 4)) + np.array([0.0, 0.3, 0.9, 1.2])
    blocks, levels = values.shape
    centred = values - values.mean(axis=1, keepdims=True)
    # scipy's has levels · (blocks - 1) degrees of freedom for what are (levels - 1) · (blocks - 1)
    f = published.f_oneway(*centred.T).statistic * (levels - 1) / levels
    s = np.cov(values.T)
    mean = s.mean()
    above = levels**2 * (np.trace(s) / levels - mean) ** 2
    below = (s**2).sum() - 2 * levels * (s.mean(axis=1) ** 2).sum() + levels**2 * mean**2
    freedom = above / below  # epsilon times levels - 1
    assert p_of(values) == pytest.approx(published.f.sf(f, freedom, freedom * (blocks - 1)))


@pytest.mark.parametrize("noise", [normal, skewed, contaminated, unequal])
@pytest.mark.parametrize(("blocks", "levels"), [(4, 3), (8, 5), (20, 3)])
def test_where_no_level_differs_one_run_in_twenty_says_so_at_most(blocks: int, levels: int, noise: Noise) -> None:
    """Of 3,000 each: 0.3 % to 5.7 %. The standard deviation of 400 is 1.1 %."""
    generator, rounds = np.random.default_rng(9), 400
    wrong = sum(p_of(noise(generator, (blocks, levels))) <= 0.05 for _ in range(rounds))
    assert wrong / rounds <= 0.08


@pytest.mark.parametrize("blocks", [8, 20])
def test_it_finds_what_friedmans_test_finds(blocks: int) -> None:
    """On normal noise it finds more. Outliers blind it, as they do Student's t: docs/statistics.md says how much."""
    generator, rounds, found = np.random.default_rng(6), 100, [0, 0]
    for _ in range(rounds):
        values = normal(generator, (blocks, 3)) + np.array([0.0, 0.0, 4.0]) / np.sqrt(blocks)
        found[0] += p_of(values) <= 0.05
        found[1] += published.friedmanchisquare(*values.T).pvalue <= 0.05
    assert found[0] >= found[1]


def test_combinations_that_can_not_be_don_t_tilt_it() -> None:
    """Of two factors one combination is missing: contrasts that share cells are sphered by what they share."""
    weights = np.array([[-1.0, 1.0, 0.0, 0.0, 0.0], [-0.5, 0.0, 0.5, -0.5, 0.5], [-1.0, 0.0, 0.0, 0.0, 1.0]])
    generator, rounds = np.random.default_rng(7), 400
    wrong = sum(
        overall.p_value(generator.normal(0.0, 1.0, (6, 5)) @ weights.T, weights) <= 0.05 for _ in range(rounds)
    )
    assert 0.01 <= wrong / rounds <= 0.08


def test_few_blocks_sessions_and_what_never_varies() -> None:
    values = np.random.default_rng(8).normal(0.0, 1.0, (9, 3)) + np.array([0.0, 0.0, 3.0])
    contrasts, weights = against_the_first(values)
    assert np.isnan(overall.p_value(contrasts[:2], weights))
    gaps = contrasts.copy()
    gaps[4, 0] = np.nan
    assert overall.p_value(gaps, weights) == overall.p_value(np.delete(contrasts, 4, axis=0), weights)
    sessions = np.repeat(np.array([1, 2, 3]), 3)
    means = contrasts.reshape(3, 3, 2).mean(axis=1)
    assert overall.p_value(contrasts, weights, sessions) == pytest.approx(overall.p_value(means, weights))
    assert overall.p_value(np.zeros((5, 2)), weights) == 1.0
    assert overall.p_value(np.ones((5, 2)), weights) == 0.0


def test_the_spread_is_the_largest_ratio_between_two_levels() -> None:
    main = np.log([[1.0, 1.0], [1.0, 0.5], [1.0, 2.0]])
    assert overall.spread(main) == pytest.approx(4.0)
    interaction = np.log([[1.0, 1.0, 1.0], [1.0, 2.0, 0.5], [1.0, 1.0, 1.0]])
    assert overall.spread(interaction) == pytest.approx(4.0)
    interaction[1, 2] = np.nan
    assert overall.spread(interaction) == pytest.approx(2.0)
