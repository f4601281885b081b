"""Each finding appears when its reason is there, and not otherwise; each advises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from synthetic import write_run

import lab
from lab.analysis import Finding, Kind, Loaded, findings, load, ratios
from lab.analysis.findings import RESTORED_PAGES
from lab.model import Accelerator


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Ten quiet blocks without bad luck, and everything on KVM."""
    folder = write_run(tmp_path_factory.mktemp("results"), blocks=10, noise=0.01, bad_luck=False)
    loaded = load(folder.path)
    arms = tuple(
        replace(
            arm,
            accelerator=Accelerator.KVM if arm.accelerator is Accelerator.TCG else arm.accelerator,
            differences=(),
        )
        for arm in loaded.run.arms
    )
    frame = loaded.frame[loaded.frame["unit"] != "answer"]
    return replace(loaded, run=replace(loaded.run, arms=arms), frame=frame)


def found(loaded: Loaded) -> tuple[Finding, ...]:
    return findings(loaded, ratios(loaded.frame))


def kinds(loaded: Loaded) -> set[Kind]:
    return {finding.kind for finding in found(loaded)}


def test_a_calm_run_has_nothing_to_warn_of(calm: Loaded) -> None:
    assert found(calm) == ()


def test_bad_luck_and_emulation_are_told_with_advice(tmp_path: Path) -> None:
    loaded = load(write_run(tmp_path).path)
    by_kind = {finding.kind: finding for finding in found(loaded)}
    assert {Kind.FAILED, Kind.EMULATED, Kind.FEW_BLOCKS, Kind.ISOLATION, Kind.INCONCLUSIVE, Kind.PARITY} <= set(
        by_kind
    )
    assert "2 of 29" in by_kind[Kind.FAILED].sentence
    assert "microvm and vm" in by_kind[Kind.EMULATED].sentence
    assert "93.8 %" in by_kind[Kind.FEW_BLOCKS].sentence
    assert "kernel's log" in by_kind[Kind.ISOLATION].sentence
    assert all(finding.advice for finding in by_kind.values())


def test_a_surprise_says_which_mechanism_is_missing(tmp_path: Path) -> None:
    loaded = load(write_run(tmp_path).path)
    frame = loaded.frame.copy()
    frame["detail"] = [{**raw, "surprise": "what (capability) is missing"} for raw in frame["detail"]]
    told = {finding.kind: finding for finding in found(replace(loaded, frame=frame))}
    assert "“ (what (capability) is missing)" in told[Kind.ISOLATION].sentence.replace("”", "“")


def changed(loaded: Loaded, quantity: str, arm: str, change: Callable[[int, float], float]) -> Loaded:
    """The run with one series changed: ``change`` gets the index and the value."""
    frame = loaded.frame.copy()
    chosen = frame.index[(frame["quantity"] == quantity) & (frame["arm"] == arm) & ~frame["warmup"]]
    frame.loc[chosen, "value"] = [change(i, value) for i, value in enumerate(frame.loc[chosen, "value"])]
    return replace(loaded, frame=frame)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Kind.NOISE, lambda index, value: value * (1 + 0.3 * (index % 3))),
        (Kind.DRIFT, lambda index, value: value * (1 + 0.05 * index)),
        (Kind.CLUSTERS, lambda index, value: value * (3 if index % 2 else 1)),
    ],
)
def test_odd_series_are_told_by_name(calm: Loaded, kind: Kind, change: Callable[[int, float], float]) -> None:
    odd = changed(calm, "boot.total", "vm", change)
    told = [finding for finding in found(odd) if finding.kind is kind]
    assert told
    assert "boot of vm" in told[0].sentence


def test_a_backend_that_differs_from_itself_is_the_first_finding(calm: Loaded) -> None:
    assert Kind.TWIN not in kinds(calm)
    odd = changed(calm, "boot.total", "container#aa", lambda _, value: value * 2)
    told = found(changed(odd, "boot.total", "vm", lambda index, value: value * (1 + index % 2)))
    assert len(told) > 1
    assert told[0].kind is Kind.TWIN
    assert "boot by 2" in told[0].sentence or "boot by 1.9" in told[0].sentence


