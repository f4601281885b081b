"""Planted faults: each can be found from the hand-out alone, and is not in the run that they were planted into."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lab
from lab.classroom.flaw.handout import KEY, check, make, open_key
from lab.classroom.flaw.plants import FAULTS
from lab.cli.classroom.flaws import app
from lab.errors import UsageError

SAMPLE = Path(__file__).parents[2] / "results" / "sample"
Row = dict[str, Any]
Detector = Callable[[dict[str, Any], list[Row]], set[str]]


def counted(rows: list[Row], *quantities: str) -> list[Row]:
    return [
        row for row in rows if row["block"] > 0 and row["arm"] and (not quantities or row["quantity"] in quantities)
    ]


def medians(rows: list[Row], quantity: str) -> dict[str, float]:
    found = defaultdict(list)
    for row in counted(rows, quantity):
        found[row["arm"]].append(row["value"])
    return {arm: sorted(values)[len(values) // 2] for arm, values in found.items()}


def not_interleaved(run: dict[str, Any], rows: list[Row]) -> set[str]:
    order = [row["arm"] for row in sorted(counted(rows, "boot.total"), key=lambda row: row["at"])]
    changes = sum(one != other for one, other in itertools.pairwise(order))
    return {f"arm={order[0]}"} if changes < len(set(order)) else set()


def cold_against_warm(run: dict[str, Any], rows: list[Row]) -> set[str]:
    cold = {f"arm={arm}" for arm, value in medians(rows, "caches.resident").items() if value == 0}
    return cold | {"quantity=caches.resident"} if cold else set()


def emulation_called_kvm(run: dict[str, Any], rows: list[Row]) -> set[str]:
    compute = medians(rows, "cpu.compute")
    slow = {
        f"arm={arm['label']}" for arm in run["arms"]
        if arm["accelerator"] == "kvm" and compute[arm["label"]] > 3 * compute["process"]
    }  # fmt: skip
    return slow | {"quantity=cpu.compute"} if slow else set()


def twin_differs(run: dict[str, Any], rows: list[Row]) -> set[str]:
    boots = medians(rows, "boot.total")
    return {"arm=process#aa", "quantity=boot.total"} if boots["process#aa"] > 1.35 * boots["process"] else set()


def survivors_only(run: dict[str, Any], rows: list[Row]) -> set[str]:
    cold = [row for row in counted(rows) if not row["instance"].startswith("warmup")]
    blocks = {row["block"] for row in cold}
    seen = defaultdict(set)
    for row in cold:
        seen[row["arm"]].add(row["block"])
    return {word for arm, own in seen.items() for block in blocks - own for word in (f"arm={arm}", f"block={block}")}


def wrong_unit(run: dict[str, Any], rows: list[Row]) -> set[str]:
    return {
        word
        for quantity in ("memory.pss", "memory.cgroup.usage")
        for arm, value in medians(rows, quantity).items()
        if value < 1 << 20
        for word in (f"arm={arm}", f"quantity={quantity}")
    }


def cherry_picked_blocks(run: dict[str, Any], rows: list[Row]) -> set[str]:
    missing = set(range(1, run["blocks_planned"] + 1)) - {row["block"] for row in counted(rows)}
    return {f"block={block}" for block in missing}


def limit_did_not_hold(run: dict[str, Any], rows: list[Row]) -> set[str]:
    native = {arm["label"] for arm in run["arms"] if arm["accelerator"] == "native"}
    over = {
        f"arm={row['arm']}" for row in counted(rows, "memory.cgroup.usage")
        if row["arm"] in native and row["value"] > run["limits"]["memory_bytes"]
    }  # fmt: skip
    return over | {"quantity=memory.cgroup.usage"} if over else set()


def copied_block(run: dict[str, Any], rows: list[Row]) -> set[str]:
    values: dict[Any, set[int]] = defaultdict(set)
    for row in counted(rows, "cpu.boot"):
        values[row["arm"], row["value"]].add(row["block"])
    return {f"block={block}" for blocks in values.values() if len(blocks) > 1 for block in blocks}


def other_application(run: dict[str, Any], rows: list[Row]) -> set[str]:
    found = run["parity"]
    return {f"arm={arm}" for arm in found if found[arm]["manifest_digest"] != found["process"]["manifest_digest"]}


def warm_up_counted(run: dict[str, Any], rows: list[Row]) -> set[str]:
    return {f"block={row['block']}" for row in counted(rows) if row["instance"].startswith("warmup")}


def unequal_limits(run: dict[str, Any], rows: list[Row]) -> set[str]:
    found = run["parity"]
    return {f"arm={arm}" for arm in found if found[arm]["limits"]["cpus"] != found["process"]["limits"]["cpus"]}


def coarse_polling(run: dict[str, Any], rows: list[Row]) -> set[str]:
    coarse = {f"arm={row['arm']}" for row in counted(rows, "boot.total") if row["resolution"] > row["value"] / 4}
    return coarse | {"quantity=boot.total"} if coarse else set()


DETECTORS: dict[str, Detector] = {
    each.__name__.replace("_", "-"): each
    for each in (
        not_interleaved, cold_against_warm, emulation_called_kvm, twin_differs, survivors_only, wrong_unit,
        cherry_picked_blocks, limit_did_not_hold, copied_block, other_application, warm_up_counted, unequal_limits,
        coarse_polling,
    )
}  # fmt: skip


def records(folder: Path) -> tuple[dict[str, Any], list[Row]]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return json.loads((folder / "run.json").read_text()), rows


@pytest.fixture(scope="module", params=[1, 2, 3])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flaw") / "class"
    make(folder, SAMPLE, list(FAULTS), request.param)
    return folder


def test_there_are_ten_kinds_at_least_and_all_can_be_detected() -> None:
    assert set(FAULTS) == set(DETECTORS)
    assert len(FAULTS) >= 10


def test_the_real_run_has_none_of_them() -> None:
    assert {name: found for name, detect in DETECTORS.items() if (found := detect(*records(SAMPLE)))} == {}


def test_each_hand_out_has_the_fault_of_its_key_and_no_other(made: Path) -> None:
    cases = open_key(made / KEY, made / "handout")
    assert sorted(told["flaw"] for told in cases.values()) == sorted(FAULTS)
    for name, told in cases.items():
        seen = records(made / "handout" / name)
        found = {kind: evidence for kind, detect in DETECTORS.items() if (evidence := detect(*seen))}
        assert found == {told["flaw"]: set(told["evidence"])}


def test_a_hand_out_is_a_run_that_says_it_is_an_exercise_and_not_which(made: Path) -> None:
    for folder in sorted((made / "handout").glob("case-*")):
        loaded = lab.load(str(folder))
        assert loaded.run.title.startswith("Exercise: ")
        assert not loaded.ratios().empty
        text = (folder / "run.json").read_text() + (made / "handout" / "seal.json").read_text()
        assert not any(f'"{name}"' in text for name in FAULTS)
    assert (made / KEY).stat().st_mode & 0o077 == 0
    seal = json.loads((made / "handout" / "seal.json").read_text())
    assert seal["sha256"] == hashlib.sha256((made / KEY).read_bytes()).hexdigest()


def test_a_key_that_was_changed_or_a_run_that_was_is_not_taken(tmp_path: Path) -> None:
    key = make(tmp_path / "class", SAMPLE, ["wrong-unit"], 1)
    other = make(tmp_path / "other", SAMPLE, ["wrong-unit"], 1)
    with pytest.raises(UsageError, match="not the key"):
        open_key(other, tmp_path / "class" / "handout")
    with (tmp_path / "class" / "handout" / "case-01" / "run.json").open("a") as file:
        file.write(" ")
    with pytest.raises(UsageError, match="was changed"):
        open_key(key, tmp_path / "class" / "handout")
    with pytest.raises(UsageError, match="already"):
        make(tmp_path / "class", SAMPLE, ["wrong-unit"], 1)
    with pytest.raises(UsageError, match="no fault"):
        make(tmp_path / "new", SAMPLE, ["right-unit"], 1)


def answers(folder: Path, *rows: tuple[str, ...]) -> Path:
    with (folder / "answers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("student", "case", "flaw", "evidence"), *rows])
    return folder / "answers.csv"


def test_answers_are_judged_by_the_fault_and_its_evidence(tmp_path: Path) -> None:
    cases = {"case-01": {"flaw": "survivors-only", "evidence": ["arm=vm", "block=2", "block=5"]}}
    found = check(
        answers(
            tmp_path,
            ("a", "case-01", "survivors-only", "arm=vm block=2, block=5"),
            ("b", "case-01", "survivors-only", "arm=vm block=2"),
            ("c", "case-01", "survivors-only", " ".join(f"block={n}" for n in range(1, 7)) + " arm=vm"),
            ("d", "case-01", "wrong-unit", "arm=vm block=2 block=5"),
            ("d", "case-01", "survivors-only", "arm=vm block=2 block=5"),
            ("e", "case-99", "survivors-only", ""),
            ("f", "case-01", "survivors-only", ""),
        ),
        cases,
    )
    assert [each.points for each in found] == [1.0, 0.83, 0.71, 0.0, 0.0, 0.0, 0.5]
    assert "before" in found[4].says
    assert "no such case" in found[5].says


@pytest.mark.parametrize("text", ["", "student,case\n", "\xff\x00", 'student,case,flaw,evidence\n"'])
def test_what_is_no_list_of_answers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "answers.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError):
        check(tmp_path / "answers.csv", {})


def test_the_commands(tmp_path: Path) -> None:
    runner = CliRunner()
    assert {each["name"] for each in json.loads(runner.invoke(app, ["ls", "--json=-"]).stdout)} == set(FAULTS)
    done = runner.invoke(app, ["make", str(tmp_path / "x"), "--kind", "wrong-unit,copied-block", "--seed", "5"])
    assert done.exit_code == 0, done.output
    key = json.loads((tmp_path / "x" / KEY).read_text())["cases"]["case-01"]
    file = answers(tmp_path, ("=cmd", "case-01", key["flaw"], " ".join(key["evidence"])))
    words = ["check", str(file), "--key", str(tmp_path / "x" / KEY), "--handout", str(tmp_path / "x" / "handout")]
    assert json.loads(runner.invoke(app, [*words, "--json=-"]).stdout)[0]["points"] == 1.0
    told = runner.invoke(app, [*words, "--csv", "-"]).stdout
    assert told.splitlines() == ["student,case,points,remark", "'=cmd,case-01,1,right"]
