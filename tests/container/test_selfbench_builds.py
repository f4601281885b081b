"""Builds beside buildah's, for real: on a base that is there, and one that is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from corpus import make_base

from lab.commands.building.session_steps import SessionSteps
from lab.errors import CommandError
from lab.experiment.selfbench.builds import BASE, measure_builds
from lab.experiment.selfbench.containers import Results
from lab.experiment.watch import Silent
from lab.images.build import build
from lab.images.store import Store


@pytest.mark.nightly
def test_builds_are_measured_beside_buildah_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    store = Store.open()
    results = Results(rounds=1, seed=1)
    with pytest.raises(CommandError, match="is not in the store"):
        measure_builds(store, results, 1, Silent())
    folder = tmp_path / "base"
    folder.mkdir()
    make_base(folder)
    with SessionSteps() as steps:
        build(folder, dockerfile=folder / "Dockerfile", tag=BASE, build_args={}, store=store, runner=steps)
    measure_builds(store, results, 1, Silent())
    assert set(results.series) == {"build cold", "buildah cold", "build cached", "buildah cached"}
    assert all(len(one.seconds) == 1 and min(one.seconds) > 0 for one in results.series.values())
    assert [image.name for image in store.images()] == [BASE]
    assert not list((store.home / "tmp").iterdir())
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
