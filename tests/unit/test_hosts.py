"""Runs of many hosts together: what is known of made-up ones comes out, and nothing that isn't."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from claims import is_above, is_below
from fleet import Fleet, described, told, write_fleet
from scipy import stats as distributions
from statsmodels.stats.meta_analysis import combine_effects
from synthetic import leave_pictures_empty, write_run
from typer.testing import CliRunner

from lab.analysis.data import TWIN
from lab.analysis.hosts import across
from lab.analysis.hosts.across import apart, combined
from lab.analysis.hosts.merged import Merged, merged
from lab.analysis.hosts.sources import HostKind, chosen, found_below, kind_of
from lab.analysis.hosts.within import ratios_of
from lab.analysis.loaded import load
from lab.cli.app import app
from lab.errors import LabError, ResultsError
from lab.reports.hosts import write
from lab.reports.hosts.chart import MOST_NAMED, figures
from lab.results.merge import merge
from lab.results.store import PARQUET, RUN, RunFolder

# Thirteen trials of a vaccine (Colditz and others 1994): with it ill and well, without it ill and well
TRIALS = np.array(
    [
        (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
        (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232),
        (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
    ],
    dtype=float,
).T  # fmt: skip
EFFECTS = np.log(TRIALS[0] / (TRIALS[0] + TRIALS[1])) - np.log(TRIALS[2] / (TRIALS[2] + TRIALS[3]))
VARIANCES = 1 / TRIALS[0] - 1 / (TRIALS[0] + TRIALS[1]) + 1 / TRIALS[2] - 1 / (TRIALS[2] + TRIALS[3])


def test_the_library_finds_what_other_programs_find() -> None:
    """Of the logarithms of risk ratios: R's metafor and Stata's metan, by DerSimonian and Laird."""
    found = combine_effects(EFFECTS, VARIANCES, method_re="dl")
    assert found.q == pytest.approx(152.2330, abs=1e-4)
    assert found.mean_effect_re == pytest.approx(-0.7141, abs=1e-4)
    assert tuple(found.conf_int()[1]) == pytest.approx((-1.0644, -0.3638), abs=1e-4)


def test_hosts_together_are_what_the_formulas_say() -> None:
    found = combined(EFFECTS, VARIANCES)
    weights = 1 / (VARIANCES + found.tau2)
    mean = float(weights @ EFFECTS / weights.sum())
    count = len(EFFECTS)
    assert found.mean == pytest.approx(mean)
    assert weights @ (EFFECTS - mean) ** 2 == pytest.approx(count - 1, abs=0.002), "Paule and Mandel's equation"
    assert found.i2 == pytest.approx(combine_effects(EFFECTS, VARIANCES).i2)
    knapp = math.sqrt(weights @ (EFFECTS - mean) ** 2 / weights.sum() / (count - 1))
    assert found.error == pytest.approx(knapp, rel=1e-3)
    reach = distributions.t.ppf(0.975, count - 1) * found.error
    assert (found.low, found.high) == pytest.approx((mean - reach, mean + reach))
    ahead = distributions.t.ppf(0.975, count - 2) * math.sqrt(found.tau2 + found.error**2)
    assert (found.next_low, found.next_high) == pytest.approx((mean - ahead, mean + ahead))


def test_an_interval_is_never_narrower_than_the_hosts_own_noise_allows() -> None:
    found = combined(np.array([0.1, 0.1001, 0.0999]), np.full(3, 0.01))
    assert found.tau2 == 0
    assert found.i2 == 0
    assert found.error == pytest.approx(math.sqrt(0.01 / 3))


def test_the_variance_between_hosts_is_not_lost_to_rounding() -> None:
    """With statsmodels' own tolerance it is 0 at times, though Q says that it is none (see `across.TOLERANCE`)."""
    for seed in range(60):
        generator = np.random.default_rng(seed)
        variances = generator.uniform(0.5, 2, 2_000) * 10 ** generator.uniform(-6, -2)
        effects = generator.normal(0, 0.2, 2_000)
        tau2 = combined(effects, variances).tau2
        weights = 1 / (np.fmax(variances, across.SUREST**2) + tau2)
        mean = weights @ effects / weights.sum()
        assert weights @ (effects - mean) ** 2 == pytest.approx(1_999, abs=0.01)


