"""Main effects and interactions: found where they are, claimed nowhere else. Simulated, and on a made-up run."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _pytest.mark import ParameterSet
from claims import is_below
from factorial import CPUS_ON_BOOT, MEMORY_ON_PSS, OVMF_ON_BOOT, OVMF_WITH_A_CPU, write_factorial

from lab.analysis import Loaded, load
from lab.analysis.factors.cubes import Cube, cubes
from lab.analysis.factors.effects import BACKEND, EVERY, effects_of
from lab.analysis.inference.judge import HEADLINE
from lab.analysis.questions.conditions import Outcome, judge, parse
from lab.errors import UsageError

FACTORS = (("memory", ("a", "b")), ("firmware", ("x", "y", "z")))
QUANTITIES = ("boot.total", "memory.pss")
BLOCKS, NOISE = 8, 0.05


def simulate(
    generator: np.random.Generator,
    *,
    blocks: int = BLOCKS,
    noise: float = NOISE,
    memory: float = 1.0,
    both: float = 1.0,
    around: float = 1.0,
) -> list[Cube]:
    """Two backends, two quantities; ``memory=b`` multiplies boots, ``both`` besides where firmware is z, ``around``
    those with firmware z and divides those with firmware y.
    """
    shared = generator.normal(0.0, 0.3, (blocks, 1, 1))
    found = []
    for backend, quantity in product(("thin", "thick"), QUANTITIES):
        logs = shared + generator.normal(0.0, NOISE, (blocks, 2, 3))
        if quantity == "boot.total" and backend == "thick":
            logs[:, 1, :] += math.log(memory)
            logs[:, 1, 2] += math.log(both)
            logs += np.array([0.0, -math.log(around), math.log(around)])
        found.append(
            Cube(
                backend=backend, quantity=quantity, state="", unit="seconds", factors=FACTORS, logs=logs,
                failures=np.zeros((2, 3)), there=np.ones((2, 3), dtype=np.bool_),
            )
        )  # fmt: skip
    return found


def claims(table: pd.DataFrame, *, interaction: bool) -> pd.DataFrame:
    """The claimed rows, those of main effects or of interactions between the two factors."""
    return table[table["claim"] & ((table["other"] != "") == interaction)]


def by_night(*value: int) -> ParameterSet:
    return pytest.param(*value, marks=pytest.mark.nightly)


@pytest.mark.parametrize(
    ("blocks", "rounds"), [(4, 30), (BLOCKS, 30), by_night(4, 300), by_night(BLOCKS, 300), by_night(20, 100)]
)
def test_where_no_factor_does_anything_each_family_claims_in_one_report_of_twenty_at_most(
    blocks: int, rounds: int
) -> None:
    generator = np.random.default_rng(3)
    tables = [effects_of(simulate(generator, blocks=blocks)) for _ in range(rounds)]
    for is_headline in (True, False):
        wrong = sum(bool(table.loc[(table["family"] == HEADLINE) == is_headline, "claim"].any()) for table in tables)
        assert is_below(wrong, rounds, 0.05)


@pytest.mark.parametrize("rounds", [20, by_night(60)])
def test_an_effect_of_a_fifth_is_found_and_takes_no_other_with_it(rounds: int) -> None:
    generator, found, wrong = np.random.default_rng(4), 0, 0
    for _ in range(rounds):
        table = effects_of(simulate(generator, memory=1.2))
        main = claims(table, interaction=False)
        found += bool(((main["backend"] == "thick") & (main["factor"] == "memory")).any())
        headline = main[main["family"] == HEADLINE]
        wrong += bool((headline["factor"] != "memory").any() or (headline["backend"] == "thin").any())
    assert found / rounds >= 0.95
    assert wrong / rounds <= 0.05


@pytest.mark.parametrize("rounds", [20, by_night(60)])
def test_an_interaction_is_found_where_effects_do_not_multiply(rounds: int) -> None:
    generator, found = np.random.default_rng(5), 0
    for _ in range(rounds):
        rows = claims(effects_of(simulate(generator, memory=1.2, both=1.4)), interaction=True)
        found += bool(((rows["other"] == "firmware") & (rows["other_level"] == "z") & (rows["ratio"] > 1.2)).any())
    assert found / rounds >= 0.95


@pytest.mark.parametrize("rounds", [20, by_night(60)])
def test_levels_around_the_first_are_found_to_differ_where_neither_is_known_to_differ_from_it(rounds: int) -> None:
    """Both levels lie 8 % from the first, in opposite directions: 17 % from each other."""
    generator, overall, only, wrong = np.random.default_rng(14), 0, 0, 0
    for _ in range(rounds):
        table = effects_of(simulate(generator, around=1.08))
        rows = table[table["claim"] & (table["backend"] == "thick") & (table["quantity"] == "boot.total")]
        mains = rows[(rows["factor"] == "firmware") & (rows["other"] == "")]
        overall += EVERY in set(mains["level"])
        only += list(mains["level"]) == [EVERY]
        wrong += bool((table["claim"] & (table["factor"] == "memory") & (table["family"] == HEADLINE)).any())
    assert overall / rounds >= 0.85
    assert only / rounds >= 0.05
    assert wrong / rounds <= 0.05


def test_an_interaction_over_many_levels_is_found_as_a_whole() -> None:
    generator, found, rounds = np.random.default_rng(15), 0, 40
    for _ in range(rounds):
        table = effects_of(simulate(generator, both=1.25))
        whole = table[(table["level"] == EVERY) & (table["other_level"] == EVERY) & table["claim"]]
        found += bool(((whole["factor"] == "memory") & (whole["other"] == "firmware")).any())
    assert found / rounds >= 0.9
    assert (table[table["level"] == EVERY][["low", "high"]].isna()).all(axis=None)


def test_an_overall_test_says_nothing_where_instances_failed() -> None:
    def why(found: list[Cube]) -> str:
        table = effects_of(found)
        row = table[(table["level"] == EVERY) & (table["factor"] == "firmware") & (table["other"] == "")].iloc[2]
        assert (row["backend"], row["quantity"], row["claim"]) == ("thick", "boot.total", not row["why"])
        return str(row["why"])

    found = simulate(np.random.default_rng(16), around=1.3)
    assert why(found) == ""
    found[2].failures[0, 1] = 1
    assert "instances failed" in why(found)
    found[2].logs[:, :, 1] = np.nan
    assert why(found) == "only 0 blocks with all"


@pytest.mark.parametrize("rounds", [100, by_night(200)])
def test_intervals_of_effects_cover_the_truth(rounds: int) -> None:
    generator, covered = np.random.default_rng(6), 0
    for _ in range(rounds):
        thick = simulate(generator, memory=1.2)[2]
        row = effects_of([thick]).iloc[0]
        covered += row["low"] <= 1.2 <= row["high"]
    assert 0.92 <= covered / rounds <= 0.98


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(write_factorial(tmp_path_factory.mktemp("factorial")).path)


@pytest.fixture(scope="module")
def table(loaded: Loaded) -> pd.DataFrame:
    return loaded.effects()


def row(table: pd.DataFrame, backend: str, quantity: str, level: str, other: str = "") -> pd.Series:
    factor, value = level.split("=")
    wanted = (
        (table["backend"] == backend) & (table["quantity"] == quantity) & (table["factor"] == factor)
        & (table["level"] == value)
    )  # fmt: skip
    names = table["other"] + table["other"].where(table["other"] == "", "=") + table["other_level"]
    (found,) = [found for _, found in table[wanted & (names == other)].iterrows()]
    return found


def test_effects_of_a_run_are_those_that_it_was_made_with(table: pd.DataFrame) -> None:
    for backend, truth in CPUS_ON_BOOT.items():
        seen = row(table, backend, "boot.total", "cpus=1")
        # the machine's firmware makes its CPUs matter: a third of the combinations have ovmf
        expected = truth if backend == "container" else (OVMF_WITH_A_CPU / OVMF_ON_BOOT) ** (1 / 3)
        assert seen["low"] <= expected <= seen["high"]
        assert seen["n"] == 8
    ovmf = row(table, "microvm", "boot.total", "firmware=ovmf")
    assert ovmf["claim"]
    assert ovmf["ratio"] == pytest.approx(math.sqrt(OVMF_ON_BOOT * OVMF_WITH_A_CPU), rel=0.05)
    assert abs(row(table, "microvm", "boot.total", "firmware=seabios")["ratio"] - 1) < 0.02
    together = row(table, "microvm", "boot.total", "cpus=1", "firmware=ovmf")
    assert together["claim"]
    assert together["ratio"] == pytest.approx(OVMF_WITH_A_CPU / OVMF_ON_BOOT, rel=0.05)
    memory = row(table, "microvm", "memory.pss", "memory=256M")
    assert memory["claim"]
    assert memory["ratio"] == pytest.approx(MEMORY_ON_PSS["microvm"], rel=0.05)


def test_a_factor_that_does_more_to_one_backend_than_to_another_interacts_with_the_backend(
    table: pd.DataFrame,
) -> None:
    seen = row(table, "microvm", "memory.pss", "memory=256M", "backend=microvm")
    assert seen["claim"]
    assert seen["other_against"] == "container"
    assert seen["ratio"] == pytest.approx(1.3, rel=0.05)
    assert "firmware" not in set(table[table["other"] == BACKEND]["factor"])


def test_what_failed_counts_for_what_it_was_at(table: pd.DataFrame) -> None:
    together = row(table, "microvm", "boot.total", "cpus=1", "firmware=seabios")
    assert (together["censored"], together["claim"]) == (1, False)
    less = row(table, "microvm", "boot.total", "cpus=1")
    assert (less["censored"], less["base_censored"], less["n"]) == (0, 1, 8)


def test_more_than_where_the_other_failed_is_not_claimed() -> None:
    found = simulate(np.random.default_rng(7), memory=1.5)
    found[2].failures[0, 1] = 1
    above = effects_of(found)
    slower = above[(above["backend"] == "thick") & (above["quantity"] == "boot.total") & (above["other"] == "")]
    assert "a failed at times" in slower[slower["factor"] == "memory"].iloc[0]["why"]


def test_what_can_not_be_is_missed_by_nobody() -> None:
    found = simulate(np.random.default_rng(10), memory=1.5)[2:3]
    found[0].there[1, 2] = False
    found[0].logs[:, 1, 2] = np.nan
    table = effects_of(found)
    rows = {(row["factor"], row["level"], row["other_level"]): row for row in table.to_dict("records")}
    assert set(rows) == {
        ("memory", "b", ""), ("firmware", "y", ""), ("firmware", "z", ""), ("firmware", EVERY, ""),
        ("memory", "b", "y"),
    }  # fmt: skip
    assert (rows["memory", "b", ""]["cells"], rows["memory", "b", ""]["of_cells"]) == (2, 2)
    assert rows["memory", "b", ""]["ratio"] == pytest.approx(1.5, rel=0.1)
    assert rows["firmware", "z", ""]["of_cells"] == 1


def test_a_combination_that_never_succeeds_is_said_to_be_missing() -> None:
    found = simulate(np.random.default_rng(10), memory=1.5)[2:3]
    found[0].logs[:, 1, 2] = np.nan
    found[0].failures[1, 2] = BLOCKS
    main = effects_of(found).iloc[0]
    assert (main["factor"], main["cells"], main["of_cells"], main["censored"]) == ("memory", 2, 3, BLOCKS)
    found[0].logs[:, 1, :] = np.nan
    assert "only 0 blocks" in effects_of(found).iloc[0]["why"]


def test_sessions_count_when_there_are_three() -> None:
    found = simulate(np.random.default_rng(9), blocks=9, memory=1.2)
    by_block = effects_of(found)
    by_session = effects_of(found, np.repeat(np.array([1, 2, 3]), 3))
    assert (by_session["high"] / by_session["low"]).mean() > (by_block["high"] / by_block["low"]).mean()


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("boot.ratio(microvm[cpus=1, firmware=ovmf], microvm) > 1.9", Outcome.HOLDS),
        ("boot.ratio(microvm[firmware=ovmf,memory=64M], microvm[memory=64M]) > 2.8", Outcome.HOLDS),
        ("boot.median(microvm[firmware=ovmf]) > 1min", Outcome.NOT),
        ("boot.effect(container, cpus=1) < 0.65", Outcome.HOLDS),
        ("memory.effect(microvm, memory=256M) > 1.285", Outcome.PERHAPS),
        ("boot.effect(microvm, firmware=seabios) > 1.1", Outcome.NOT),
    ],
)
def test_a_build_may_fail_for_an_arm_or_an_effect(loaded: Loaded, text: str, outcome: Outcome) -> None:
    assert judge(parse(text), loaded).outcome is outcome


@pytest.mark.parametrize(
    ("text", "says", "remedy"),
    [
        ("boot.ratio(vm[cpus=1], container) > 1", "no backend vm", "container, microvm"),
        (
            "boot.median(microvm[firmware=uefi]) > 1s",
            "no arm microvm.firmware=uefi",
            "firmware=seabios, firmware=ovmf",
        ),
        ("boot.effect(container, firmware=ovmf) > 1", "no effect of firmware=ovmf on container", "container, cpus=1"),
        ("boot.effect(container) > 1", "effect wants a backend and a level", "boot.ratio"),
        ("boot.ratio(container, cpus=1) > 1", "ratio wants two backends", "boot.ratio"),
        ("boot.isolated.effect(container, cpus=1) > 1", "boot.isolated are not judged", "boot.total"),
        ("boot.effect(container, cpus=1) > 1s", "no unit", "boot.ratio"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(loaded: Loaded, text: str, says: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        judge(parse(text), loaded)
    assert remedy in caught.value.hint


def test_a_run_without_factors_has_none(tmp_path: Path) -> None:
    from synthetic import write_run

    loaded = load(write_run(tmp_path, blocks=3).path)
    assert list(cubes(loaded)) == []
    assert loaded.effects().empty
