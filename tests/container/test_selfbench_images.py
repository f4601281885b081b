"""Layers and disks beside tar and mke2fs, for real, in a few rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.experiment.selfbench.containers import Results
from lab.experiment.selfbench.images import measure_images
from lab.experiment.watch import Silent
from lab.images.store import Store


@pytest.mark.nightly
def test_layers_and_disks_are_measured_beside_their_references(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    results = Results(rounds=2, seed=1)
    measure_images(store, results, 2, Silent())
    assert set(results.series) == {"unpack", "tar", "disk", "mke2fs"}
    assert all(len(one.seconds) == 2 and min(one.seconds) > 0 for one in results.series.values())
    assert store.images() == []
    assert not list((store.home / "tmp").iterdir())