def test_a_run_without_a_pair_says_so(calm: Loaded) -> None:
    alone = replace(calm, frame=calm.frame[calm.frame["arm"] != "container#aa"])
    assert Kind.NO_TWIN in kinds(alone)


def test_a_pair_that_two_blocks_don_t_tell_of_is_no_missing_pair(calm: Loaded) -> None:
    two = replace(calm, frame=calm.frame[calm.frame["block"] <= 2])
    assert {Kind.FEW_BLOCKS, Kind.NO_TWIN} & kinds(two) == {Kind.FEW_BLOCKS}


def test_coarse_polling(calm: Loaded) -> None:
    frame = calm.frame.copy()
    frame.loc[(frame["quantity"] == "boot.total") & (frame["arm"] == "process"), "resolution"] = 0.1
    assert Kind.COARSE in kinds(replace(calm, frame=frame))


def test_what_was_restored_says_what_no_figure_holds(calm: Loaded) -> None:
    frame = calm.frame.copy()
    series = (frame["quantity"] == "boot.isolated") & (frame["arm"] == "vm")
    frame = pd.concat([frame, frame[series].assign(quantity="snapshot.size", value=128.0 * 2**20, unit="bytes")])
    told = [each for each in found(replace(calm, frame=frame)) if each.kind is Kind.RESTORED]
    assert len(told) == 1
    assert "vm from 128 MiB " in told[0].sentence
    mapped = calm.frame[series].assign(quantity="snapshot.memory", value=64.0 * 2**20, unit="bytes")
    frame = pd.concat([frame, mapped])
    told = [each for each in found(replace(calm, frame=frame)) if each.kind is Kind.RESTORED]
    assert "vm from 192 MiB " in told[0].sentence
    assert told[0].advice.endswith(" in docs/how-a-vm-starts.md.")


def test_a_container_that_was_restored_is_told_of_on_a_page_of_its_own(calm: Loaded) -> None:
    frame = calm.frame.copy()
    series = (frame["quantity"] == "boot.isolated") & (frame["arm"] == "container")
    frame = pd.concat([frame, frame[series].assign(quantity="snapshot.size", value=8.0 * 2**20, unit="bytes")])
    told = [each for each in found(replace(calm, frame=frame)) if each.kind is Kind.RESTORED]
    assert told[0].advice.endswith(" in docs/how-a-container-starts.md.")
    for page in {"how-a-vm-starts", *RESTORED_PAGES.values()}:
        assert "\n## Restored instead of " in (Path(lab.__file__).parents[1] / f"docs/{page}.md").read_text()


@pytest.mark.parametrize("because", ["", "interrupted", "error: disk full"])
def test_an_unfinished_run(calm: Loaded, because: str) -> None:
    assert Kind.INTERRUPTED in kinds(replace(calm, run=replace(calm.run, ended_because=because)))


def test_who_ran_where_no_instance_was_to_run_is_told(calm: Loaded) -> None:
    def told_of(**allowed: str) -> bool:
        parity = {
            arm: {**seen, "limits": {**seen["limits"], "cpus_allowed": allowed.get(arm, "2-3")}}
            for arm, seen in calm.run.parity.items()
        }
        settings = {**calm.run.settings, "placement": {"lab": "0", "client": "1", "instances": "2-3", "reason": ""}}
        told = found(replace(calm, run=replace(calm.run, parity=parity, settings=settings)))
        return any("vm" in each.sentence and "--placement" in each.advice for each in told)

    assert told_of(vm="0-3")
    assert not told_of(vm="3")


def test_other_files_inside_are_serious(calm: Loaded) -> None:
    parity = {**calm.run.parity, "vm": {"manifest_digest": "sha256:other"}}
    told = found(replace(calm, run=replace(calm.run, parity=parity)))
    assert [finding.kind for finding in told] == [Kind.PARITY]
    assert "vm did not run what the others ran" in told[0].sentence
