"""How ``lab bench self`` orders, compares and judges; what it measures is tested where it can run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lab.cli.host import bench
from lab.errors import CommandError
from lab.experiment.selfbench import containers as selfbench
from lab.experiment.selfbench.containers import GOALS, Results
from lab.experiment.selfbench.machines import by_hand

LIBVIRT_ARGV = [
    "/usr/bin/qemu-system-x86_64", "-name", "guest=lab-a-b,debug-threads=on", "-S",
    "-object", '{"qom-type":"secret","id":"masterKey0","format":"raw","file":"/run/lab/a/master-key.aes"}',
    "-machine", "microvm,usb=off", "-accel", "tcg", "-display", "none", "-no-user-config", "-nodefaults",
    "-chardev", "socket,id=charmonitor,fd=27,server=on,wait=off",
    "-mon", "chardev=charmonitor,id=monitor,mode=control",
    "-kernel", "/guest/vmlinuz", "-initrd", "/tmp/old/initramfs", "-append", "console=ttyS0 panic=-1",
    "-netdev", '{"type":"tap","fd":"29","id":"hostnet0"}',
    "-device", '{"driver":"virtio-net-device","netdev":"hostnet0","id":"net0"}',
    "-chardev", "socket,id=charserial0,path=/tmp/old/console",
    "-sandbox", "on,obsolete=deny", "-msg", "timestamp=on",
]  # fmt: skip


def results(**seconds: list[float]) -> Results:
    found = Results(rounds=10, seed=7)
    for name, values in seconds.items():
        found.add(name.replace("_", " "), name, values)
    return found


def test_every_contender_runs_once_a_round_in_changing_order() -> None:
    calls: list[str] = []

    def contender(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    found = selfbench.interleave(
        {name: lambda name=name: contender(name) for name in "abc"},  # type: ignore[misc]
        rounds=20, seed=3, doing=lambda _: None,
    )  # fmt: skip
    rounds = [tuple(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert len(rounds) == 20 + selfbench.WARM_UPS
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1
    assert {name: len(values) for name, values in found.items()} == {"a": 20, "b": 20, "c": 20}
    assert min(min(values) for values in found.values()) > 3 * selfbench.WARM_UPS  # warm-ups are not returned


def test_a_ratio_is_judged_with_its_interval() -> None:
    found = results(container=[0.002] * 10, runc=[0.010 + step / 1000 for step in range(10)])
    outcome = next(one for one in bench.judge(found) if one.goal.theirs == "runc")
    assert outcome.value == pytest.approx(0.002 / 0.01421, rel=0.001), "over the geometric mean"
    assert outcome.low < outcome.value < outcome.high
    assert outcome.met is True


def test_a_goal_that_was_missed_says_so() -> None:
    found = results(last_ten=[0.03] * 10, first_ten=[0.01] * 10)
    outcome = next(one for one in bench.judge(found) if one.goal.ours == "last ten")
    assert (outcome.met, outcome.value) == (False, pytest.approx(3.0))


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    outcomes = bench.judge(results())
    assert [outcome.met for outcome in outcomes] == [None] * len(GOALS)
    assert all(math.isnan(outcome.value) for outcome in outcomes)


def test_json_holds_every_observation(tmp_path: Path) -> None:
    found = results(container=[0.003, 0.004], runc=[0.010, 0.011])
    found.absent["crun"] = "not installed"
    bench._write(tmp_path / "out.json", found, bench.judge(found), "tcg")
    read = json.loads((tmp_path / "out.json").read_text())
    assert read["series"]["runc"]["seconds"] == [0.010, 0.011]
    assert [goal["goal"]["theirs"] for goal in read["goals"]] == ["runc"]
    assert read["absent"] == {"crun": "not installed"}


def test_qemu_by_hand_is_libvirts_command_without_libvirt() -> None:
    words = by_hand(LIBVIRT_ARGV, "/tmp/old", "/tmp/new")
    line = " ".join(words)
    for gone in ("-S", "charmonitor", "secret", "-sandbox", "fd", "/tmp/old"):
        assert gone not in words
        assert gone not in line.replace("debug-threads", "")
    for kept in (
        "-machine microvm,usb=off",
        "-accel tcg",
        "-no-user-config -nodefaults",
        "-initrd /tmp/new/initramfs",
        "-append console=ttyS0 panic=-1",
        "-netdev hubport,id=hostnet0,hubid=0",
        "path=/tmp/new/console",
        "-msg timestamp=on",
    ):
        assert kept in line


def test_a_failing_contender_is_an_error_and_not_a_fast_one() -> None:
    with pytest.raises(CommandError, match="exit code 3"):
        selfbench.spawn(["sh", "-c", "exit 3"])
