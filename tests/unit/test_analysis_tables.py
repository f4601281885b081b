"""Samples to tables: what counts, what is compared with what, and what may be claimed."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import write_run

from lab.analysis import load, ratios, summary
from lab.analysis.inference import estimate
from lab.analysis.loaded import Loaded
from lab.analysis.quantities import QUANTITIES, format_interval, format_ratio, format_ratios, format_value
from lab.analysis.summary import one
from lab.errors import ResultsError
from lab.results.store import RunFolder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(write_run(tmp_path_factory.mktemp("results")).path)


def frame(
    rows: list[tuple[str, int, float | None]], quantity: str = "boot.total", status: str = "ok"
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "quantity": quantity, "state": "", "arm": arm, "metric": "boot", "unit": "seconds", "block": block,
                "value": float("nan") if value is None else value, "warmup": False, "resolution": 0.0,
                "instance": f"b{block}-{arm}",
                "status": "failed" if value is None else status,
            }
            for arm, block, value in rows
        ]
    )  # fmt: skip


def test_every_sample_is_a_row_with_its_unit(loaded: Loaded) -> None:
    assert len(loaded.frame) == sum(1 for _ in RunFolder.open(loaded.path).samples())
    assert set(loaded.frame.loc[loaded.frame["quantity"] == "boot.total", "unit"]) == {"seconds"}
    assert [arm.label for arm in loaded.arms] == ["process", "container", "microvm", "vm"]
    assert loaded.baseline == "process"
    assert loaded.blocks == 5


def test_failures_are_counted_and_never_fast(loaded: Loaded) -> None:
    table = summary(loaded.frame)
    vm, microvm = one(table, "boot.total", "vm"), one(table, "boot.total", "microvm")
    assert vm is not None
    assert microvm is not None
    assert (vm["n"], vm["failed"], vm["timeout"]) == (4, 1, 0)
    assert (microvm["n"], microvm["failed"], microvm["timeout"]) == (4, 0, 1)
    assert vm["minimum"] > 5


def test_a_value_that_came_with_a_failure_does_not_count(tmp_path: Path) -> None:
    folder = write_run(tmp_path, blocks=1, bad_luck=False)
    text = (folder.path / "samples.jsonl").read_text().replace('"status":"ok"', '"status":"failed"')
    (folder.path / "samples.jsonl").write_text(text)
    assert load(folder.path).frame["value"].isna().all()


def test_warm_ups_are_kept_but_left_out(loaded: Loaded) -> None:
    assert loaded.frame["warmup"].any()
    process = one(summary(loaded.frame), "boot.total", "process")
    assert process is not None
    assert process["n"] == 5


def test_the_summary_orders_its_numbers(loaded: Loaded) -> None:
    table = summary(loaded.frame)
    table = table[table["n"] > 0]
    for low, high in (
        ("minimum", "median"),
        ("low", "median"),
        ("median", "high"),
        ("median", "maximum"),
        ("p95", "maximum"),
    ):
        known = table[table[low].notna() & table[high].notna()]
        assert len(known) > 0.9 * len(table)
        assert (known[low] <= known[high] * (1 + 1e-12)).all(), (low, high)


def test_an_arm_that_always_failed_has_a_row_without_numbers() -> None:
    table = summary(frame([("vm", 1, None), ("vm", 2, None)]))
    assert len(table) == 1
    assert table.iloc[0]["n"] == 0
    assert table.iloc[0]["failed"] == 2
    assert math.isnan(table.iloc[0]["median"])


def test_a_large_difference_is_claimed_and_a_small_one_is_not(loaded: Loaded) -> None:
    table = ratios(loaded.frame)
    vm, container = one(table, "boot.total", "vm"), one(table, "cpu.compute", "container")
    assert vm is not None
    assert container is not None
    assert vm["claim"]
    assert 60 < vm["low"] <= vm["ratio"] <= vm["high"] < 100
    assert vm["delta"] == 1
    assert not container["claim"]
    assert container["why"]


def test_the_twin_is_a_second_observation_of_its_backend_and_compared_with_it_alone(loaded: Loaded) -> None:
    table = ratios(loaded.frame)
    twin = table[table["arm"] == "container#aa"]
    assert set(twin["baseline"]) == {"container"}
    assert set(twin["family"]) == {"A/A"}
    boots = loaded.measured[loaded.measured["quantity"] == "boot.total"].pivot_table(
        index="block", columns="arm", values="value"
    )
    logs = np.log(boots)
    expected = np.exp(((logs["container"] + logs["container#aa"]) / 2 - logs["process"]).mean())
    found = one(table, "boot.total", "container")
    assert found is not None
    assert found["ratio"] == pytest.approx(expected)
    unlike = one(ratios(loaded.frame, twin_alike=False), "boot.total", "container")
    assert unlike is not None
    assert unlike["ratio"] == pytest.approx(np.exp((logs["container"] - logs["process"]).mean()))


def test_what_a_block_shares_cancels_out() -> None:
    chance = random.Random(1)
    load_of_block = {block: chance.lognormvariate(0, 0.8) for block in range(1, 9)}
    rows = [
        (arm, block, base * load_of_block[block])
        for block in load_of_block
        for arm, base in (("process", 1), ("vm", 3))
    ]
    row = one(ratios(frame(rows)), "boot.total", "vm")  # type: ignore[arg-type]
    assert row is not None
    assert row["low"] == pytest.approx(3)
    assert row["high"] == pytest.approx(3)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([(arm, 1, 1.0) for arm in ("process", "vm", "container", "container#aa")], "1 shared blocks are too few"),
        ([(arm, block, v) for block in (1, 2, 3) for arm, v in (("process", 0.0), ("vm", 9.0))], "not positive"),
    ],
)  # fmt: skip
def test_why_a_difference_is_not_claimed(rows: list[tuple[str, int, float | None]], why: str) -> None:
    row = one(ratios(frame(rows)), "boot.total", "vm")
    assert row is not None
    assert not row["claim"]
    assert why in row["why"]


def test_a_headline_is_judged_apart_from_what_is_explored() -> None:
    """The same three blocks alone, and beside forty comparisons that show nothing."""
    noise = random.Random(7)
    arms = {"process": 1.0, "vm": 3.0, "container": 1.0, "container#aa": 1.0}
    table = frame([(arm, block, v * noise.lognormvariate(0, 0.1)) for block in (1, 2, 3) for arm, v in arms.items()])
    others = [
        table.assign(quantity=f"work.{number}", value=[noise.lognormvariate(0, 0.1) for _ in table.index])
        for number in range(20)
    ]
    for name, claim in (("boot.total", True), ("cpu.boot", False)):
        among_many = ratios(pd.concat([table.assign(quantity=name), *others], ignore_index=True))
        row = one(among_many, name, "vm")
        assert row is not None
        assert row["claim"] is np.bool_(claim)
        assert ("one of many" in row["why"]) is not claim


def test_equal_arms_are_hardly_ever_claimed_to_differ() -> None:
    claims = 0
    for trial in range(60):
        chance = random.Random(trial)
        arms = ("process", "vm", "container", "container#aa")
        rows = [(arm, block, chance.lognormvariate(0, 0.05)) for block in range(6) for arm in arms]
        row = one(ratios(frame(rows)), "boot.total", "vm")  # type: ignore[arg-type]
        assert row is not None
        claims += bool(row["claim"])
    assert claims <= 2


def test_a_run_without_a_process_takes_its_thinnest_boundary_as_baseline() -> None:
    assert len(ratios(frame([("vm", 1, 1.0)]))) == 0


def test_an_empty_run_says_how_to_go_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path, blocks=1)
    (folder.path / "samples.jsonl").write_text("")
    with pytest.raises(ResultsError, match="no observation") as caught:
        load(folder.path)
    assert "--resume" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.1486, "seconds", "149 ms"), (0.99999, "seconds", "1.00 s"), (12.345, "seconds", "12.3 s"),
        (0.000411, "seconds/s", "411 µs/s"), (0.0, "seconds", "0 s"), (float("nan"), "seconds", "–"),
        (1024.0**2 * 18.64, "bytes", "18.6 MiB"), (1500.0 * 1024**2, "bytes", "1.46 GiB"),
        (-2048.0, "bytes", "-2.00 KiB"),
        (2937.2, "requests/s", "2,937 requests/s"), (128.0, "1", "128"), (9.999, "1", "10.0"),
    ],
)  # fmt: skip
def test_values_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_intervals_and_ratios_are_written_shortly() -> None:
    assert format_interval(11.4, 12.1, "seconds") == "11.4–12.1 s"
    assert format_interval(0.972, 1.09, "seconds") == "972 ms – 1.09 s"
    assert format_interval(float("nan"), 1, "seconds") == "–"
    assert format_interval(15.01, 15.02, "seconds") == "15.01–15.02 s", "ends that differ are written so"
    assert format_ratios(14.9, 15.13) == "14.9–15.1 ×"
    assert format_ratios(float("nan"), 1.0) == ""
    assert format_ratio(81.78) == "82 ×"
    assert format_ratio(1.0957) == "1.10 ×"
    assert format_ratio(float("nan")) == "–"


def test_every_quantity_that_is_made_has_a_name_and_a_definition(loaded: Loaded) -> None:
    made = set(loaded.frame.loc[loaded.frame["unit"] != "answer", "quantity"])
    assert made <= set(QUANTITIES)
    assert all(quantity.definition for quantity in QUANTITIES.values())


def test_what_never_came_up_is_longer_than_all_that_did() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert estimate.censored_median(values, 2) == 5.0  # of nine, two of them beyond the largest
    assert estimate.censored_median(values, 6) == 7.0
    assert np.isnan(estimate.censored_median(values, 7))
    assert np.isnan(estimate.censored_interval(values, 1)).all()  # its upper end would be the unknown one
    few_of_many = estimate.censored_interval(np.arange(1.0, 20.0), 2)
    assert few_of_many == pytest.approx(estimate.median_interval(np.arange(1.0, 22.0)))
    assert np.isnan(estimate.censored_interval(values, 6)).all()
    assert np.isnan(estimate.censored_interval(values[:3], 1)).all()


def test_boots_that_timed_out_make_no_arm_faster(loaded: Loaded) -> None:
    boots = loaded.frame[(loaded.frame["quantity"] == "boot.total") & ~loaded.frame["warmup"]].copy()
    slowest = boots[boots["arm"] == "container"].nlargest(2, "value").index
    before = summary(boots).set_index("arm").loc["container"]
    boots.loc[slowest, "value"] = float("nan")
    boots.loc[slowest, "status"] = "timeout"
    after = summary(boots).set_index("arm").loc["container"]
    assert (after["n"], after["timeout"]) == (3, 2)
    assert after["median"] == before["median"]  # the middle one of five stays the middle one
    assert np.isnan(after["p95"])
    faster = boots.copy()
    faster.loc[faster["arm"] == "container", "value"] *= 0.01
    found = ratios(faster).set_index("arm").loc["container"]
    assert not found["claim"]
    assert found["why"] == "it failed at times: better only where it did not"
