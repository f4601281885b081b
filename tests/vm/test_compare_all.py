"""``lab compare`` with machines in one run: the product's main job, with a small application.

By day a microvm beside what shares the host's kernel; a full VM too in an ordinary machine (`tests/machines`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from comparing import check_run, compare, make_scenario, only_run
from host_state import assert_unchanged, snapshot


@pytest.mark.parametrize(
    ("machines", "metrics"),
    [
        ("microvm", "boot"),  # what it holds after load is measured by test_isolation_in_a_guest.py, once
        # A hundred questions to each of five arms. By day a microvm and containers are asked in tests of their own.
        pytest.param("microvm,vm", "boot,memory,isolation", marks=pytest.mark.nightly),
    ],
)
def test_backends_run_the_same_files(tmp_path: Path, machines: str, metrics: str) -> None:
    before = snapshot()
    scenario = make_scenario(tmp_path / "page")
    words = ("--on", f"process,container,{machines}", "--metrics", metrics, "--idle", "1s", "--blocks", "1")
    done = compare(scenario, *words, "--out", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    order = ["container", *machines.split(",")]
    loaded = check_run(only_run(tmp_path / "results"), {"process", "process#aa", *order}, 1)
    kernels = {arm.label: arm.kernel for arm in loaded.run.arms}
    assert kernels["process"] == kernels["container"] not in {kernels[name] for name in order[1:]}
    boots = loaded.frame[(loaded.frame["quantity"] == "boot.total") & ~loaded.frame["warmup"]]
    by_arm = dict(zip(boots["arm"], boots["value"], strict=True))
    assert sorted(order, key=by_arm.__getitem__) == order
    answers = loaded.answers
    differing = answers[answers["detail"].map(lambda detail: detail.get("as_expected") is False)]
    assert differing.empty, differing[["arm", "quantity", "text"]].to_string()
    # The libvirt of an earlier test lives in this process to its end, and may make its folder below /run/lab again.
    assert_unchanged(before, ignore=("sessions",))