def test_what_never_varied_does_not_outweigh_all_others() -> None:
    found = combined(np.array([0.0, 0.3, 0.3, 0.3]), np.array([0.0, 1e-4, 1e-4, 1e-4]))
    assert math.isfinite(found.mean)
    assert found.mean > 0.2


@pytest.mark.parametrize("count", [1, 2])
def test_few_hosts_have_no_interval(count: int) -> None:
    found = combined(EFFECTS[:count], VARIANCES[:count])
    assert all(math.isnan(each) for each in (found.low, found.high, found.next_low, found.next_high, found.p))


# By simulation, quickly: without folders


def keeps_its_promise(trials: int = 200, hosts: int = 8, tau: float = 0.2) -> tuple[bool, bool]:
    """Whether 95 of 100 intervals of the mean, and of the next host, hold it."""
    generator = np.random.default_rng(4)
    means = ahead = 0
    for _ in range(trials):
        truth = generator.normal(0.3, tau, hosts + 1)
        seen = truth[:hosts, None] + generator.normal(0, 0.14, (hosts, 10))
        found = combined(seen.mean(axis=1), seen.var(axis=1, ddof=1) / 10)
        means += found.low <= 0.3 <= found.high
        ahead += found.next_low <= truth[hosts] <= found.next_high
    return is_above(means, trials, 0.95), is_above(ahead, trials, 0.95)


def test_intervals_hold_what_they_promise() -> None:
    assert keeps_its_promise() == (True, True)


def test_it_is_seen_when_hosts_are_taken_for_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(effects: Any, variances: Any) -> tuple[float, float, float, float]:
        found = combine_effects(effects, variances)
        return found.mean_effect_fe, found.var_eff_w_fe, 0.0, found.q

    monkeypatch.setattr(across, "_fitted", alike)
    assert keeps_its_promise() == (False, False)


def falsely_named(trials: int = 60, hosts: int = 8) -> int:
    generator, named = np.random.default_rng(6), 0
    for _ in range(trials):
        seen = generator.normal(0.3, 0.1, (hosts, 1)) + generator.normal(0, 0.14, (hosts, 10))
        _, p_values = apart(seen.mean(axis=1), seen.var(axis=1, ddof=1) / 10, np.full(hosts, 9.0))
        named += bool(p_values.min() * hosts <= 0.05)
    return named


def test_hosts_of_one_kind_are_rarely_named() -> None:
    assert is_below(falsely_named(), 60, 0.05)


def test_it_is_seen_when_the_scatter_between_hosts_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = across._fitted

    def without(effects: Any, variances: Any) -> tuple[float, float, float, float]:
        mean, variance, _, q = fitted(effects, variances)
        return mean, variance, 0.0, q

    monkeypatch.setattr(across, "_fitted", without)
    assert not is_below(falsely_named(), 60, 0.05)


def said_to_differ(trials: int = 60, hosts: int = 40) -> int:
    generator, said = np.random.default_rng(8), 0
    for _ in range(trials):
        seen = generator.normal(0.3, 0.14, (hosts, 10))
        said += combined(seen.mean(axis=1), seen.var(axis=1, ddof=1) / 10, np.full(hosts, 9.0)).p_alike <= 0.05
    return said


def test_hosts_that_are_alike_are_rarely_said_to_differ() -> None:
    assert is_below(said_to_differ(), 60, 0.08)


def test_it_is_seen_when_their_noise_is_taken_for_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(effects: Any, variances: Any, _: Any) -> float:
        return float(distributions.chi2.sf(combine_effects(effects, variances).q, len(effects) - 1))

    monkeypatch.setattr(across, "_alike", known)
    assert not is_below(said_to_differ(), 60, 0.08)


# Out of folders


