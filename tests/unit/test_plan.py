"""The design of an experiment: orders, A/A pair, budget."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.analysis.inference.estimate import median_interval
from lab.experiment.plan import MINIMUM_BLOCKS, Plan, arms
from lab.results.record import PRECISE_BLOCKS, Ending

BACKENDS = ("process", "container", "microvm", "vm")


def plan(
    seed: int = 1, blocks: int | None = None, budget_seconds: float = 300.0, precision: float | None = None
) -> Plan:
    return Plan(arms=arms(BACKENDS), seed=seed, blocks=blocks, budget_seconds=budget_seconds, precision=precision)


@given(st.integers(), st.integers(min_value=0, max_value=10_000))
def test_every_block_holds_every_arm_once(seed: int, block: int) -> None:
    assert Counter(plan(seed).order(block)) == Counter(arms(BACKENDS))


@given(st.integers(), st.integers(min_value=0, max_value=1000))
def test_an_order_depends_on_seed_and_block_alone(seed: int, block: int) -> None:
    again = plan(seed, blocks=7)
    again.order(block + 1)
    assert plan(seed).order(block) == again.order(block)


def test_each_arm_visits_each_position_about_equally_often() -> None:
    places = Counter((arm.label, place) for block in range(1000) for place, arm in enumerate(plan().order(block)))
    assert len(places) == 25
    assert all(140 <= count <= 260 for count in places.values()), places  # 200 expected, sd 13


def test_the_pair_is_a_container_where_there_is_one() -> None:
    assert [arm.label for arm in arms(BACKENDS)] == [*BACKENDS, "process#aa"]
    assert [arm.label for arm in arms(("microvm", "vm"))] == ["microvm", "vm", "microvm#aa"]
    assert [arm.label for arm in arms(("vm", "process")) if arm.is_twin] == ["process#aa"]
    assert arms(()) == ()


def test_at_least_three_blocks_even_when_the_budget_is_spent() -> None:
    assert all(plan(budget_seconds=1).another(done, 500.0, 200.0) for done in range(MINIMUM_BLOCKS))
    assert not plan(budget_seconds=1).another(MINIMUM_BLOCKS, 500.0, 200.0)


def test_a_block_is_started_only_when_it_fits_the_budget() -> None:
    assert plan(budget_seconds=300).another(3, 200.0, 90.0)
    assert not plan(budget_seconds=300).another(3, 220.0, 90.0)


def test_a_number_of_blocks_overrules_the_budget() -> None:
    assert plan(blocks=5, budget_seconds=1).another(4, 1e6, 1e6)
    assert not plan(blocks=1, budget_seconds=1e6).another(1, 0.0, 0.0)


def test_what_ends_a_run_has_a_name() -> None:
    assert plan(blocks=2).ending(2, 0.0, 0.0) is Ending.BLOCKS
    assert plan(budget_seconds=300).ending(9, 299.0, 30.0) is Ending.BUDGET
    assert plan(budget_seconds=300).ending(9, 99.0, 30.0) is None


def test_narrow_intervals_end_a_run_but_not_before_they_can_be_trusted() -> None:
    precise = plan(precision=0.05)
    assert precise.ending(PRECISE_BLOCKS - 1, 10.0, 1.0, width=0.001) is None
    assert precise.ending(PRECISE_BLOCKS, 10.0, 1.0, width=0.051) is None
    assert precise.ending(PRECISE_BLOCKS, 10.0, 1.0, width=0.05) is Ending.PRECISION
    assert precise.ending(PRECISE_BLOCKS, 300.0, 1.0, width=0.051) is Ending.BUDGET
    assert plan().ending(PRECISE_BLOCKS, 10.0, 1.0, width=0.0) is None


@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_an_interval_that_stopped_the_run_still_covers_the_truth(sigma: float) -> None:
    """Lognormal noise, watched after every block, to a width of five per cent."""
    generator, precise, covered, rounds = np.random.default_rng(5), plan(precision=0.05, budget_seconds=60.0), 0, 500
    for _ in range(rounds):
        values = np.exp(generator.normal(0.0, sigma, 60))
        for done in range(PRECISE_BLOCKS, 61):
            low, high = median_interval(values[:done])
            if precise.ending(done, float(done), 1.0, (high - low) / float(np.median(values[:done]))):
                break
        covered += low <= 1.0 <= high
    assert covered / rounds >= 0.90  # 0.92 and 0.95 over many more rounds; its standard deviation here is 0.012
