"""The design of an experiment: orders, A/A pair, budget."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lab.experiment.plan import MINIMUM_BLOCKS, Plan, arms

BACKENDS = ("process", "container", "microvm", "vm")


def plan(seed: int = 1, blocks: int | None = None, budget_seconds: float = 300.0) -> Plan:
    return Plan(arms=arms(BACKENDS), seed=seed, blocks=blocks, budget_seconds=budget_seconds)


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
    assert [arm.label for arm in arms(BACKENDS)] == [*BACKENDS, "container#aa"]
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
