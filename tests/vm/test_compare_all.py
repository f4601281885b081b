"""``lab compare`` on all four backends in one run: the product's main job, with a small application."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparing import check_run, compare, make_scenario, only_run
from host_state import assert_unchanged, snapshot


@pytest.mark.parametrize(
    "metrics",
    [
        "boot,memory",
        # A hundred questions to each of five arms. By day a microvm and containers are asked in tests of their own.
        pytest.param("boot,memory,isolation", marks=pytest.mark.nightly),
    ],
)
def test_four_backends_run_the_same_files(tmp_path: Path, metrics: str) -> None:
    before = snapshot()
    scenario = make_scenario(tmp_path / "page")
    words = ("--on", "process,container,microvm,vm", "--metrics", metrics, "--idle", "1s", "--blocks", "1")
    done = compare(scenario, *words, "--out", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    arms = {"process", "process#aa", "container", "microvm", "vm"}
    loaded = check_run(only_run(tmp_path / "results"), arms, 1)
    kernels = {arm.label: arm.kernel for arm in loaded.run.arms}
    assert kernels["microvm"] == kernels["vm"] != kernels["process"] == kernels["container"]
    boots = loaded.frame[(loaded.frame["quantity"] == "boot.total") & ~loaded.frame["warmup"]]
    by_arm = dict(zip(boots["arm"], boots["value"], strict=True))
    assert by_arm["container"] < by_arm["microvm"] < by_arm["vm"]
    answers = loaded.answers
    differing = answers[answers["detail"].map(lambda detail: detail.get("as_expected") is False)]
    assert differing.empty, differing[["arm", "quantity", "text"]].to_string()
    # The libvirt of an earlier test lives in this process to its end, and may make its folder below /run/lab again.
    assert_unchanged(before, ignore=("sessions",))
