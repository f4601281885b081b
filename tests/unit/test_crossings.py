"""Crossings: the helper times what it says, what is not there is said, and both are read as the page tells."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from host_state import wait_until
from local_instance import LOOPBACK, LocalInstance
from synthetic import write_run

from lab.analysis.checks.crossings import NAMES, remarks
from lab.analysis.findings import Kind
from lab.analysis.quantities import QUANTITIES
from lab.errors import LabError
from lab.inside import build
from lab.instance import INSIDE
from lab.metrics.base import Subject
from lab.metrics.crossings import Crossings, clocks_apart, observations
from lab.metrics.registry import metrics
from lab.model import Scenario
from lab.reports.figures import charts
from lab.reports.material import Material
from lab.reports.words.crossings import dearest, table
from lab.results.record import Status
from lab.results.store import RunFolder

DOCS = Path(__file__).parents[2] / "docs"
SHORT = {name.partition(".")[2] for name in NAMES}


def ask(*names: str) -> dict[str, Any]:
    done = subprocess.run([build.program(), "crossings", *names], capture_output=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return ask()


def test_the_helper_times_what_has_a_label_and_nothing_else(whole: dict[str, Any]) -> None:
    assert set(whole["crossings"]) == SHORT
    assert "crossings" in [metric.name for metric in metrics() if metric.on_request]


def test_values_are_in_the_order_that_no_machine_can_turn_round(whole: dict[str, Any]) -> None:
    """What contains another crossing is dearer than it, at its least: others of a busy host only make it dearer."""
    found = {name: said["least"] for name, said in whole["crossings"].items() if "median" in said}
    for less, more in (
        ("getpid", "stat"), ("clock", "open"), ("stat", "fork"), ("getpid", "pipe"), ("mmap", "thread"),
        ("fork", "exec"), ("switch", "pipe"), ("pipe", "exec"), ("tcp", "tcp_stream"), ("read", "tmpfs.small"),
    ):  # fmt: skip
        assert found[less] < found[more], (less, more)
    for said in whole["crossings"].values():
        if "median" in said:
            assert said["least"] <= said["quarter"] <= said["median"] <= said["three_quarters"]
            assert said["batches"] >= 3


def test_a_batch_is_long_beside_the_clock(whole: dict[str, Any]) -> None:
    assert whole["clock"]["source"] == Path(
        "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    ).read_text().strip()  # fmt: skip
    reading = max(whole["clock"]["step"], whole["clock"]["cost"])
    for name in ("getpid", "clock", "none", "read"):
        said = whole["crossings"][name]
        assert said["least"] * said["per_batch"] >= 50 * reading, name


def test_it_times_the_call_and_no_memory_of_it() -> None:
    """As many getpid(2) as it says, counted by the kernel on its way in."""
    if subprocess.run(["strace", "-V"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace is not installed")
    counted = subprocess.run(
        ["strace", "-f", "-c", "-e", "trace=getpid", build.program(), "crossings", "getpid"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    said = json.loads(counted.stdout)["crossings"]["getpid"]
    calls = re.search(r"(\d+)\s+getpid", counted.stderr)
    assert calls is not None
    assert int(calls[1]) >= said["batches"] * said["per_batch"]


def test_nothing_is_left_in_the_file_systems(whole: dict[str, Any]) -> None:
    assert whole["crossings"]
    places = map(Path, ("/dev/shm", "/tmp", "/run", "/var/tmp", "/root", "/"))
    found = [folder for place in places for folder in place.glob("lab-crossings-*")]
    assert wait_until(lambda: not any(map(Path.exists, found)), 250), "another process's go with it"


def test_a_name_that_is_none_is_refused() -> None:
    done = subprocess.run([build.program(), "crossings", "colour"], capture_output=True, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_is_not_there_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    """One processor, no tmpfs, and a root directory that can't be written to."""
    shutil.copy(build.program(), tmp_path / "inside")
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec taskset -c 0 chroot "$0" "$@"'
    names = ("getpid", "wake", "root.fsync", "tmpfs.small", "stat")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, tmp_path, "/inside", "crossings", *names],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    said = json.loads(done.stdout)
    values = {each.quantity: each for each in observations(said, said["seconds"], 0)}
    assert values.pop("crossings.getpid").value
    assert all((each.value, each.status) == (None, Status.OK) for each in values.values())
    assert values["crossings.wake"].text == "it has one processor"
    assert values["crossings.root.fsync"].text.endswith("EROFS")
    assert values["crossings.tmpfs.small"].text.startswith("no tmpfs")


CLOCK = {"step": 20, "cost": 26, "source": "tsc"}
SAID = {
    "median": 150.0, "least": 149.0, "quarter": 149.5, "three_quarters": 151.0, "first": 900.0, "batches": 40,
    "per_batch": 1300,
}  # fmt: skip


