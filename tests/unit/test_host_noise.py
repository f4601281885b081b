"""The noise sentinel: what it reads, what is said of it, and which blocks a rule leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import write_run

from lab.analysis import Kind, Loaded, load
from lab.analysis.noise import noisy_blocks
from lab.host.survey import quiet
from lab.results.observation import Observation
from lab.results.record import Sample
from lab.studies.compare.measure import sentinel

STAT = "cpu  1000 200 300 4000 500 60 40 900 70 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def test_processors_times_are_split_and_guests_are_not_counted_twice() -> None:
    times = quiet.parse_cpu_times(STAT)
    assert times is not None
    assert (times.busy_seconds, times.idle_seconds, times.stolen_seconds) == (16.0, 45.0, 9.0)
    assert times.total_seconds == 70.0


@given(st.text())
def test_what_is_no_such_file_is_none_or_an_error_of_nobody(text: str) -> None:
    assert quiet.parse_cpu_times(text) is None


def make_host(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_host_is_read_from_proc_and_sys(tmp_path: Path) -> None:
    files = {
        "proc/stat": STAT,
        "proc/loadavg": "1.50 0.70 0.30 2/300 4242\n",
        "proc/pressure/cpu": "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n",
        "proc/cpuinfo": "processor : 0\ncpu MHz\t\t: 2000.000\nprocessor : 1\ncpu MHz\t\t: 3000.000\n",
    }
    found = quiet.read(make_host(tmp_path, files))
    assert (found.load_average, found.pressure, found.frequency_hertz) == (1.5, {"cpu": 0.125}, 2.5e9)
    make_host(tmp_path, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n"})
    assert quiet.frequency(tmp_path) == 1.8e9


def test_a_host_that_offers_nothing_is_none_not_zero(tmp_path: Path) -> None:
    found = quiet.read(tmp_path)
    assert (found.cpu, found.pressure, found.load_average, found.frequency_hertz) == (None, {}, None, None)
    assert found.stolen_since(found) is None
    assert found.busy_since(found) is None


def test_shares_are_of_the_time_between_two_looks(tmp_path: Path) -> None:
    before = quiet.read(make_host(tmp_path, {"proc/stat": STAT}))
    later = quiet.read(make_host(tmp_path, {"proc/stat": "cpu 1100 200 300 4080 500 60 40 920 70 0\n"}))
    assert later.stolen_since(before) == pytest.approx(0.1)
    assert replace(later, at=before.at + 0.5).busy_since(before) == pytest.approx(2.0)


def watched(root: Path, values: Mapping[str, list[float]], **settings: object) -> Loaded:
    """A quiet run whose host was observed: a value per block and quantity."""
    folder = write_run(root, blocks=10, noise=0.01, bad_luck=False)
    with folder:
        for quantity, series in values.items():
            for block, value in enumerate(series, start=1):
                folder.append(of_host(quantity, block, value))
        folder.update(settings={**folder.run.settings, **settings})
    return load(folder.path)


def of_host(quantity: str, block: int, value: float) -> Sample:
    unit = "seconds" if quantity == "host.compute" else "1"
    return Sample(
        metric="host", quantity=quantity, value=value, unit=unit, backend="", arm="", block=block, position=0,
        instance="",
    )  # fmt: skip


QUIET = [0.200, 0.201, 0.199, 0.202, 0.200, 0.198, 0.201, 0.200, 0.199, 0.201]
ONE_NOISY = [*QUIET[:6], 0.36, *QUIET[7:]]
HOSTS = {Kind.NOISY_HOST, Kind.HOST_DRIFT, Kind.OTHER_LOAD, Kind.STEAL, Kind.FREQUENCY, Kind.EXCLUDED}


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({"host.compute": QUIET, "host.steal": [0.0] * 10, "host.others": [0.02] * 10}, set()),
        ({"host.compute": ONE_NOISY}, {Kind.NOISY_HOST}),
        ({"host.compute": [0.2 + 0.004 * step for step in range(10)]}, {Kind.HOST_DRIFT}),
        ({"host.steal": [0.0] * 9 + [0.08]}, {Kind.STEAL}),
        ({"host.others": [0.0] * 9 + [1.4]}, {Kind.OTHER_LOAD}),
        ({"host.frequency": [2.0e9, 3.1e9] * 5}, {Kind.FREQUENCY}),
    ],
)
def test_each_disturbance_is_told_and_a_quiet_host_is_not(
    tmp_path: Path, values: dict[str, list[float]], kinds: set[Kind]
) -> None:
    found = watched(tmp_path, values).findings()
    assert {finding.kind for finding in found} & HOSTS == kinds
    assert all(finding.advice for finding in found)


def test_the_host_is_in_no_statistic_of_the_arms(tmp_path: Path) -> None:
    with_host, without = watched(tmp_path / "a", {"host.compute": ONE_NOISY}), watched(tmp_path / "b", {})
    assert with_host.summary().equals(without.summary())
    assert with_host.ratios().equals(without.ratios())
    assert (with_host.excluded, with_host.blocks) == ((), 10)


def test_a_rule_leaves_out_what_it_said_it_would_and_counts_it(tmp_path: Path) -> None:
    loaded = watched(tmp_path, {"host.compute": ONE_NOISY}, exclude_noisy=1.5)
    assert (loaded.excluded, loaded.blocks) == ((7,), 9)
    assert set(loaded.frame.loc[loaded.frame["excluded"], "block"]) == {7}
    assert loaded.summary().set_index(["quantity", "state", "arm"]).loc[("boot.total", "", "vm"), "n"] == 9
    (told,) = [finding for finding in loaded.findings() if finding.kind is Kind.EXCLUDED]
    assert "1 block of 10 (7)" in told.sentence
    assert "1.5 times" in told.sentence


def test_a_resumed_blocks_slowest_computation_counts(tmp_path: Path) -> None:
    loaded = watched(tmp_path, {"host.compute": QUIET})
    with write_run(tmp_path / "again", blocks=10, bad_luck=False) as folder:
        folder.append(*(of_host("host.compute", block, value) for block, value in enumerate(QUIET, start=1)))
        folder.append(of_host("host.compute", 4, 0.5))
    assert noisy_blocks(loaded.frame, 1.5) == ()
    assert noisy_blocks(load(folder.path).frame, 1.5) == (4,)


@pytest.mark.parametrize(("isolation", "is_root", "times"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_what_who_breaks_out_reaches_is_asked_once_and_by_root(
    monkeypatch: pytest.MonkeyPatch, isolation: bool, is_root: bool, times: int
) -> None:
    seen = Observation(quantity="breakout.it", value=None, unit="answer", text="no")
    monkeypatch.setattr(sentinel, "is_system_wide", lambda: is_root)
    monkeypatch.setattr(sentinel, "ask_broken_out", lambda: iter([seen]))
    watching = sentinel.Sentinel(isolation=isolation)
    assert [one for _ in range(2) for one in watching.look() if one.quantity == "breakout.it"] == [seen] * times
