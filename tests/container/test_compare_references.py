"""lab's container beside the field's in one comparison: the same files, limits and answers.

runc is there twice: a copy that is named by its path, and the installed one as the other level of a factor.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from comparing import check_run, compare, make_scenario, only_run
from host_state import assert_unchanged, snapshot

from lab.backends.registry import find
from lab.backends.support.programs.binary import locate

INSTALLED = ("runc", "crun")
COPY = "oci:runc-copy"
REFERENCES = ("crun", COPY)


@pytest.mark.nightly
def test_side_by_side_at_equal_isolation(
    tmp_path: Path, missing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in (check for name in INSTALLED for check in find(name).check()):
        if not check.ok:
            missing(f"{check.name} ({check.found})")
    before = snapshot()
    monkeypatch.chdir(tmp_path)
    runc, copy = locate("runc"), tmp_path / "runc-copy"
    shutil.copy(runc, copy)
    scenario = make_scenario(tmp_path / "page")
    on = "container,crun,oci:./runc-copy"
    words = ("--on", on, "--metrics", "boot,isolation", "--idle", "0.2", "--blocks", "1")
    done = compare(scenario, *words, "--factor", f"binary=./runc-copy,{runc}", "--out", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    folder = only_run(tmp_path / "results")
    other = f"{COPY}[binary={runc}]"
    loaded = check_run(folder, {"container", "container#aa", *REFERENCES, other}, 1)
    answers = loaded.answers
    differing = answers[answers["detail"].map(lambda detail: detail.get("as_expected") is False)]
    assert differing.empty, differing[["arm", "quantity", "text"]].to_string()
    known = answers[answers["text"] != "inconclusive"]  # a limit of CPU can't be told on a busy host
    assert set(known["backend"]) == {"container", *REFERENCES}  # asked once per backend, so not of the A/A twin
    for question, said in known.groupby("quantity", observed=True):
        assert said["text"].nunique() == 1, (question, said[["arm", "text"]].to_string())
    arms = {arm.label: arm for arm in loaded.run.arms}
    assert all(len(arms[name].differences) > len(arms["container"].differences) for name in REFERENCES)
    made_by = {label: arm.made_by["path"] for label, arm in arms.items() if arm.made_by}
    assert made_by == {"crun": str(locate("crun")), COPY: str(copy), other: str(runc)}
    assert arms[COPY].made_by["digest"] == arms[other].made_by["digest"], "it is a copy"
    page = (folder / "report.md").read_text()
    for label in made_by:
        assert arms[label].differences[-1] in page
        assert arms[label].made_by["version"] in arms[label].differences[-1]
    assert_unchanged(before)