def row_of(found: Merged, **wanted: str) -> pd.Series:
    table = found.pooled
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_each_run_says_what_its_own_report_says(tmp_path: Path) -> None:
    """Failures, polling, twins, sessions and excluded blocks included; runs of two hosts may have one name."""
    folders = [write_run(tmp_path / host, blocks=blocks, seed=blocks) for host, blocks in (("a", 3), ("b", 4))]
    folders.append(write_run(tmp_path / "c", blocks=4, seed=7))
    folders[2].update(settings={**folders[2].run.settings, "exclude_noisy": 1.2})
    sessions = merge([write_run(tmp_path / "d", blocks=2, seed=seed) for seed in (1, 2, 3)], tmp_path / "e")
    sessions.update(settings={**sessions.run.settings, "merged": None})
    for number, folder in enumerate([*folders, sessions]):
        folder.update(host={**folder.run.host, "identity": f"{number:012x}"})
    groups = [chosen([folder.path])[0][0] for folder in [*folders, sessions]]
    sources = [source for group in groups for source in group.sources]
    table = ratios_of(sources).astype({"quantity": str, "state": str, "arm": str})
    for number, source in enumerate(sources):
        alone = load(source.path).ratios()
        alone = alone[~alone["arm"].str.endswith(TWIN)].set_index(["quantity", "state", "arm"]).sort_index()
        mine = table[table["run"] == number].set_index(["quantity", "state", "arm"]).sort_index()
        assert mine.index.tolist() == alone.index.tolist()
        assert np.exp(mine["log"].to_numpy()) == pytest.approx(alone["ratio"].to_numpy(), nan_ok=True)
        assert mine["scatter"].to_numpy() == pytest.approx(alone["scatter"].to_numpy(), nan_ok=True)
        assert mine["units"].tolist() == alone["units"].tolist()
        barred = alone["why"].str.contains("polling").to_numpy()
        assert mine["unresolved"].to_numpy()[barred].all()
        assert mine["failed"].to_numpy()[alone["why"].str.startswith("it failed").to_numpy()].all()
    assert sessions.path.name in {source.path.name for source in sources}
    assert set(table.loc[table["run"] == 3, "units"]) == {3}


def test_what_is_known_of_a_fleet_comes_out_whatever_its_seconds_are(tmp_path: Path) -> None:
    means = ahead = 0
    for seed in range(4):
        root = tmp_path / str(seed)
        truths = write_fleet(root, Fleet(hosts=6, tau=0.1, ratio=1.5, blocks=6, seed=seed))
        (root / "host-005").rename(tmp_path / "next")
        row = row_of(merged([root]))
        means += row["low"] <= 1.5 <= row["high"]
        ahead += row["next_low"] <= truths[f"{5:012x}"]["container", "boot.total"] <= row["next_high"]
        assert (row["hosts"], row["runs"]) == (5, 5)
        assert row["tau2"] < 0.25, "that of seconds would be 1.8"
        shutil.rmtree(tmp_path / "next")
    assert is_above(means, 4, 0.95)
    assert is_above(ahead, 4, 0.90)


def test_a_host_that_was_measured_often_counts_once(tmp_path: Path) -> None:
    """Fifty runs of a host that differs are one host, and what differs from run to run is in its variance."""
    write_fleet(tmp_path, Fleet(hosts=4, tau=0.0, runs=1, noise=0.02))
    few = row_of(merged([tmp_path]))
    write_fleet(tmp_path / "often", Fleet(hosts=1, runs=12, ratio=2.4, tau=0, between_runs=0.2, noise=0.02, seed=9))
    for number, path in enumerate(found_below([tmp_path / "often"])):
        document = told(path)
        document["host"]["identity"] = "often"
        document["name"] = f"often-{number}"
        (path / RUN).write_text(json.dumps(document))
    found = merged([tmp_path])
    row = row_of(found)
    assert (row["hosts"], row["runs"]) == (5, 16)
    often = found.estimates[found.estimates["host"] == "often"].iloc[0]
    assert often["runs"] == 12
    assert math.sqrt(often["variance"]) == pytest.approx(0.2 / math.sqrt(12), rel=0.5)
    assert few["ratio"] < row["ratio"] < 1.5, "it weighs as one of five"


def test_kinds_of_hosts_have_an_estimate_each(tmp_path: Path) -> None:
    kinds = {3: "nested", 4: "nested", 5: "nested", 6: "emulated"}
    slow = dict.fromkeys(kinds, 10.0)
    write_fleet(tmp_path, Fleet(hosts=7, kinds=kinds, deviants=slow, arms=("container", "vm")))
    found = merged([tmp_path])
    assert {(kind, row_of(found, kind=kind, arm="vm")["hosts"]) for _, kind in found.strata} == {
        (HostKind.BARE, 3), (HostKind.NESTED, 3), (HostKind.EMULATED, 1),
    }  # fmt: skip
    assert row_of(found, kind="bare", arm="container")["high"] < 3
    assert row_of(found, kind="nested", arm="container")["low"] > 3
    assert math.isnan(row_of(found, kind="emulated", arm="vm")["next_low"])


