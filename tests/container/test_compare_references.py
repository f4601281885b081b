"""lab's container beside the field's in one comparison: the same files, limits and answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from comparing import check_run, compare, make_scenario, only_run
from host_state import assert_unchanged, snapshot

from lab.backends.registry import find

REFERENCES = ("runc", "crun")


def test_side_by_side_at_equal_isolation(tmp_path: Path, missing: Callable[[str], None]) -> None:
    for check in (check for name in REFERENCES for check in find(name).check()):
        if not check.ok:
            missing(f"{check.name} ({check.found})")
    before = snapshot()
    scenario = make_scenario(tmp_path / "page")
    on = ",".join(("container", *REFERENCES))
    words = ("--on", on, "--metrics", "boot,isolation", "--idle", "0.2", "--blocks", "1")
    done = compare(scenario, *words, "--out", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    loaded = check_run(only_run(tmp_path / "results"), {"container", "container#aa", *REFERENCES}, 1)
    answers = loaded.answers
    differing = answers[answers["detail"].map(lambda detail: detail.get("as_expected") is False)]
    assert differing.empty, differing[["arm", "quantity", "text"]].to_string()
    known = answers[answers["text"] != "inconclusive"]  # a limit of CPU can't be told on a busy host
    assert set(known["arm"]) == {"container", *REFERENCES}  # asked once per backend, so not of the A/A twin
    for question, said in known.groupby("quantity", observed=True):
        assert said["text"].nunique() == 1, (question, said[["arm", "text"]].to_string())
    parity = {arm.label: arm.differences for arm in loaded.run.arms}
    assert all(len(parity[name]) > len(parity["container"]) for name in REFERENCES)
    assert_unchanged(before, within_seconds=10)