def test_a_refused_call_is_an_absence_with_its_errno() -> None:
    said = {"root.direct": {"file_system": "tmpfs", "absent": "open with O_DIRECT", "errno": 22, "name": "EINVAL"}}
    (seen,) = observations({"clock": CLOCK, "crossings": said, "seconds": 0.1}, 0.1, 0.0)
    assert (seen.value, seen.status, seen.text) == (None, Status.OK, "open with O_DIRECT: EINVAL")
    assert seen.detail["file_system"] == "tmpfs"


def test_a_clock_that_lies_makes_every_value_a_failed_one() -> None:
    found = {"clock": CLOCK, "crossings": {"getpid": SAID}, "seconds": 1.0}
    (right,) = observations(found, 1.3, 0.2)
    (wrong,) = observations(found, 3.0, 0.2)
    assert (right.value, right.status, right.unit) == (pytest.approx(150e-9), Status.OK, "seconds")
    assert right.detail["first_seconds"] == pytest.approx(900e-9)
    assert wrong.status is Status.FAILED
    assert "1.00 s" in wrong.text
    assert clocks_apart(4.0, 3.0, 0.0), "one that runs too fast as well"


def test_the_metric_asks_the_helper_of_the_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(name="s", title="S", directory=Path(), dockerfile=Path())
    with LocalInstance(["sleep", "60"], tmp_path) as instance:
        subject = Subject.before_launch(scenario=scenario, network=LOOPBACK, idle_seconds=0.01)
        subject.launched(instance)
        seen = list(Crossings().loaded(subject))
        assert {each.quantity for each in seen} == set(NAMES)
        assert all(each.unit == QUANTITIES[each.quantity].unit for each in seen)
        assert all(each.status is Status.OK for each in seen)
        execute = instance.execute
        monkeypatch.setattr(
            instance, "execute", lambda argv, **more: execute((INSIDE, "version") if argv[1] == "crossings" else argv)
        )
        with pytest.raises(LabError, match="crossings"):
            list(Crossings().loaded(subject))
        instance.opaque = True
        assert not list(Crossings().loaded(subject))


# Reports


def with_crossings(root: Path, **times: float) -> Material:
    """A made-up run of the synthetic backends in which every crossing takes ``times`` as long as a bare process."""
    folder: RunFolder = write_run(root, bad_luck=False)
    instances = {(each.arm, each.block): each for each in folder.samples() if each.quantity == "boot.total"}
    for (arm, block), boot in instances.items():
        for place, name in enumerate(NAMES):
            factor = times.get(arm.partition("#")[0], 1.0)
            if name == "crossings.none":
                factor = min(factor, 1.5)
            absent = name == "crossings.root.direct" and arm == "microvm"
            folder.append(
                replace(
                    boot, metric="crossings", quantity=name, unit="seconds", detail={},
                    value=None if absent else 1e-7 * 3**place * factor * (1 + 0.01 * block),
                    text="open with O_DIRECT: EINVAL" if absent else "",
                )
            )  # fmt: skip
    return Material.read(folder.path)


def test_the_report_shows_every_crossing_and_why_one_is_missing(tmp_path: Path) -> None:
    material = with_crossings(tmp_path, container=1.2, microvm=9.0, vm=20.0)
    found = table(material)
    assert [row.header for row in found.rows] == [material.label(name) for name in NAMES]
    row = next(row for row in found.rows if row.header == material.label("crossings.root.direct"))
    cells = dict(zip([column.text for column in found.columns], row.cells, strict=True))
    assert (cells["microvm"].text, cells["microvm"].note) == ("–", "open with O_DIRECT: EINVAL")
    assert cells["process"].text != "–"
    times, where = dearest(material, "crossings.getpid")
    assert (times, where) == ("20 ×", "vm")
    (drawn,) = [each for each in charts(material) if each.name == "crossings"]
    rows = [row for panel in drawn.chart.panels for row in panel.rows if "points" in row]
    assert [row["label"] for row in rows] == [material.label(name) for name in NAMES]
    assert sum(len(row["points"]) for row in rows) == 3 * len(NAMES) - 1


def test_what_crosses_nothing_is_the_control(tmp_path: Path) -> None:
    """Native arms that differ in it are told; that an emulated one does is no finding."""
    quiet = with_crossings(tmp_path / "quiet", microvm=9.0, vm=20.0)
    assert not list(remarks(quiet.loaded.frame))
    noisy = with_crossings(tmp_path / "noisy", container=1.2)
    (told,) = remarks(noisy.loaded.frame)
    assert "container" in told.sentence
    assert any(each.kind is Kind.NOISE and each.sentence == told.sentence for each in noisy.findings)


def test_the_page_explains_every_crossing() -> None:
    section = (DOCS / "crossings.md").read_text().partition("## Each of them")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert re.findall(r"`([\w.]+)`", " ".join(cells)) == [name.partition(".")[2] for name in NAMES]