def test_one_backend_under_kvm_and_tcg_is_two(tmp_path: Path) -> None:
    write_fleet(tmp_path, Fleet(hosts=6, arms=("vm",)))
    for path in found_below([tmp_path])[:3]:
        (path / RUN).write_text((path / RUN).read_text().replace('"tcg"', '"kvm"'))
    found = merged([tmp_path])
    assert {each["accelerator"]: each["hosts"] for each in found.pooled.to_dict("records")} == {"kvm": 3, "tcg": 3}


def test_the_kind_of_a_host_is_what_its_run_recorded(tmp_path: Path) -> None:
    run = described(Fleet(hosts=1), 0)
    del (host := dict(run.host))["platform"]
    for cpu, kind in (
        ({"virtualised": True}, HostKind.NESTED),
        ({"virtualised": False}, HostKind.BARE),
        ({}, HostKind.UNKNOWN),
    ):
        assert kind_of(write_run_of(tmp_path, host | {"cpu": cpu}).run) is kind


def write_run_of(root: Path, host: dict[str, Any]) -> RunFolder:
    folder = write_run(root, blocks=1)
    folder.update(host=host)
    return folder


def change(path: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    document = told(path)
    how(document)
    (path / RUN).write_text(json.dumps(document))


def test_what_does_not_fit_is_named_and_left_out(tmp_path: Path) -> None:
    write_fleet(tmp_path, Fleet(hosts=10))
    paths = found_below([tmp_path])
    change(paths[0], lambda run: run["image"].update(digest="sha256:other"))
    change(paths[1], lambda run: run["versions"].update(lab="0.0.1"))
    change(paths[2], lambda run: run.update(ended_because="interrupted"))
    change(paths[3], lambda run: run["settings"].update(kind="density"))
    change(paths[4], lambda run: run["host"].pop("identity"))
    (paths[5] / RUN).write_text("{")
    shutil.copytree(paths[6], tmp_path / "copy")
    found = merged([tmp_path])
    why = {each.path: each.why for each in found.left_out}
    assert set(why) == {
        *paths[:6],
        paths[6].parents[0] / paths[6].name if False else max(paths[6], tmp_path / "copy"),
    }
    for path, word in zip(paths, ("image", "version", "interrupted", "density", "host", RUN), strict=False):
        assert word in why[path]
    assert row_of(found)["hosts"] == 4


def test_a_run_whose_samples_can_t_be_read_is_told_and_left_out(tmp_path: Path) -> None:
    write_fleet(tmp_path, Fleet(hosts=4))
    (found_below([tmp_path])[0] / PARQUET).write_bytes(b"PAR1 nonsense")
    with pytest.raises(ResultsError):
        merged([tmp_path])
    heard: list[LabError] = []
    assert row_of(merged([tmp_path], skipped=heard.append))["hosts"] == 3
    assert len(heard) == 1


def test_a_host_that_disagrees_is_named_with_what_is_special_about_it(tmp_path: Path) -> None:
    special = {2: {"kernel_release": "6.12-rt", "mitigations": {"spectre_v2": "Vulnerable"}}}
    write_fleet(tmp_path, Fleet(hosts=8, tau=0.02, deviants={2: 2.0}, special=special))
    found = merged([tmp_path], names={f"{2:012x}": "attic"})
    named = found.estimates[found.estimates["disagrees"]]
    assert named["host"].tolist() == [f"{2:012x}"]
    (host,) = [each for each in found.hosts["web-app"] if each.name == "attic"]
    said = " ".join(found.special("web-app", host))
    assert "6.12-rt" in said
    assert "spectre_v2" in said
    assert "cgroups" not in said
    assert all(not found.special("web-app", each) for each in found.hosts["web-app"] if each is not host)
    assert bool(row_of(found)["differing"])


def test_of_three_hosts_none_can_be_said_to_disagree(tmp_path: Path) -> None:
    write_fleet(tmp_path, Fleet(hosts=3, tau=0.0, deviants={2: 3.0}))
    assert merged([tmp_path]).estimates["p"].isna().all()


def test_an_arm_that_failed_at_times_is_never_better(tmp_path: Path) -> None:
    write_fleet(tmp_path, Fleet(hosts=5, ratio=0.5, tau=0.01))
    assert row_of(merged([tmp_path]))["verdict"] == "different"
    path = found_below([tmp_path])[0] / PARQUET
    table = pq.read_table(path)
    frame = table.to_pandas()
    frame.loc[frame.index[frame["arm"] == "container"][0], "status"] = "failed"
    pq.write_table(pa.Table.from_pandas(frame, table.schema, preserve_index=False), path)
    row = row_of(merged([tmp_path]))
    assert row["verdict"] == "not proven"
    assert "failed" in row["why"]


# The page and the command


@pytest.fixture(scope="module")
def told_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fleet")
    write_fleet(root, Fleet(hosts=6, tau=0.02, deviants={1: 2.0}, kinds={5: "emulated"}))
    change(found_below([root])[0], lambda run: run["image"].update(digest="sha256:other"))
    return root


def test_the_command_writes_a_page_with_its_files(told_of: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        leave_pictures_empty(patch, all_but_words=True)
        done = CliRunner().invoke(
            app, ["hosts", str(told_of), "--out", str(tmp_path / "out")], catch_exceptions=False
        )
    assert done.exit_code == 0
    assert str(tmp_path / "out" / "report.html") in done.stdout.replace("\n", "")
    page = (tmp_path / "out" / "report.html").read_text()
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    (bare,) = [each for each in document["pooled"] if each["kind"] == "bare"]
    assert bare["hosts"] == 4
    assert f"{bare['ratio']:.2f} ×" in page
    assert f"{bare['ratio']:.2f} ×" in (tmp_path / "out" / "report.md").read_text()
    assert [each["why"].count("image") for each in document["left_out"]] == [1]
    estimates = pd.read_csv(tmp_path / "out" / "hosts.csv", dtype={"host": str})
    assert set(estimates["host"]) == {f"{number:012x}" for number in (1, 2, 3, 4, 5)}
    assert "data:image/svg+xml" in page
    assert list((tmp_path / "out" / "plots").glob("*.png"))


def test_json_alone_is_the_report(told_of: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        leave_pictures_empty(patch)
        done = CliRunner().invoke(app, ["hosts", str(told_of), "--out", str(tmp_path), "--json=-"])
    assert json.loads(done.stdout) == json.loads((tmp_path / "report.json").read_text())


def test_a_picture_has_every_host_and_the_next_where_there_are_three(told_of: Path) -> None:
    found = merged([told_of])
    drawn = {figure.kind: figure.chart.panels[0].rows for figure in figures(found)}
    assert [row["role"] for row in drawn[HostKind.BARE]] == ["host"] * 4 + ["pooled", "next"]
    assert [row["role"] for row in drawn[HostKind.EMULATED]] == ["host"]
    assert sum(row["disagrees"] for row in drawn[HostKind.BARE]) == int(found.estimates["disagrees"].sum())


def test_of_many_hosts_those_that_disagree_alone_are_named(tmp_path: Path) -> None:
    write_fleet(tmp_path, Fleet(hosts=MOST_NAMED + 5, tau=0.02, deviants={7: 2.0, 8: 2.0}, blocks=4))
    (figure,) = figures(merged([tmp_path]))
    named = [row["label"] for row in figure.chart.panels[0].rows if row["role"] == "host" and row["label"]]
    assert len(named) == 1
    assert named[0].endswith("+1")


@pytest.mark.parametrize("quantity", ["cpu.per_1000_requests", "boot.init"])
def test_what_was_measured_is_drawn_whatever_it_is(tmp_path: Path, quantity: str) -> None:
    write_fleet(tmp_path, Fleet(hosts=3, quantities=(quantity,)))
    with pytest.MonkeyPatch.context() as patch:
        leave_pictures_empty(patch)
        written = write([tmp_path], tmp_path / "out")
    assert [figure.chart.panels[0].kind for figure in figures(written.merged)] == ["forest"]
    assert written.files[-1].is_file()


def test_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    write_fleet(tmp_path, Fleet(hosts=3))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="can't be made") as caught:
        write([tmp_path], tmp_path / "file" / "out")
    assert "--out" in caught.value.hint


@pytest.mark.parametrize("made", [False, True])
def test_nothing_to_look_at_is_one_line(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "there").mkdir()
    with pytest.raises(ResultsError) as caught:
        write([tmp_path / "there"], tmp_path / "out")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()
